"""Who is let in to a server: a few who have shown no token yet, and those who have.

Knows open connections; of HTTP only how to say that there is no room. What a token is, the connection knows.
"""

import socket
import threading
from contextlib import suppress

_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Door:
    """The connections that are open. For use by many threads.

    Args:
        strangers: connections that may be open without having shown a token; for one more the oldest has to go.
        known: those that have shown it; there is no place for more.
    """

    def __init__(self, *, strangers: int, known: int) -> None:
        self._strangers: list[socket.socket] = []
        self._known: set[socket.socket] = set()
        self._most_strangers, self._most_known = strangers, known
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket) -> None:
        """Let a stranger in; who has waited longest without a token is told to come again, and closed."""
        with self._lock:
            self._strangers.append(connection)
            gone = self._strangers[: -self._most_strangers]
            del self._strangers[: -self._most_strangers]
        for one in gone:
            with suppress(OSError):  # it may have left, or read nothing
                one.send(_TOO_MANY, getattr(socket, "MSG_DONTWAIT", 0))
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # its thread wakes and closes it

    def knows(self, connection: socket.socket) -> bool:
        """Whether it has shown a token before."""
        with self._lock:
            return connection in self._known

    def admit(self, connection: socket.socket) -> bool:
        """It has shown the token: whether there is a place for it."""
        with self._lock:
            if connection in self._strangers and len(self._known) < self._most_known:
                self._strangers.remove(connection)
                self._known.add(connection)
            return connection in self._known

    def leave(self, connection: socket.socket) -> None:
        """It is closed."""
        with self._lock:
            self._known.discard(connection)
            if connection in self._strangers:
                self._strangers.remove(connection)
