"""What tokens say themselves of documents: one claim, an object of patterns.

    {"read": ["*"], "write": ["3uQLXrx4C7D8TPUoYUsWQYp1tytD", "2Hw*"], "create": false}

A pattern is a document id in any spelling, `*` for all, or the beginning of ids in base58 and
`*`. What may be written may be read. Everything but `create`, which is true, is nothing unless
said; a token without the claim, or with one that is not exactly like this, may do nothing.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from amsync.errors import InvalidDocumentId
from amsync.gateway.caller import Caller
from amsync.ids import MAX_DOCUMENT_ID_TEXT, DocumentId, is_base58, parse_document_id
from amsync.protocol.access import Access, Grant
from amsync.seldom import Seldom

log = logging.getLogger("amsync.gateway")

MAX_REMEMBERED = 10_000
NOTHING = Grant(Access.NONE, create=False)


class BadClaim(Exception):
    """A claim that can't be understood."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Some documents, or all."""

    everything: bool = False
    ids: frozenset[DocumentId] = frozenset()
    beginnings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, texts: object) -> "Patterns":
        """Read a list. Raises BadClaim."""
        if not isinstance(texts, list):
            raise BadClaim(f"a list of documents is a {type(texts).__name__}")
        everything, ids, beginnings = False, set(), set()
        for text in texts:
            if text == "*":
                everything = True
            elif not isinstance(text, str):
                raise BadClaim(f"a pattern is a {type(text).__name__}")
            elif text.endswith("*"):
                beginning = text[:-1]
                if len(beginning) > MAX_DOCUMENT_ID_TEXT or not is_base58(beginning):
                    raise BadClaim("a pattern is no beginning of a document id and *")
                beginnings.add(beginning)
            else:
                try:
                    ids.add(parse_document_id(text))
                except InvalidDocumentId as error:
                    raise BadClaim(f"a pattern is no document id: {error}") from error
        return cls(everything, frozenset(ids), tuple(sorted(beginnings)))

    def has(self, document_id: DocumentId) -> bool:
        """Tell whether a document is among them."""
        return (
            self.everything
            or document_id in self.ids
            or (bool(self.beginnings) and document_id.startswith(self.beginnings))
        )

    @property
    def is_empty(self) -> bool:
        """There is none among them."""
        return not (self.everything or self.ids or self.beginnings)


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of one token."""

    read: Patterns = Patterns()
    write: Patterns = Patterns()
    announce: Patterns = Patterns()
    create: bool = True

    @classmethod
    def parse(cls, value: object) -> "Claim":
        """Read it. Raises BadClaim."""
        if not isinstance(value, dict):
            raise BadClaim("it is missing" if value is None else f"it is a {type(value).__name__}")
        # What we don't know may be meant to forbid something.
        if unknown := value.keys() - {"read", "write", "announce", "create"}:
            raise BadClaim(f"{len(unknown)} of its keys are not known")
        create = value.get("create", True)
        if not isinstance(create, bool):
            raise BadClaim(f"`create` is a {type(create).__name__}")
        read, write, announce = (
            Patterns.parse(value.get(name, [])) for name in ("read", "write", "announce")
        )
        return cls(read, write, announce, create)

    def grant(self, document_id: DocumentId) -> Grant:
        """What it says of a document."""
        if self.write.has(document_id):
            access = Access.WRITE
        elif self.read.has(document_id):
            access = Access.READ
        else:
            return NOTHING
        return Grant(access, self.announce.has(document_id), create=self.create)


_EMPTY = Claim()


class Claims:
    """Reads the claim of each token once.

    Args:
        name: The claim's.
        failed: Called with a short fixed text, for metrics, when a claim can't be used.
    """

    def __init__(
        self,
        name: str,
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._failed = name, failed
        self._may_warn = Seldom(60.0, clock)
        self._known: OrderedDict[str, Claim] = OrderedDict()

    def decide(self, caller: Caller, document_id: DocumentId) -> Grant:
        """What the caller's token says of a document."""
        return self._claim_of(caller).grant(document_id)

    def may_announce(self, caller: Caller) -> bool:
        """There may be documents that the caller is to be told of."""
        return not self._claim_of(caller).announce.is_empty

    def _claim_of(self, caller: Caller) -> Claim:
        claim = self._known.get(caller.key)
        if claim is None:
            claim = self._known[caller.key] = self._read(caller)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return claim

    def _read(self, caller: Caller) -> Claim:
        claims = {} if caller.identity is None else caller.identity.claims
        try:
            return Claim.parse(claims.get(self._name))
        except BadClaim as error:
            self._failed("bad" if self._name in claims else "missing")
            if self._may_warn():
                log.warning(
                    "a token does not say what it may; access is refused",
                    extra={"claim": self._name, "error": str(error)},
                )
            return _EMPTY
