"""The server over a fake engine, and a client that shows its token."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.engine.sampling import Sampling
from medmind_runtime.guard import Guard, Unguarded
from medmind_runtime.serve.server import Limits, Served, Server

TOKEN = "t" * 20
PATIENCE = 60
"""Seconds to wait for what must come: whatever a busy machine takes."""
KNOWN = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
POST = f"POST /v1/chat/completions HTTP/1.1\r\n{KNOWN}"
GET = f"GET /v1/models HTTP/1.1\r\n{KNOWN}\r\n"
"""Requests that are written by hand: the fields of one who may ask, the beginning of a question, and a whole one."""
HELLO = [{"role": "user", "content": "hello"}]


class Client:
    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=PATIENCE)
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", **headers})
        return connection.getresponse()

    def connection(self) -> socket.socket:
        """For requests that are written by hand."""
        return socket.create_connection(("127.0.0.1", self.server.server_port), timeout=PATIENCE)

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
