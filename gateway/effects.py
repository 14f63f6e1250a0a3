"""What a session wants done: plain values that the gateway carries out, in order."""

import enum
from dataclasses import dataclass

from amsync.ids import DocumentId
from amsync.protocol.envelope import Inbound
from amsync.values import cheap


class CloseReason(enum.Enum):
    """Why we close a socket: metric label, close code and the text that the client logs.

    Stock clients ignore codes and come back (PROTOCOL 1.4). Ours (`clients/js`) asks for a new
    token after 4401 and gives up after 4403.
    """

    NOT_JOIN = ("not_join", 1002, "expected a join message")
    VERSION = ("version", 1002, "unsupported protocol version")
    SECOND_JOIN = ("second_join", 1002, "already joined")
    BAD_FRAME = ("bad_frame", 1003, "frame is not a message")
    TEXT_FRAME = ("text_frame", 1003, "frames must be binary")
    BAD_JOIN = ("bad_join", 1002, "join message is not valid")
    REPLACED = ("replaced", 1001, "the peer has connected again")
    SLOW = ("slow", 1013, "too much unsent output")
    HANDSHAKE_TIMEOUT = ("handshake_timeout", 1002, "no join message in time")
    SILENT = ("silent", 1001, "no sign of life")
    AWAY = ("bus_away", 1013, "the server is cut off")
    OVER_LIMIT = ("over_limit", 1013, "too many messages or bytes for too long")
    TOKEN_ENDED = ("token_ended", 4401, "the token has expired")
    CUT = ("cut", 1012, "closed by an operator")
    KICKED = ("kicked", 4403, "access was withdrawn")
    SHUTDOWN = ("shutdown", 1012, "server is going away")

    @property
    def label(self) -> str:
        """Bounded label for metrics."""
        return str(self.value[0])

    @property
    def code(self) -> int:
        """WebSocket close code."""
        return int(self.value[1])

    @property
    def text(self) -> str:
        """What the client is told."""
        return str(self.value[2])


@cheap
@dataclass(frozen=True, slots=True)
class Send:
    """Put a frame on the socket: `shared` + the connection's target suffix.

    `kind` is the message type, for metrics; `droppable` frames go first under pressure.
    """

    kind: str
    shared: bytes
    droppable: bool = False


@cheap
@dataclass(frozen=True, slots=True)
class Forward:
    """Put an item into a shard's stream. `size` counts against the connection's inbound bound.

    One that `may_wait` may go together with what comes a moment later.
    """

    shard: int
    item: Inbound
    size: int
    may_wait: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Have access to these documents decided; answer with `decided`."""

    documents: tuple[DocumentId, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """The client has joined; another live connection of the same peer must go."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Send what is queued, then close."""

    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Count:
    """Something refused, for the counters."""

    reason: str


Effect = Send | Forward | Ask | Joined | CloseSocket | Count
