"""What a peer may do with a document.

A `Share` is what an operator or a callable says; a `Grant` is what the gateway puts into every
envelope, so that a worker never has to ask. Where several have a say, the strictest wins.
"""

import enum
from collections.abc import Iterable
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

    Attributes:
        announce: Only matters for documents that the peer has not asked for.
        expires_at: In seconds of the clock that the session is driven with; infinity for one
            that never changes.
        create: The document is made if it is unknown; needs WRITE.
        renew_at: When it is to be made again, so that the next one is there when it expires. It
            then ends at once if that is late; else it holds until the next one comes.
    """

    access: Access
    announce: bool = False
    expires_at: float = float("inf")
    create: bool = True
    renew_at: float = float("inf")

    @property
    def may_create(self) -> bool:
        """An unknown document is made for the peer."""
        return self.create and self.access >= Access.WRITE


def grant_of(share: Share, expires_at: float = float("inf")) -> Grant:
    """Turn the operator's word into a grant."""
    if share is Share.DENY:
        return Grant(Access.NONE, announce=False, expires_at=expires_at)
    return Grant(Access.WRITE, announce=share is Share.ANNOUNCE, expires_at=expires_at)


UNLIMITED = Grant(Access.WRITE, announce=True)
"""What forbids nothing."""


def strictest(grants: Iterable[Grant]) -> Grant:
    """Combine what several say: in each respect the one that allows least wins."""
    found = UNLIMITED
    for grant in grants:
        found = Grant(
            min(found.access, grant.access),
            found.announce and grant.announce and grant.access > Access.NONE,
            min(found.expires_at, grant.expires_at),
            found.create and grant.create,
            min(found.renew_at, grant.renew_at),
        )
    return found
