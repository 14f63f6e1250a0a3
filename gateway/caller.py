"""Who is behind a connection, for decisions on access."""

import hashlib
from dataclasses import dataclass

from amsync.auth.identity import Identity


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that has joined.

    Attributes:
        peer_id: What it calls itself; no proof of anything.
        identity: What its token proves; None without authentication.
        key: Equal for callers about whom nothing differs that a decision may depend on: the same
            peer id, identity and token (another token may have other claims).
    """

    peer_id: str
    identity: Identity | None
    key: str

    @property
    def identity_key(self) -> str:
        """The identity's key; "" without authentication."""
        return "" if self.identity is None else self.identity.key

    @property
    def identity_mark(self) -> str:
        """A short text for the identity that says nothing of it; "" without authentication."""
        if self.identity is None:
            return ""
        return hashlib.blake2b(self.identity.key.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client has shown before it could say who it is: a token that was verified.

    Attributes:
        ends_at: When it is not valid any more, in seconds of the gateway's clock.
    """

    identity: Identity
    fingerprint: str
    ends_at: float

    @classmethod
    def of(cls, identity: Identity, token: str, ends_at: float) -> "Proof":
        """Remember of the token only what tells it from others."""
        fingerprint = hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
        return cls(identity, fingerprint, ends_at)


def caller(peer_id: str, proof: Proof | None) -> Caller:
    """The caller that a joined client is."""
    if proof is None:
        return Caller(peer_id, None, peer_id)
    # The fingerprint has a fixed length, so no peer id can look like another caller's.
    return Caller(peer_id, proof.identity, f"{proof.fingerprint} {peer_id}")
