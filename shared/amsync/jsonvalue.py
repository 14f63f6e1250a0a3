"""A document's value as JSON shows it: bytes as base64, times in ISO 8601.

A document is anybody's: its text may be six times as long as what it says of itself, and takes
seconds to write. So it is written piece by piece, up to a bound, and other threads have their
turns between the pieces: `json.dumps` lets none have the interpreter before it has ended.
"""

import base64
import datetime
import math
from json.encoder import encode_basestring

PIECE_CHARACTERS = 48 * 1024
"""Of text or bytes, at a time; a multiple of 3, for base64."""

GATHERED = 10_000


def jsonable(value: object) -> object:
    """Replace what JSON does not know by text."""
    match value:
        case dict():
            return {str(name): jsonable(item) for name, item in value.items()}
        case list():
            return [jsonable(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def to_json(value: object, most_bytes: int) -> bytes:
    """Write a value as JSON, what that does not know replaced as by `jsonable`.

    Raises:
        ValueError: It would have more than `most_bytes`.
    """
    text = _Text(most_bytes)
    text.write(value)
    return text.end()


class _Text:
    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._data = bytearray()
        self._parts: list[str] = []

    def end(self) -> bytes:
        self._gather()
        return bytes(self._data)

    def write(self, value: object) -> None:
        match value:
            case str():
                self._string(value)
            case dict():
                self._add("{")
                for number, (name, item) in enumerate(value.items()):
                    if number:
                        self._add(", ")
                    self._string(str(name))
                    self._add(": ")
                    self.write(item)
                self._add("}")
            case list():
                self._add("[")
                for number, item in enumerate(value):
                    if number:
                        self._add(", ")
                    self.write(item)
                self._add("]")
            case None:
                self._add("null")
            case bool():
                self._add("true" if value else "false")
            case bytes():
                self._add('"')
                for start in range(0, len(value), PIECE_CHARACTERS):
                    piece = value[start : start + PIECE_CHARACTERS]
                    self._add(base64.b64encode(piece).decode(), is_long=True)
                self._add('"')
            case int():
                self._add(str(value))
            case float() if math.isfinite(value):
                self._add(repr(value))
            case _:
                self._string(str(jsonable(value)))

    def _string(self, text: str) -> None:
        if len(text) <= PIECE_CHARACTERS:
            self._add(encode_basestring(text), is_long=len(text) > GATHERED)
            return
        self._add('"')
        for start in range(0, len(text), PIECE_CHARACTERS):
            piece = encode_basestring(text[start : start + PIECE_CHARACTERS])
            self._add(piece[1:-1], is_long=True)
        self._add('"')

    def _add(self, part: str, *, is_long: bool = False) -> None:
        self._parts.append(part)
        if is_long or len(self._parts) >= GATHERED:
            self._gather()

    def _gather(self) -> None:
        self._data += "".join(self._parts).encode(errors="surrogatepass")
        self._parts.clear()
        if len(self._data) > self._most_bytes:
            raise ValueError(f"the value's JSON is larger than {self._most_bytes:,} bytes")
