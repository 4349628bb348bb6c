"""Which requests the server takes, and what it says to the others: tokens, names, fields, heads and bodies."""

import json
import socket
import struct
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from medmind_runtime.engine.fake_engine import FakeEngine

from .serving import HELLO, KNOWN, PATIENCE, POST, TOKEN, Client, serving


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


def test_two_lengths_of_a_body_that_differ_are_refused() -> None:
    with serving(FakeEngine(["x"])) as client, client.connection() as raw:
        raw.sendall(f"{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}} ".encode())
        assert b"several Content-Lengths" in raw.makefile("rb").read()


def test_a_length_that_is_too_large_is_refused_before_anything_of_the_body_is_there() -> None:
    with serving(FakeEngine(["x"]), body_bytes=16384, read_seconds=10 * PATIENCE) as client, client.connection() as raw:
        raw.sendall(f"{POST}Content-Length: 20000\r\n\r\n".encode())
        assert b" 413 " in raw.makefile("rb").readline()


def test_a_client_that_leaves_while_its_too_large_body_is_read_away_ends_quietly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended, failed = threading.Event(), threading.Event()
    with serving(FakeEngine(["x"]), body_bytes=16384, read_seconds=10 * PATIENCE) as client:
        close = client.server.shutdown_request
        monkeypatch.setattr(client.server, "handle_error", lambda *_: failed.set())
        monkeypatch.setattr(client.server, "shutdown_request", lambda request: (close(request), ended.set()))
        with client.connection() as raw:
            raw.sendall(f"{POST}Content-Length: 20000\r\n\r\n".encode())
            said = b""
            while not said.endswith(b"}"):
                said += raw.recv(4096)
            assert b" 413 " in said
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset in place of an end
        assert ended.wait(PATIENCE)
    assert not failed.is_set()


def asked_to_wait(client: Client, expect: str, length: object, version: str = "1.1") -> tuple[bytes, bytes]:
    """The first line of the answer to the head of a request; of that to its body, if it was told to send one."""
    head = f"POST /v1/chat/completions HTTP/{version}\r\n{KNOWN}"
    body = json.dumps({"messages": HELLO}).encode()
    with client.connection() as raw:
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
    with serving(FakeEngine(["x"])) as client, client.connection() as raw:
        raw.sendall(f"{line}\r\n\r\n".encode("latin-1"))
        head, _, body = raw.makefile("rb").read().partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert status == b"HTTP/1.1 400 Bad Request" and b"Connection: close" in headers
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
