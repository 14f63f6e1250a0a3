"""WebSocket frames that the listener does not read or write by itself.

Heads of outgoing messages, and the library's parser for incoming bytes that are no whole message
in one frame. No sockets here.
"""

import logging
from functools import lru_cache

from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocket

# The library logs every connection; our own counters and logs do that.
silent = logging.getLogger("amsync.websockets")
silent.addHandler(logging.NullHandler())
silent.propagate = False
silent.setLevel(logging.CRITICAL)


@lru_cache(256)
def frame_head(length: int) -> bytes:
    """Header of a final, unmasked binary frame."""
    if length < 126:
        return bytes((0x82, length))
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2, "big")
    return b"\x82\x7f" + length.to_bytes(8, "big")


def _frame_size(data: bytes, start: int) -> int | None:
    """Length of the frame that begins there, with its header; None if that isn't whole."""
    if len(data) < start + 2:
        return None
    length, mask = data[start + 1] & 0x7F, 4 if data[start + 1] & 0x80 else 0
    if length < 126:
        return 2 + mask + length
    width = 2 if length == 126 else 8
    if len(data) < start + 2 + width:
        return None
    return 2 + width + mask + int.from_bytes(data[start + 2 : start + 2 + width], "big")


class Parser:
    """The library's parser, for what is not a whole message in one frame.

    It is spent when all frames that it was given are whole, and none of them was a part of a
    message that goes on.
    """

    __slots__ = ("_fragmented", "_head", "_missing", "fragments", "websocket")

    def __init__(self, max_bytes: int) -> None:
        self.websocket = WebSocket(SERVER, max_size=max_bytes, logger=silent)
        self.fragments: bytearray | None = None
        self._head = b""
        self._missing = 0
        self._fragmented = False

    def feed(self, data: bytes) -> None:
        """Give it what has come in. The header of a frame is given when it is whole."""
        data = self._head + data
        end, length = 0, len(data)
        while end < length:
            if not self._missing:
                size = _frame_size(data, end)
                if size is None:
                    break
                self._missing = size
                if data[end] & 0x0F < 8:  # no control frame
                    self._fragmented = not data[end] & 0x80
            taken = min(self._missing, length - end)
            self._missing -= taken
            end += taken
        self._head = data[end:]
        if end:
            self.websocket.receive_data(data[:end])

    @property
    def is_spent(self) -> bool:
        """Nothing would be lost if this parser were forgotten."""
        holds = self._missing or self._head or self._fragmented
        return not holds and self.websocket.state is OPEN
