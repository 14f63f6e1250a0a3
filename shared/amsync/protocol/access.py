"""What a peer may do with a document.

A `Share` is what an operator or a callable says; a `Grant` is what the gateway puts into every
envelope, so that a worker never has to ask.
"""

import enum
from dataclasses import dataclass


class Share(enum.Enum):
    """How documents are shared with a peer.

    ALLOW: never announce, serve who asks. ANNOUNCE: send every stored document, and serve.
    DENY: refuse with doc-unavailable.
    """

    ALLOW = "allow"
    ANNOUNCE = "announce"
    DENY = "deny"


class Access(enum.IntEnum):
    """Rights on a document; each includes those below it."""

    NONE = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Grant:
    """A decision on one (connection, document).

    `announce` only matters for documents that the peer has not asked for. `expires_at` is in
    seconds of the clock that the session is driven with; infinity for one that never changes.
    """

    access: Access
    announce: bool = False
    expires_at: float = float("inf")


def grant_of(share: Share, expires_at: float = float("inf")) -> Grant:
    """Turn the operator's word into a grant."""
    if share is Share.DENY:
        return Grant(Access.NONE, announce=False, expires_at=expires_at)
    return Grant(Access.WRITE, announce=share is Share.ANNOUNCE, expires_at=expires_at)
