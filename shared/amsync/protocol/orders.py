"""Orders of operators to all gateways: who must go, and what may be done no more.

They are entries of one stream, each a msgpack list: version, kind, then the fields in the order of
the dataclass. A reader skips kinds that it doesn't know, and fields behind those it knows; new
fields go to the end, with a default. An entry may be read twice: orders have ids.

`at` and `until` are in seconds since 1970, of the clock of the gateway that was told.
"""

from dataclasses import astuple, dataclass, fields
from typing import Any, ClassVar

import msgpack

from amsync.errors import BusError
from amsync.ids import DocumentId
from amsync.protocol.access import Access

VERSION = 1


@dataclass(frozen=True, slots=True)
class Who:
    """An identity, or everybody: `issuer` and `subject` are both there, or neither is."""

    issuer: str | None = None
    subject: str | None = None

    @property
    def key(self) -> str | None:
        """As `Identity.key`; None for everybody."""
        return None if self.issuer is None else f"{self.issuer} {self.subject}"


EVERYBODY = Who()


@dataclass(frozen=True, slots=True)
class Kick:
    """Close the connections of an identity whose tokens were issued until `at`, and take no others.

    `ban`: nor with any later token.
    """

    KIND: ClassVar[int] = 1
    id: str
    at: float
    until: float
    issuer: str
    subject: str
    ban: bool = False

    @property
    def who(self) -> Who:
        """Whom it concerns."""
        return Who(self.issuer, self.subject)


@dataclass(frozen=True, slots=True)
class Cut:
    """Close one connection; its client may come back."""

    KIND: ClassVar[int] = 2
    id: str
    at: float
    gateway: str
    connection: int


@dataclass(frozen=True, slots=True)
class Restrict:
    """Allow no more than `access`: to an identity or everybody, of one document or all."""

    KIND: ClassVar[int] = 3
    id: str
    at: float
    until: float
    issuer: str | None
    subject: str | None
    document_id: DocumentId | None
    access: int

    @property
    def who(self) -> Who:
        """Whom it concerns."""
        return Who(self.issuer, self.subject)

    @property
    def most(self) -> Access:
        """What is left; of a number that we don't know: nothing."""
        return Access.READ if self.access == Access.READ else Access.NONE


@dataclass(frozen=True, slots=True)
class Lift:
    """Take back the order of this id, also if that is read again later; `until` is the order's."""

    KIND: ClassVar[int] = 4
    id: str
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """Forget what was decided, of an identity or everybody, and decide anew."""

    KIND: ClassVar[int] = 5
    id: str
    at: float
    issuer: str | None = None
    subject: str | None = None

    @property
    def who(self) -> Who:
        """Whom it concerns."""
        return Who(self.issuer, self.subject)


@dataclass(frozen=True, slots=True)
class Mark:
    """Nothing: who wrote it has read everything before it when it reads this."""

    KIND: ClassVar[int] = 6
    id: str
    at: float


Order = Kick | Cut | Restrict | Lift | Refresh | Mark
Lasting = Kick | Restrict | Lift
"""What has to be remembered until its end."""

_KINDS: dict[int, type[Any]] = {kind.KIND: kind for kind in Order.__args__}


def pack_order(order: Order) -> bytes:
    """An entry."""
    packed: bytes = msgpack.packb([VERSION, order.KIND, *astuple(order)], use_bin_type=True)
    return packed


def unpack_order(data: bytes) -> Order | None:
    """What `pack_order` made, or a newer version of it; None for a kind that we don't know.

    Raises:
        BusError: It is no entry.
    """
    try:
        _version, number, *values = msgpack.unpackb(data, max_bin_len=len(data))
        kind = _KINDS.get(number)
        if kind is None:
            return None
        order: Order = kind(*values[: len(fields(kind))])
    except (ValueError, TypeError, msgpack.exceptions.ExtraData) as error:
        raise BusError(f"{len(data)} bytes on the bus are no order: {error}") from error
    return order
