"""One connection of `medmind-chat serve`: who may ask, what is asked for, and the answer as it is written.

Knows HTTP and the conversation; the format is `openai_request`'s and `openai_answer`'s, limits and turns the server's.
"""

import hmac
import io
import json
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medmind.errors import MedmindError
from medmind_runtime.conversation import Conversation
from medmind_runtime.exchange import DoesNotFit, Prompt
from medmind_runtime.interruption import Interrupted
from medmind_runtime.serve import openai_answer, openai_request, request_body
from medmind_runtime.serve.openai_answer import StopText, Writer
from medmind_runtime.serve.openai_request import Refused, Request
from medmind_runtime.serve.timed_reader import TimedReader

if TYPE_CHECKING:
    from medmind_runtime.serve.server import Served, Server

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Connection(BaseHTTPRequestHandler):
    """One connection; its requests are answered one after the other."""

    server: "Server"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """A piece of an answer goes out at once: else it waits, up to 40 ms, until the one before it is acknowledged."""
    default_request_version = "HTTP/1.0"
    """Of a line that names none: to HTTP/0.9 an answer would have no status."""

    def setup(self) -> None:
        """Bound the time of reading."""
        super().setup()
        self.rfile.close()
        self._timed = TimedReader(self.connection, self.server.limits.read_seconds)
        self.rfile = self._buffered = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        """Wait for a request; from its first byte on its time runs."""
        limits = self.server.limits
        seconds = limits.read_seconds if self.server.door.knows(self.connection) else limits.header_seconds
        try:
            self._timed.deadline = time.monotonic() + seconds
            self._buffered.peek(1)
        except OSError:
            self.close_connection = True
            return
        self._begun = time.monotonic()
        self._timed.deadline = self._begun + seconds
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Also an empty line is answered."""
        parsed = super().parse_request()
        if not parsed and not self.requestline.strip():
            self.send_error(400)
        return parsed

    def version_string(self) -> str:
        """Not which Python this is."""
        return "medmind"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is kept of what is asked."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the HTTP library, as OpenAI writes them."""
        self._refuse(Refused(code, message or "the request is not valid HTTP"))

    def handle_expect_100(self) -> bool:
        """A client that waits before it sends its body waits until `request_body` has seen its length."""
        return True

    def do_GET(self) -> None:
        """The list of models, or one of them."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """A conversation to be answered."""
        self._guarded(self._post)

    def do_OPTIONS(self) -> None:
        """Not possible here, as most methods."""
        self._guarded(self._get)

    do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS

    def _guarded(self, answer: Callable[[], None]) -> None:
        """Check who asks; an error becomes OpenAI's error object."""
        self._streaming = False
        try:
            self._check()
            answer()
        except Refused as refused:
            self._refuse(refused)
            if refused.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                request_body.drop(self.headers, self._buffered)
        except DoesNotFit as error:
            said = "\n\n".join(filter(None, (error.opening, error.message)))
            self._refuse(Refused(400, said, code="context_length_exceeded", param="messages"))
        except MedmindError as error:
            self._refuse(Refused(500, str(error), kind="server_error"))
        except OSError:  # the client has left, or is too slow
            self.close_connection = True

    def _check(self) -> None:
        host = self.headers.get("Host", "").lower()
        if host.removesuffix(f":{self.server.server_port}") not in _HOSTS:  # a web page that points a name here
            raise Refused(403, "the Host header names no loopback address")
        if not _of_this_machine(self.headers.get("Origin", "http://localhost")):
            raise Refused(403, "the Origin header names a page that is not of this machine")
        scheme, _, shown = self.headers.get("Authorization", "").partition(" ")
        shown = shown.strip() if scheme.lower() == "bearer" else ""
        if not hmac.compare_digest(shown.encode(), self.server.token.encode()):
            raise Refused(401, "the token is missing or wrong", kind="authentication_error", code="invalid_api_key")
        if not self.server.door.admit(self.connection):
            raise Refused(503, "too many connections are open", kind="server_error", code="overloaded")
        self._timed.deadline = self._begun + self.server.limits.read_seconds

    def _get(self) -> None:
        served = self.server.served
        path = self.path.split("?")[0].rstrip("/") or "/"
        if path in {"/v1/chat/completions", "/v1/models"} and (self.command != "GET" or path != "/v1/models"):
            raise Refused(405, f"{self.command} is not possible on {path}")
        if path == "/v1/models":
            self._send(200, openai_answer.models(served.name, self.server.started))
        elif path == f"/v1/models/{served.name}" and self.command == "GET":
            self._send(200, openai_answer.model(served.name, self.server.started))
        else:
            raise Refused(404, f"there is no {self.command} {path}", code="not_found")

    def _post(self) -> None:
        path = self.path.split("?")[0].rstrip("/") or "/"
        if path == "/v1/models":
            raise Refused(405, "POST is not possible on /v1/models")
        if path != "/v1/chat/completions":
            raise Refused(404, f"there is no POST {path}", code="not_found")
        body = self._body()
        served = self.server.served
        request = openai_request.parse(body, sampling=served.sampling, max_tokens=served.max_tokens)
        if request.model not in {"", served.name}:
            raise Refused(404, f"there is no model {request.model}: {served.name} is served", code="model_not_found")
        with self.server.turns.turn(self._gone):
            try:
                self._answer(served, request)
            except Refused as refused:  # written within the turn: a server that ends waits for no more
                self._refuse(refused)

    def _body(self) -> bytes:
        limits = self.server.limits
        return request_body.read(
            self.headers,
            self._buffered,
            most=limits.body_bytes,
            seconds=limits.read_seconds,
            go_on=super().handle_expect_100 if self.request_version >= "HTTP/1.1" else None,
        )

    def _gone(self) -> bool:
        """Whether the client has closed the connection, or the server ends."""
        if self.server.stopping:
            return True
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _answer(self, served: "Served", request: Request) -> None:
        conversation = Conversation(
            served.engine,
            system=served.system if request.system is None else request.system,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            guard=served.guard,
        )
        conversation.turns.extend(request.turns)
        deadline = time.monotonic() + self.server.limits.answer_seconds

        def cancel() -> bool:
            return time.monotonic() > deadline or self._gone()

        try:
            prompt = conversation.fit(request.question, drop=False, cancel=cancel)
        except Interrupted:
            self._demand_in_time(deadline)
            self._demand_running()
            raise ConnectionAbortedError from None
        refusal = prompt.before.opening if request.sampling.grammar and prompt.before.alone else ""
        writer = Writer.begin(secrets.token_hex(12), served.name)
        stop = StopText(request.stop)
        pieces = self._pieces(conversation, prompt, stop, cancel)
        more = prompt.beside()
        if request.stream:
            self._begin_stream(writer, more)
            for text in pieces:
                self._event(writer.chunk({"content": text}))
        else:
            text = "".join(pieces)
        self._demand_in_time(deadline)
        assert conversation.last is not None
        if conversation.last.finish == "cancelled" and not stop.found:
            self._demand_running()
        refusal = refusal or conversation.last.refusal
        finish = openai_answer.finish_reason(conversation.last.finish, stop.found)
        usage = openai_answer.usage(conversation.last.timings)
        if not request.stream:
            self._send(200, writer.completion(text, finish, usage, more, refusal=refusal))
            return
        if refusal:
            self._event(writer.chunk({"refusal": refusal}))
        self._event(writer.chunk({}, finish))
        if request.with_usage:
            self._event(writer.usage_chunk(usage))
        self.wfile.write(b"data: [DONE]\n\n")

    def _pieces(
        self, conversation: Conversation, prompt: Prompt, stop: StopText, cancel: Callable[[], bool]
    ) -> Iterator[str]:
        """The answer before its stop text; ends when that is found, or with `cancel`."""
        with closing(conversation.answer(prompt, cancel=lambda: stop.found or cancel())) as answer:
            if prompt.before.opening:
                yield next(answer)  # whole, whatever the client's stop texts are
            for text in answer:
                if ready := stop.feed(text):
                    yield ready
                if stop.found:
                    return
        if held := stop.finish():
            yield held

    def _demand_in_time(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            seconds = self.server.limits.answer_seconds
            raise Refused(504, f"the answer took longer than {seconds:g} s", kind="server_error", code="timeout")

    def _demand_running(self) -> None:
        if self.server.stopping:
            raise Refused(503, "the server ended before the answer did", kind="server_error", code="overloaded")

    def _begin_stream(self, writer: Writer, more: Mapping[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self._streaming = True
        self.close_connection = True
        self._event(writer.chunk({"role": "assistant", "content": ""}, medmind=more))

    def _event(self, document: Mapping[str, Any]) -> None:
        self.wfile.write(b"data: " + _encoded(document) + b"\n\n")

    def _send(self, status: int, document: Mapping[str, Any]) -> None:
        body = _encoded(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status in {429, 503}:
            self.send_header("Retry-After", "5")
        if status >= 400:  # what is left of the body is not read
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, refused: Refused) -> None:
        try:
            if getattr(self, "_streaming", False):
                self._event(refused.document())
            else:
                self._send(refused.status, refused.document())
        except OSError:
            self.close_connection = True


def _of_this_machine(origin: str) -> bool:
    try:
        return urlsplit(origin).hostname in {host.strip("[]") for host in _HOSTS}
    except ValueError:
        return False


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
