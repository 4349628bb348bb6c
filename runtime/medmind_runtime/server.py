"""`medmind-chat serve`: OpenAI's chat completions over HTTP, on a loopback address alone, for whoever has the token.

The standard library's server serves: one answer is made at a time anyway, and a clinic's closed room has less to check.
Knows HTTP, limits and turns; the format is `openai_api`, what is answered the conversation's.
"""

import hmac
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime import openai_api
from medmind_runtime.config import NOTICE
from medmind_runtime.conversation import ChatEngine, Conversation, DoesNotFit
from medmind_runtime.exchange import Prompt
from medmind_runtime.guard import Guard
from medmind_runtime.openai_api import Refused, Request, StopText, Writer
from medmind_runtime.sampling import Sampling

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class Limits:
    """What one client may take.

    Attributes:
        body_bytes: of a request.
        read_seconds: between two bytes of a request, and of a reader that does not read.
        answer_seconds: of one answer, its waiting not counted.
        waiting: requests that may wait for their turn; more are refused.
        connections: open at a time; more are closed at once.
    """

    body_bytes: int = 1 << 20
    read_seconds: float = 15.0
    answer_seconds: float = 300.0
    waiting: int = 4
    connections: int = 32


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        name: of the model.
        engine: used by one request at a time.
        guard: of every conversation.
        system: where a request has no system message.
        sampling, max_tokens: where a request says nothing.
    """

    name: str
    engine: ChatEngine
    guard: Guard
    system: str
    sampling: Sampling
    max_tokens: int


class _Turns:
    """Lets one request in at a time, in the order of coming, and a few wait."""

    def __init__(self, waiting: int) -> None:
        self._places = threading.BoundedSemaphore(waiting + 1)
        self._one = threading.Lock()

    @contextmanager
    def turn(self, gone: Callable[[], bool]) -> Iterator[None]:
        """Wait for the turn, as long as the client is there."""
        if not self._places.acquire(blocking=False):
            raise Refused(429, "too many requests are waiting", kind="rate_limit_error", code="rate_limit_exceeded")
        try:
            while not self._one.acquire(timeout=0.1):
                if gone():
                    raise ConnectionAbortedError
            try:
                yield
            finally:
                self._one.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Wait for the answer that is being made; nobody gets a turn after it."""
        self._one.acquire()


class Server(ThreadingHTTPServer):
    """The listening socket; `serve` it after the model is there.

    Args:
        host, port: a loopback address; port 0 takes a free one.
        token: what clients must show.
        limits: what they may take.

    Raises:
        MedmindError: the port is taken, or the address is none of this machine's loopback.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int, token: str, limits: Limits | None = None) -> None:
        import ipaddress

        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise MedmindError(f"{host} is no loopback address", "medmind serves this machine alone: use 127.0.0.1")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.token = token
        self.limits = limits or Limits()
        self.turns = _Turns(self.limits.waiting)
        self.started = int(time.time())
        self.served: Served
        self.stopping = False
        self._open = threading.BoundedSemaphore(self.limits.connections)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise MedmindError(f"{host}:{port} cannot be served on: {error.strerror}", "give another --port") from error

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/v1"

    def serve(self, served: Served) -> None:
        """Answer until `shutdown` or an exception such as KeyboardInterrupt."""
        self.served = served
        try:
            self.serve_forever(poll_interval=0.2)
        finally:
            self.stopping = True
            self.turns.close()
            self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread, or close what is too much."""
        if not self._open.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._open.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error; of others the kind is told, never what was said."""
        import sys

        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(error, OSError):
            console.note(f"error: a request failed inside: {type(error).__name__}")


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.limits.read_seconds)

    def version_string(self) -> str:
        """Not which Python this is."""
        return "medmind"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is kept of what is asked."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the HTTP library, as OpenAI writes them."""
        self._refuse(Refused(code, message or "the request is not valid HTTP"))

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def do_OPTIONS(self) -> None:
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
        except DoesNotFit as error:
            self._refuse(Refused(400, error.message, code="context_length_exceeded", param="messages"))
        except MedmindError as error:
            self._refuse(Refused(500, str(error), kind="server_error"))
        except OSError:  # the client has left, or is too slow
            self.close_connection = True

    def _check(self) -> None:
        host = self.headers.get("Host", "")
        if host.removesuffix(f":{self.server.server_port}") not in _HOSTS:  # a web page that points a name here
            raise Refused(403, "the Host header names no loopback address")
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(shown.encode(), self.server.token.encode()):
            raise Refused(401, "the token is missing or wrong", kind="authentication_error", code="invalid_api_key")

    def _get(self) -> None:
        served = self.server.served
        path = self.path.split("?")[0].rstrip("/")
        if path in {"/v1/chat/completions", "/v1/models"} and (self.command != "GET" or path != "/v1/models"):
            raise Refused(405, f"{self.command} is not possible on {path}")
        if path == "/v1/models":
            self._send(200, openai_api.models(served.name, self.server.started))
        elif path == f"/v1/models/{served.name}" and self.command == "GET":
            self._send(200, openai_api.model(served.name, self.server.started))
        else:
            raise Refused(404, f"there is no {self.command} {path}", code="not_found")

    def _post(self) -> None:
        path = self.path.split("?")[0].rstrip("/")
        if path == "/v1/models":
            raise Refused(405, "POST is not possible on /v1/models")
        if path != "/v1/chat/completions":
            raise Refused(404, f"there is no POST {path}", code="not_found")
        body = self._body()
        served = self.server.served
        request = openai_api.parse(body, sampling=served.sampling, max_tokens=served.max_tokens)
        if request.model not in {"", served.name}:
            raise Refused(404, f"there is no model {request.model}: {served.name} is served", code="model_not_found")
        with self.server.turns.turn(self._gone):
            self._answer(served, request)

    def _body(self) -> bytes:
        most = self.server.limits.body_bytes
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            raise Refused(411, "the request must have a Content-Length")
        if len(length) > 18 or int(length) > most:
            raise Refused(413, f"the request is larger than {most} bytes", code="request_too_large")
        deadline = time.monotonic() + self.server.limits.read_seconds
        body = b""
        while len(body) < int(length):
            piece = self.rfile.read1(int(length) - len(body))
            if not piece or time.monotonic() > deadline:
                raise Refused(408, "the request did not arrive whole in time")
            body += piece
        return body

    def _gone(self) -> bool:
        """Whether the client has closed the connection, or the server ends."""
        if self.server.stopping:
            return True
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _answer(self, served: Served, request: Request) -> None:
        conversation = Conversation(
            served.engine,
            system=served.system if request.system is None else request.system,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            guard=served.guard,
        )
        conversation.turns.extend(request.turns)
        prompt = conversation.fit(request.question, drop=False)
        apart = bool(request.sampling.grammar)  # a document that must be JSON has no room for other words
        refusal = prompt.before.opening if apart and prompt.before.alone else ""
        writer = Writer.begin(secrets.token_hex(12), served.name)
        stop = StopText(request.stop)
        deadline = time.monotonic() + self.server.limits.answer_seconds
        pieces = self._pieces(conversation, prompt, stop, deadline, opened=apart)
        more = self._more(prompt, apart=apart)
        if request.stream:
            self._begin_stream(writer, more)
            for text in pieces:
                self._event(writer.chunk({"content": text}))
        else:
            text = "".join(pieces)
        self._demand_in_time(deadline)
        assert conversation.last is not None
        finish = openai_api.finish_reason(conversation.last.finish, stop.found)
        usage = openai_api.usage(conversation.last.timings)
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
        self, conversation: Conversation, prompt: Prompt, stop: StopText, deadline: float, *, opened: bool
    ) -> Iterator[str]:
        """The answer before its stop text; ends when the client leaves or the time is over."""

        def cancel() -> bool:
            return stop.found or time.monotonic() > deadline or self._gone()

        with closing(conversation.answer(prompt, cancel=cancel, opened=opened)) as answer:
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
            raise Refused(504, f"the answer took longer than {seconds:.0f} s", kind="server_error", code="timeout")

    @staticmethod
    def _more(prompt: Prompt, *, apart: bool) -> dict[str, Any]:
        """What medmind says beside the answer, `apart` the first aid too."""
        sources = [asdict(passage) for passage in prompt.passages]
        first_aid = prompt.before.opening if apart and not prompt.before.alone else ""
        return {"notice": NOTICE, "rule": prompt.before.rule or None, "first_aid": first_aid, "sources": sources}

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
        if status == 429:
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


def _encoded(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
