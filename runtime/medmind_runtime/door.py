"""Who is let in to a server and for how long: a few who have shown no token yet, and those who have.

Knows sockets and clocks; of HTTP only how to say that there is no room. What a token is, the connection knows.
"""

import io
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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


class TimedReader(io.RawIOBase):
    """Reads a connection until a deadline, however slowly the bytes drip.

    Args:
        connection: to read from.
        otherwise: its timeout while nothing is read, in seconds.

    Attributes:
        deadline: of `time.monotonic`; from then on reading raises TimeoutError.
    """

    def __init__(self, connection: socket.socket, otherwise: float) -> None:
        super().__init__()
        self._connection = connection
        self._otherwise = otherwise
        self.deadline = 0.0

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """As any raw stream."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._otherwise)
