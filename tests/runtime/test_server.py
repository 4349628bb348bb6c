import http.client
import json
import queue
import re
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from medmind.errors import MedmindError
from medmind_runtime import private_file
from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Before, Guard, Unguarded
from medmind_runtime.interruption import never
from medmind_runtime.safety.careful import Careful
from medmind_runtime.serve.connection import Connection
from medmind_runtime.serve.openai_answer import StopText
from medmind_runtime.serve.openai_request import Refused
from medmind_runtime.serve.server import Limits, Served, Server
from medmind_runtime.turn import Passage, Turn

TOKEN = "t" * 20
PATIENCE = 60
"""Seconds to wait for what must come: whatever a busy machine takes."""
HELLO = [{"role": "user", "content": "hello"}]


class Client:
    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=PATIENCE)
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", **headers})
        return connection.getresponse()

    def ask(self, messages: Any = HELLO, **fields: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps({"messages": messages, **fields}).encode()
        response = self.send("POST", "/v1/chat/completions", body)
        return response.status, json.loads(response.read())

    def events(self, **fields: Any) -> list[Any]:
        body = json.dumps({"messages": HELLO, "stream": True, **fields}).encode()
        response = self.send("POST", "/v1/chat/completions", body)
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in response.read().decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        return [line if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


@contextmanager
def serving(engine: FakeEngine, guard: Guard | None = None, **limits: Any) -> Iterator[Client]:
    server = Server("127.0.0.1", 0, TOKEN, Limits(**limits))
    server.poll_seconds = 0.01
    served = Served("fake", engine, guard or Unguarded(), "calm", Sampling(), 50)
    thread = threading.Thread(target=server.serve, args=(served,))
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_an_answer_has_openais_form_and_the_conversation_reaches_the_model() -> None:
    engine = FakeEngine(["né 😀"])
    with serving(engine) as client:
        talk = [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        ]
        status, answer = client.ask(talk, model="fake", temperature=0.5, seed=3)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "né 😀", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len("né 😀".encode()) + 1
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert engine.prompts == ["<system>be kind<user>a<assistant>b<user>cd"]
    assert (engine.samplings[0].temperature, engine.samplings[0].seed) == (0.5, 3)


def test_a_stream_gives_the_same_text_in_pieces_with_usage_at_the_end() -> None:
    with serving(FakeEngine(["one two"])) as client:
        first, *pieces, last, spent, done = client.events(stream_options={"include_usage": True})
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "one two"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert (spent["choices"], spent["usage"]["completion_tokens"]) == ([], 8)
        assert done == "data: [DONE]"
        assert len({piece["id"] for piece in (first, *pieces, last, spent)}) == 1
        assert all("usage" not in event for event in client.events()[:-1])


def test_no_piece_of_a_stream_waits_for_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []

    def begin(self: Connection, *given: Any) -> None:
        waits.append(not self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        real(self, *given)

    real = Connection._begin_stream
    monkeypatch.setattr(Connection, "_begin_stream", begin)
    with serving(FakeEngine(["one"])) as client:
        assert client.events()[-1] == "data: [DONE]"
    assert waits == [False]


def test_stop_texts_and_limits_end_an_answer_and_say_how() -> None:
    with serving(FakeEngine(["one. two. STOP here"])) as client:
        for stop, text in (("STOP", "one. two. "), ([" two", "STOP"], "one."), (["zebra"], "one. two. STOP here")):
            _, answer = client.ask(stop=stop)
            assert answer["choices"][0]["message"]["content"] == text
            assert answer["choices"][0]["finish_reason"] == "stop"
            streamed = client.events(stop=stop)[1:-2]
            assert "".join(piece["choices"][0]["delta"]["content"] for piece in streamed) == text
        for limit in ("max_tokens", "max_completion_tokens"):
            _, answer = client.ask(**{limit: 4})
            assert answer["choices"][0]["message"]["content"] == "one."
            assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stop_text_is_found_wherever_the_pieces_are_cut() -> None:
    text, stop = "aab aaab end", "aaab"
    for cut in range(1, len(text)):
        seeker = StopText([stop, "never"])
        shown = seeker.feed(text[:cut])
        shown += "" if seeker.found else seeker.feed(text[cut:])
        assert (shown, seeker.found) == ("aab ", True)
    seeker = StopText([stop])
    assert seeker.feed("xaa") + seeker.finish() == "xaa"


class Warns(Unguarded):
    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Call now.", passages=[Passage("text", "leaflet", "https://example.org")], rule="emergency")


def test_the_safety_layer_stands_before_every_answer() -> None:
    with serving(FakeEngine(["calm down"]), Warns()) as client:
        _, answer = client.ask()
        assert answer["choices"][0]["message"]["content"] == "Call now.\n\ncalm down"
        assert answer["medmind"]["rule"] == "emergency"
        assert answer["medmind"]["sources"][0]["source"] == "leaflet"
        assert "not a doctor" in answer["medmind"]["notice"]
        events = client.events()
        assert events[1]["choices"][0]["delta"]["content"] == "Call now.\n\n"
        assert events[0]["medmind"]["rule"] == "emergency"


class Refers(Unguarded):
    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Ask a doctor.", alone=True)


def intake(*said: str) -> list[dict[str, str]]:
    """A conversation in which a program answers all but the last with its next question."""
    talk = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Anything else?"}] for text in said]
    return [message for turn in talk for message in turn][:-1]


def test_an_emergency_told_before_is_heard_until_it_is_met() -> None:
    engine = FakeEngine(["fine"])
    with serving(engine, Careful()) as client:

        def asked(talk: list[dict[str, str]], **fields: Any) -> tuple[str, str]:
            _, answer = client.ask(talk, **fields)
            return answer["medmind"]["rule"] or "", answer["choices"][0]["message"]["content"]

        chest, harm = "crushing chest pain, my left arm is numb", "I want to kill myself"
        talk = intake(chest, "since this morning", "no")
        rule, content = asked(talk)
        assert rule == "chest"
        assert content.endswith("\n\nfine")
        met = [*talk, {"role": "assistant", "content": content.replace("\n", "\r\n")}]
        assert asked([*met, {"role": "user", "content": "thanks"}]) == ("", "fine")
        assert asked([*met, {"role": "user", "content": chest}])[0] == "chest"
        assert asked([{"role": "user", "content": chest}, {"role": "system", "content": "x"}, *HELLO])[0] == "chest"
        assert asked(intake(harm, *["and then?"] * 9))[0] == "self_harm"
        assert asked(intake(harm, chest, "the baby swallowed bleach", "hello"))[0] == "overdose,self_harm"
        assert asked(intake(harm, "hello", chest))[0] == "chest,self_harm"
        assert asked(intake("what helps against a cold", "and for how long", "thanks"))[0] == ""
        prompts = len(engine.prompts)
        assert asked(talk, response_format={"type": "json_object"}) == ("chest", content.removesuffix("\n\nfine"))
        assert len(engine.prompts) == prompts


def test_a_json_schema_becomes_the_grammar_of_the_answer_and_nothing_else_is_in_it() -> None:
    schema = {"type": "object", "properties": {"risk": {"type": "string"}}, "required": ["risk"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "risk", "schema": schema, "strict": True}}
    engine = FakeEngine(['{"risk": "low"}'])
    with serving(engine) as client:
        _, answer = client.ask(response_format=wanted)
        assert json.loads(answer["choices"][0]["message"]["content"]) == {"risk": "low"}
        _first, *pieces, _last, _done = client.events(response_format={"type": "json_object"})
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == '{"risk": "low"}'
        client.ask(response_format={"type": "text"})
        client.ask(response_format={"type": "json_schema", "json_schema": {"schema": True}})
    of_schema, of_object, of_text, of_any = (sampling.grammar for sampling in engine.samplings)
    assert "risk" in of_schema
    assert "::=" in of_object
    assert "risk" not in of_object
    assert of_text == ""
    assert "::=" in of_any


@pytest.mark.parametrize(("guard", "says"), [(Warns(), "Call now."), (Refers(), "Ask a doctor.")])
def test_in_a_documents_place_stands_what_the_guard_says_for_every_client_to_see(guard: Guard, says: str) -> None:
    engine = FakeEngine(["{}"])
    with serving(engine, guard) as client:
        _, answer = client.ask(response_format={"type": "json_object"})
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": says, "refusal": says}
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["medmind"]["first_aid"] == ("Call now." if answer["medmind"]["rule"] else "")
        events = client.events(response_format={"type": "json_object"})
        assert [event["choices"][0]["delta"] for event in events[1:3]] == [{"content": says}, {"refusal": says}]
    assert engine.prompts == []


def test_neither_a_stop_text_nor_a_full_context_cuts_off_what_to_do_now() -> None:
    with serving(FakeEngine(["calm down"], context=60), Warns()) as client:
        _, answer = client.ask(stop=["now", " down"])
        assert answer["choices"][0]["message"]["content"] == "Call now.\n\ncalm"
        status, refused = client.ask([{"role": "user", "content": "x" * 500}])
        assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
        assert refused["error"]["message"].startswith("Call now.")


def test_a_document_whose_number_is_an_invented_dose_is_refused_in_openais_field() -> None:
    engine = FakeEngine(['{"drug": "ibuprofen", "dose": 800}'])
    with serving(engine, Careful()) as client:
        _, answer = client.ask(response_format={"type": "json_object"})
        message = answer["choices"][0]["message"]
        assert message["content"] is None
        assert "held back" in message["refusal"]
        events = client.events(response_format={"type": "json_object"})
        assert "800" not in json.dumps([event["choices"] for event in events[:-1]])  # times hold any digits
        assert [event["choices"][0]["delta"] for event in events[1:-2]] == [{"refusal": message["refusal"]}]


def test_models_are_listed() -> None:
    with serving(FakeEngine(["x"])) as client:
        listed = json.loads(client.send("GET", "/v1/models").read())
        assert [model["id"] for model in listed["data"]] == ["fake"]
        assert json.loads(client.send("GET", "/v1/models/fake").read())["object"] == "model"
        assert json.loads(client.send("GET", "/").read())["error"]["message"] == "there is no GET /"


NUMBERS = ("n", "frequency_penalty", "presence_penalty", "temperature", "top_p", "seed")
NUMBERS += ("max_tokens", "max_completion_tokens")
BAD: Mapping[str, tuple[Any, int, str]] = {
    "no JSON": (b"{", 400, "not valid JSON"),
    "nested deeply": (b"[" * 100_000, 400, "not valid JSON"),
    "no object": (b"[]", 400, "must be a JSON object"),
    "no messages": ({}, 400, "at least one message"),
    "empty messages": ({"messages": []}, 400, "at least one message"),
    "a message that is none": ({"messages": [1]}, 400, "messages[0] must be an object"),
    "a role": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0] has the role 'tool'"),
    "a role of no kind": ({"messages": [{"role": ["user"], "content": "x"}]}, 400, "messages[0] has the role ['user']"),
    "half a character": ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, r"\ud800, half of a character's"),
    "half a character to stop at": ({"messages": HELLO, "stop": ["\udfff"]}, 400, r"\udfff, half of a character's"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "must be text"),
    "ends with the assistant": ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, 400, "end with one"),
    "only a system message": ({"messages": [{"role": "system", "content": "x"}]}, 400, "end with one"),
    "temperature": ({"messages": HELLO, "temperature": "hot"}, 400, "temperature must be a number between 0 and 2"),
    "temperature not finite": (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, "temper"),
    "top_p": ({"messages": HELLO, "top_p": 0}, 400, "top-p is 0.0"),
    "max_tokens": ({"messages": HELLO, "max_tokens": 0}, 400, "whole number between 1 and 9223372036854775807"),
    "far too many tokens": ({"messages": HELLO, "max_tokens": 10**30}, 400, "between 1 and 9223372036854775807"),
    "seed": ({"messages": HELLO, "seed": 1.5}, 400, "seed must be a whole number"),
    "stop": ({"messages": HELLO, "stop": list("abcde")}, 400, "at most 4"),
    "stream": ({"messages": HELLO, "stream": "yes"}, 400, "stream must be true or false"),
    "n": ({"messages": HELLO, "n": 2}, 400, "n is not supported"),
    **{
        f"{name} {value}": ({"messages": HELLO, name: value}, 400, f"{name} must be a number, not true or false")
        for name in NUMBERS
        for value in (True, False)
    },
    "response_format": (
        {"messages": HELLO, "response_format": {"type": "yaml"}},
        400,
        "text, json_object, or json_sch",
    ),
    "no schema": ({"messages": HELLO, "response_format": {"type": "json_schema"}}, 400, "json_schema with a schema"),
    "tools": ({"messages": HELLO, "tools": [{}]}, 400, "tools is not supported"),
    "a typing error": ({"messages": HELLO, "temprature": 1}, 400, "temprature is not a known field"),
    "another model": ({"messages": HELLO, "model": "gpt"}, 404, "there is no model gpt: fake is served"),
    "too long": ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "does not fit: it takes"),
    "a schema that no grammar holds": (
        {
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": True}}},
        },
        400,
        "#/uniqueItems, a grammar cannot compare",
    ),
    "a schema that allows nothing": (
        {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": False}}},
        400,
        "the schema is false, which allows no answer at all",
    ),
    "a long name": ({"messages": HELLO, "k" * 9000: 1}, 400, f"{'k' * 60}… is not a known field"),
    "a long role": (
        {"messages": [{"role": "r" * 9000, "content": "x"}]},
        400,
        f"has the role '{'r' * 59}…: not supported",
    ),
    "too large": (b" " * 20_000, 413, "larger than 16384 bytes"),
    "much too large": (b" " * (10 << 20), 413, "larger than 16384 bytes"),
}


def test_what_is_wrong_with_a_request_is_said_in_openais_form_and_the_server_goes_on() -> None:
    engine = FakeEngine(["fine"])
    with serving(engine, body_bytes=16384, read_seconds=5) as client:
        for kind, (body, status, message) in BAD.items():
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            if kind == "nested deeply":
                data = data[:16384]
            response = client.send("POST", "/v1/chat/completions", data)
            error = json.loads(response.read())["error"]
            assert (response.status, message in error["message"]) == (status, True), (kind, response.status, error)
            assert set(error) == {"message", "type", "param", "code"}
        assert engine.prompts == []
        assert client.ask()[0] == 200


def test_a_refused_document_can_be_sent_back_and_headers_are_read_whatever_their_case() -> None:
    with serving(FakeEngine(["x"])) as client:
        refused = {"role": "assistant", "content": None, "refusal": "held back"}
        assert client.ask([*HELLO, refused, *HELLO])[0] == 200
        headers = {"Authorization": f"bEARER {TOKEN}", "Host": f"LOCALHOST:{client.server.server_port}"}
        assert client.send("GET", "/v1/models", **headers).status == 200


def test_who_has_no_token_or_comes_by_another_name_learns_nothing() -> None:
    with serving(FakeEngine(["x"])) as client:
        for header in ("", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer \xe9"):
            assert client.send("GET", "/v1/models", Authorization=header).status == 401
        assert client.send("GET", "/v1/models", Host="evil.example").status == 403
        for origin in ("http://evil.example", "null", "http://[", "https://localhost.evil.example"):
            assert client.send("GET", "/v1/models", Origin=origin).status == 403
        for origin in ("http://localhost:3000", "http://[::1]", "http://127.0.0.1"):
            assert client.send("GET", "/v1/models", Origin=origin).status == 200
        for method, path, status in (
            ("GET", "/v1/nothing", 404),
            ("POST", "/v1/models", 405),
            ("GET", "/v1/chat/completions", 405),
            ("DELETE", "/v1/models", 405),
        ):
            response = client.send(method, path)
            assert (method, path, response.status) == (method, path, status)
            assert json.loads(response.read())["error"]["message"]


class Held(FakeEngine):
    """Says nothing until it is let go, or nobody waits any more."""

    def __init__(self) -> None:
        super().__init__(["fine"])
        self.begun, self.go, self.left = threading.Event(), threading.Event(), threading.Event()

    def generate(
        self,
        tokens: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        cancel: Callable[[], bool] = never,
        known: int = 0,
        aside: str = "",
    ) -> Iterator[int]:
        self.begun.set()
        try:
            while not self.go.wait(0.01):
                if cancel():
                    return
        finally:
            self.left.set()
        yield from super().generate(
            tokens, sampling=sampling, max_tokens=max_tokens, cancel=cancel, known=known, aside=aside
        )


def test_one_answer_at_a_time_some_wait_and_more_are_refused() -> None:
    engine = Held()
    with serving(engine, waiting=1) as client:
        statuses: queue.Queue[int] = queue.Queue()
        threads = [threading.Thread(target=lambda: statuses.put(client.ask()[0])) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert [statuses.get(timeout=PATIENCE) for _ in range(2)] == [429, 429]
        assert statuses.empty()
        engine.go.set()
        assert [statuses.get(timeout=PATIENCE) for _ in range(2)] == [200, 200]
        for thread in threads:
            thread.join()


def test_an_answer_that_takes_too_long_is_an_error_and_not_a_short_answer() -> None:
    with serving(FakeEngine(["x" * 40], delay=0.02), answer_seconds=0.2) as client:
        status, answer = client.ask()
        assert (status, answer["error"]["code"]) == (504, "timeout")
        assert client.events()[-1]["error"]["code"] == "timeout"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_the_servers_end_cuts_off_is_an_error_and_is_told_before_the_end(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Held()
    told: list[bool] = []
    answers: queue.Queue[bytes] = queue.Queue()

    def refuse(connection: Connection, refused: Refused) -> None:
        told.append(connection.server.turns._one.locked())
        write(connection, refused)

    write = Connection._refuse
    monkeypatch.setattr(Connection, "_refuse", refuse)
    with serving(engine) as client:
        body = json.dumps({"messages": HELLO, "stream": stream}).encode()
        asking = threading.Thread(target=lambda: answers.put(client.send("POST", "/v1/chat/completions", body).read()))
        asking.start()
        assert engine.begun.wait(PATIENCE)
        monkeypatch.setattr(client.server.turns, "close", lambda: None)  # it would hold the turn too
    answer = answers.get(timeout=PATIENCE)
    asking.join(PATIENCE)
    assert b"the server ended before the answer did" in answer
    assert b'"finish_reason": "' not in answer
    assert b"[DONE]" not in answer
    assert told == [True]


def test_two_lengths_of_a_body_that_differ_are_refused() -> None:
    with serving(FakeEngine(["x"])) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw:
            raw.sendall(f"{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}} ".encode())
            assert b"several Content-Lengths" in raw.makefile("rb").read()


def test_a_length_that_is_too_large_is_refused_before_anything_of_the_body_is_there() -> None:
    with serving(FakeEngine(["x"]), body_bytes=16384, read_seconds=10 * PATIENCE) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw:
            raw.sendall(f"{head}Content-Length: 20000\r\n\r\n".encode())
            assert b" 413 " in raw.makefile("rb").readline()


def test_a_client_that_leaves_while_its_too_large_body_is_read_away_ends_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, failed = threading.Event(), threading.Event()
    with serving(FakeEngine(["x"]), body_bytes=16384, read_seconds=10 * PATIENCE) as client:
        close = client.server.shutdown_request
        monkeypatch.setattr(client.server, "handle_error", lambda *_: failed.set())
        monkeypatch.setattr(client.server, "shutdown_request", lambda request: (close(request), ended.set()))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw:
            raw.sendall(f"{head}Content-Length: 20000\r\n\r\n".encode())
            said = b""
            while not said.endswith(b"}"):
                said += raw.recv(4096)
            assert b" 413 " in said
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset in place of an end
        assert ended.wait(PATIENCE)
    assert not failed.is_set()


def asked_to_wait(client: Client, expect: str, length: object, version: str = "1.1") -> tuple[bytes, bytes]:
    """The first line of the answer to the head of a request; of that to its body, if it was told to send one."""
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    body = json.dumps({"messages": HELLO}).encode()
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw:
        raw.sendall(f"{head}Expect: {expect}\r\nContent-Length: {length or len(body)}\r\n\r\n".encode())
        lines = raw.makefile("rb")
        if version == "1.0":
            raw.sendall(body)
        first = lines.readline()
        if b" 100 " not in first:
            return first, b""
        assert lines.readline() == b"\r\n"
        raw.sendall(body)
        return first, lines.readline()


def test_a_client_that_waits_is_told_to_go_on_only_when_its_body_can_be_taken() -> None:
    engine = FakeEngine(["fine"])
    with serving(engine, body_bytes=1000) as client:
        fine = b"HTTP/1.1 200 OK\r\n"
        assert asked_to_wait(client, "100-Continue", 0) == (b"HTTP/1.1 100 Continue\r\n", fine)
        for length in (1001, 10**30):
            assert asked_to_wait(client, "100-continue", length)[0].startswith(b"HTTP/1.1 413 ")
        assert asked_to_wait(client, "100-continue", "x")[0].startswith(b"HTTP/1.1 411 ")
        assert asked_to_wait(client, "200-ok", 0)[0].startswith(b"HTTP/1.1 417 ")
        assert asked_to_wait(client, "200-ok", 0, version="1.0")[0] == fine
        for other in ("200-ok", "100-continue, 200-ok"):
            assert asked_to_wait(client, f"100-continue\r\nExpect: {other}", 0)[0].startswith(b"HTTP/1.1 417 ")
        for same in ("100-continue\r\nExpect: 100-Continue", "\r\nExpect: 100-continue,"):
            assert asked_to_wait(client, same, 0) == (b"HTTP/1.1 100 Continue\r\n", fine)
    assert len(engine.prompts) == 4


@pytest.mark.parametrize(
    "line", ["garbage", "no request at all", "POST /", "GET / HTTP/x", "\x16\x03\x01 \x80", "", "  "]
)
def test_what_is_no_request_is_answered_so_and_the_connection_closed(line: str) -> None:
    with (
        serving(FakeEngine(["x"])) as client,
        socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw,
    ):
        raw.sendall(f"{line}\r\n\r\n".encode("latin-1"))
        head, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert status == b"HTTP/1.1 400 Bad Request" and b"Connection: close" in headers
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_gives_the_engine_back(stream: bool) -> None:
    engine = Held()
    with serving(engine) as client:
        body = json.dumps({"messages": HELLO, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        with socket.create_connection(("127.0.0.1", client.server.server_port)) as raw:
            raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert engine.begun.wait(PATIENCE)
            assert not engine.left.is_set()
        assert engine.left.wait(PATIENCE)
        engine.go.set()
        assert client.ask()[0] == 200


@pytest.mark.parametrize(
    "half", [b"GET /v1/models", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"]
)
def test_half_a_request_is_not_waited_for(half: bytes) -> None:
    with serving(FakeEngine(["x"]), header_seconds=0.3, read_seconds=0.3) as client:
        head = half.replace(b"\r\n", f"\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode(), 1)
        with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=PATIENCE) as raw:
            raw.sendall(head)
            while raw.recv(4096):
                pass


@contextmanager
def connected(server: Server, count: int) -> Iterator[list[socket.socket]]:
    raw = [socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE) for _ in range(count)]
    try:
        yield raw
    finally:
        for one in raw:
            one.close()


def test_who_shows_no_token_keeps_nobody_out_and_the_oldest_of_them_is_closed() -> None:
    with serving(FakeEngine(["x"]), strangers=3) as client, connected(client.server, 40) as idle:
        assert client.ask()[0] == 200
        assert b"503 Service Unavailable\r\nRetry-After: 5" in idle[0].recv(100)
        idle[-1].sendall(
            f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert idle[-1].recv(100).startswith(b"HTTP/1.1 200")


def whole_answer(connection: socket.socket) -> bytes:
    """Head and body, however many packets they come in."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return f"HTTP/1.1 {answer.status}".encode()


def test_more_connections_with_a_token_than_allowed_are_refused_for_now() -> None:
    request = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with serving(FakeEngine(["x"]), connections=2) as client, connected(client.server, 2) as kept:
        for one in kept:
            one.sendall(request)
            assert whole_answer(one).startswith(b"HTTP/1.1 200")
        refused = client.send("GET", "/v1/models")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert json.loads(refused.read())["error"]["code"] == "overloaded"
        kept[0].sendall(request)
        assert whole_answer(kept[0]).startswith(b"HTTP/1.1 200")


def test_a_request_that_drips_has_no_more_time_than_another() -> None:
    drips = {
        b"GET /v1/models HTTP/1.1\r\nX: ": b"",
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 9999\r\n\r\n".encode(): b"HTTP/1.1 408",
    }
    with serving(FakeEngine(["x"]), header_seconds=0.3, read_seconds=0.3) as client:
        for begun, answer in drips.items():
            with connected(client.server, 1) as (raw,):
                raw.sendall(begun)
                raw.settimeout(0.05)
                said = None
                for _ in range(2000):  # with a time of its own for each drip it would go on
                    try:
                        said = raw.recv(12)
                        break
                    except TimeoutError:
                        with suppress(OSError):
                            raw.sendall(b"x")
                    except ConnectionResetError:
                        said = b""
                        break
                assert said == answer


def test_only_loopback_and_a_free_port() -> None:
    for host in ("0.0.0.0", "192.168.0.1", "example.org", "::"):
        with pytest.raises(MedmindError, match="is no loopback address"):
            Server(host, 0, TOKEN)
    taken = Server("127.0.0.1", 0, TOKEN)
    with taken, pytest.raises(MedmindError, match="cannot be served on"):
        Server("127.0.0.1", taken.server_port, TOKEN)


def test_the_token_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "token"
    token = private_file.token(file)
    assert len(token) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert private_file.token(file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["two words and more", "short"])
def test_a_file_without_a_token_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    file = tmp_path / "notes"
    file.write_text(content, encoding="ascii")
    file.chmod(0o644)
    with pytest.raises(MedmindError, match="holds no token"):
        private_file.token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.read_text(encoding="ascii") == content
    with pytest.raises(MedmindError, match="is no regular file"):
        private_file.token(tmp_path)


@pytest.mark.parametrize(("end", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_real_server_answers_behind_the_filter(
    start_chat: Callable[..., Any], model: Path, tmp_path: Path, end: signal.Signals, code: int
) -> None:
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's & starts it
    try:
        process = start_chat("serve", model, "--port", 0, "--threads", 1, "--token-file", "token", "--max-tokens", 5)
    finally:
        signal.signal(signal.SIGINT, heard)
    for line in process.stderr:
        if b"Serving tiny at http://127.0.0.1:" in line:
            port = int(line.split(b"127.0.0.1:")[1].split(b"/")[0])
            break
    else:
        raise AssertionError("it did not serve")
    if sys.platform == "linux":
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        assert re.search("Max core file size +0 +0 ", limits)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    key = (tmp_path / "token").read_text(encoding="ascii").strip()
    body = json.dumps({"messages": HELLO})
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
    answer = json.loads(connection.getresponse().read())
    assert answer["usage"]["completion_tokens"] == 5
    process.send_signal(end)
    assert process.wait(PATIENCE) == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["token"]
