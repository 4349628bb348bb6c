"""Who is answered when: one at a time, how long and how many may wait, and clients that leave or dawdle."""

import http.client
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Unguarded
from medmind_runtime.interruption import Interrupted, never
from medmind_runtime.serve.connection import Connection
from medmind_runtime.serve.openai_request import Refused
from medmind_runtime.turn import Turn

from .serving import GET, HELLO, KNOWN, PATIENCE, POST, Client, serving


class Held(FakeEngine):
    """Says nothing until it is let go, or nobody waits any more."""

    def __init__(self) -> None:
        super().__init__(["fine"])
        self.begun, self.go, self.left = threading.Event(), threading.Event(), threading.Event()

    def generate(self, tokens: Sequence[int], **options: Any) -> Iterator[int]:
        self.begun.set()
        try:
            while not self.go.wait(0.01):
                if options["cancel"]():
                    return
        finally:
            self.left.set()
        yield from super().generate(tokens, **options)


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


def test_the_time_for_an_answer_holds_for_what_the_guard_looks_at_too() -> None:
    class Asks(Unguarded):
        def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
            over.append(cancel())
            raise Interrupted

    over: list[bool] = []
    with serving(FakeEngine(["x"]), Asks(), answer_seconds=-1.5) as client:
        status, answer = client.ask()
    assert (status, over) == (504, [True])
    assert answer["error"]["message"] == "the answer took longer than -1.5 s"


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


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_gives_the_engine_back(stream: bool) -> None:
    engine = Held()
    with serving(engine) as client:
        body = json.dumps({"messages": HELLO, "stream": stream}).encode()
        with client.connection() as raw:
            raw.sendall(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body)
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
        head = half.replace(b"\r\n", f"\r\n{KNOWN}".encode(), 1)
        with client.connection() as raw:
            raw.sendall(head)
            while raw.recv(4096):
                pass


@contextmanager
def connected(client: Client, count: int) -> Iterator[list[socket.socket]]:
    raw = [client.connection() for _ in range(count)]
    try:
        yield raw
    finally:
        for one in raw:
            one.close()


def test_who_shows_no_token_keeps_nobody_out_and_the_oldest_of_them_is_closed() -> None:
    with serving(FakeEngine(["x"]), strangers=3) as client, connected(client, 40) as idle:
        assert client.ask()[0] == 200
        assert b"503 Service Unavailable\r\nRetry-After: 5" in idle[0].recv(100)
        idle[-1].sendall(GET.encode())
        assert idle[-1].recv(100).startswith(b"HTTP/1.1 200")


def whole_answer(connection: socket.socket) -> bytes:
    """Head and body, however many packets they come in."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return f"HTTP/1.1 {answer.status}".encode()


def test_more_connections_with_a_token_than_allowed_are_refused_for_now() -> None:
    with serving(FakeEngine(["x"]), connections=2) as client, connected(client, 2) as kept:
        for one in kept:
            one.sendall(GET.encode())
            assert whole_answer(one).startswith(b"HTTP/1.1 200")
        refused = client.send("GET", "/v1/models")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert json.loads(refused.read())["error"]["code"] == "overloaded"
        kept[0].sendall(GET.encode())
        assert whole_answer(kept[0]).startswith(b"HTTP/1.1 200")


def test_a_request_that_drips_has_no_more_time_than_another() -> None:
    drips = {
        b"GET /v1/models HTTP/1.1\r\nX: ": b"",
        f"{POST}Content-Length: 9999\r\n\r\n".encode(): b"HTTP/1.1 408",
    }
    with serving(FakeEngine(["x"]), header_seconds=0.3, read_seconds=0.3) as client:
        for begun, answer in drips.items():
            with connected(client, 1) as (raw,):
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
