"""A connection read as a stream until a deadline. Knows sockets and clocks, nothing of what is read or who sends it."""

import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


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
