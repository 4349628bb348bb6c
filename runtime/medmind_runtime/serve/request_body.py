"""The body of a request to `medmind-chat serve`: whether it may come, and how it is read.

Knows HTTP's headers about it; nothing of what is in it.
"""

import io
from collections.abc import Callable
from email.message import Message

from medmind_runtime.serve.openai_request import Refused

_MOST_DROPPED = 32 << 20
"""Bytes of a body too large that are still read, within the time for reading."""


def read(
    headers: Message, stream: io.BufferedIOBase, *, most: int, seconds: float, go_on: Callable[[], object] | None
) -> bytes:
    """The whole body.

    Args:
        headers: of the request.
        stream: what follows them; raises TimeoutError when the time is over.
        most: bytes that it may have.
        seconds: the time for it, to be named.
        go_on: tells a client that waits for it to send the body; None where it cannot be told (HTTP/1.0).

    Raises:
        Refused: it is too large, of no known length, or not whole in time.
    """
    lengths = headers.get_all("Content-Length", [""])
    length = lengths[0]
    if len(set(lengths)) > 1:
        raise Refused(400, "the request has several Content-Lengths")
    if not (length.isascii() and length.isdigit()) or headers.get("Transfer-Encoding"):
        raise Refused(411, "the request must have a Content-Length")
    expected = _expected(headers)
    if go_on and expected - {"100-continue"}:
        raise Refused(417, "the request expects something other than 100-continue")
    if len(length) > 18 or int(length) > most:
        raise Refused(413, f"the request is larger than {most} bytes", code="request_too_large")
    if expected and go_on:
        go_on()
    try:
        body = stream.read(int(length))
    except TimeoutError:
        body = b""
    if len(body) < int(length):
        raise Refused(408, f"the request did not arrive whole within {seconds:.0f} s")
    return body


def drop(headers: Message, stream: io.BufferedIOBase) -> None:
    """Read what is too large away once that is answered: most clients hear an answer only when they have sent all."""
    if _expected(headers):  # nothing was sent
        return
    left = min(int(headers["Content-Length"][:18]), _MOST_DROPPED)
    try:
        while left > 0 and (piece := stream.read1(min(left, 1 << 16))):
            left -= len(piece)
    except OSError:  # its time is over, or the client has left
        return


def _expected(headers: Message) -> set[str]:
    return {one.strip() for one in ",".join(headers.get_all("Expect", [])).lower().split(",")} - {""}
