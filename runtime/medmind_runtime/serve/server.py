"""`medmind-chat serve`: the listening socket on a loopback address, what clients may take, and who is answered when.

The standard library's server serves: one answer is made at a time anyway, and a clinic's closed room has less to check.
Knows limits and turns; what happens within a connection is `connection`'s.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

from medmind import console
from medmind.errors import MedmindError
from medmind_runtime.chat_engine import ChatEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Guard
from medmind_runtime.serve.connection import Connection
from medmind_runtime.serve.door import Door
from medmind_runtime.serve.openai_request import Refused


@dataclass(frozen=True)
class Limits:
    """What one client may take.

    Attributes:
        body_bytes: of a request.
        header_seconds: until the whole header of a client that has shown no token yet.
        read_seconds: for a whole request, header and body, from its first byte on; to wait for the next one on a
            connection; and of a reader that does not read.
        answer_seconds: from a request's turn to the end of its answer: what is looked at before, reading and writing.
            Not counted is the waiting before: for other answers, and for a model that is still loading.
        waiting: requests that may wait for their turn; more are refused.
        strangers: connections that have shown no token yet; for one more the oldest of them is closed.
        connections: that have shown it; more are refused.
    """

    body_bytes: int = 1 << 20
    header_seconds: float = 5.0
    read_seconds: float = 15.0
    answer_seconds: float = 300.0
    waiting: int = 4
    strangers: int = 8
    connections: int = 24


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

    poll_seconds = 0.2
    """How long `shutdown` may take to be noticed."""
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

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
        self.door = Door(strangers=self.limits.strangers, known=self.limits.connections)
        try:
            super().__init__((host, port), Connection)
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
            self.serve_forever(self.poll_seconds)
        finally:
            self.stopping = True
            self.turns.close()
            self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread; it is let in as a stranger."""
        self.door.enter(request)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.door.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.door.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no error; of others the kind is told, never what was said."""
        import sys

        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(error, OSError):
            console.note(f"error: a request failed inside: {type(error).__name__}")
