"""A shorter way to read a sync message that differs from an earlier one only in its `data`.

Sans-IO. A client repeats, in every message for a document, all bytes of the frame but those of
`data`, whatever the order of its keys. Comparing them costs a quarter of decoding and checking
them again. What is remembered was proved first: the frame is put together with other `data`, and
the decoder must read that, and everything else as before.

A frame is `before` + head of a byte string + its bytes + `after`. CBOR is read from the front,
so two such frames with equal `before` and `after` say the same but for the byte string.
"""

from typing import Generic, TypeVar

from amsync.errors import RemoteProtocolError
from amsync.protocol import codec
from amsync.protocol.messages import Sync

T = TypeVar("T")

MAX_SHAPES = 2
"""Pairs of lengths of `before` and `after`: a client's ids are about equally long."""

MAX_FRAMES = 256
"""Documents of one shape that have a shortcut at a time."""

_PROBES = (b"", b"p" * 300)


class Shortcuts(Generic[T]):
    """What one connection's frames look like around `data`, and what each of them means."""

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: list[tuple[int, int, dict[bytes, T]]] = []

    def find(self, frame: bytes) -> tuple[T, bytes] | None:
        """What was learnt for such a frame, with its `data`; None: decode it."""
        for before, after, frames in self._shapes:
            end = len(frame) - after
            length = end - before
            if length < 1:
                continue
            known = frames.get(frame[:before] + frame[end:])
            if known is None:
                continue
            head = frame[before]
            if head == 0x58:
                start, said = 2, int.from_bytes(frame[before + 1 : before + 2], "big") + 2
            elif 0x40 <= head <= 0x57:
                start, said = 1, head - 0x40 + 1
            elif head == 0x59:
                start, said = 3, int.from_bytes(frame[before + 1 : before + 3], "big") + 3
            else:
                return None
            return (known, frame[before + start : end]) if said == length else None
        return None

    def learn(self, frame: bytes, message: Sync, meaning: T) -> None:
        """Remember what a frame means that was decoded to this message, if that can be proved."""
        if len(message.data) >= 1 << 16:
            return
        item = b"\x64data" + codec.byte_string(message.data)
        at = frame.find(item)
        if at < 0:
            return
        before, after = frame[: at + 5], frame[at + len(item) :]
        if not all(_reads(before, probe, after, message) for probe in _PROBES):
            return
        frames = self._frames_of(len(before), len(after))
        if frames is None:
            return
        if len(frames) >= MAX_FRAMES:
            frames.clear()
        frames[before + after] = meaning

    def _frames_of(self, before: int, after: int) -> dict[bytes, T] | None:
        for *shape, frames in self._shapes:
            if shape == [before, after]:
                return frames
        if len(self._shapes) >= MAX_SHAPES:
            return None
        self._shapes.append((before, after, {}))
        return self._shapes[-1][2]


def _reads(before: bytes, probe: bytes, after: bytes, message: Sync) -> bool:
    try:
        read = codec.decode(before + codec.byte_string(probe) + after)
    except RemoteProtocolError:
        return False
    return read == Sync(message.sender_id, message.document_id, probe, message.is_request)
