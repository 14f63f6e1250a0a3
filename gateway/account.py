"""What one client has spent of what it may: an address, or an identity.

Sans-IO. All connections of a client share its account; the bounds are in `limits`. Handshakes and
refusals are an address's; what comes in over a connection is its identity's, or where there is
none its address's.
"""

from amsync.gateway.buckets import Bucket, Rate
from amsync.gateway.limits import Limits


class Account:
    """One client's account.

    Attributes:
        name: Address, or the identity's key; for logs.
        connections: Sockets.
        documents: Open in all of them together.
        handshakes, failures, creations: May still be made.
        rate: Of messages and bytes.
    """

    __slots__ = ("connections", "creations", "documents", "failures", "handshakes", "name", "rate")

    def __init__(self, name: str, limits: Limits, now: float) -> None:
        self.name = name
        self.connections = self.documents = 0
        self.handshakes = Bucket(limits.handshakes_per_minute)
        self.failures = Bucket(limits.failures_per_minute)
        self.creations = Bucket(limits.creations_per_minute)
        self.rate = Rate(
            limits.messages_per_second_per_client, limits.bytes_per_second_per_client, now
        )

    def is_blank(self, now: float) -> bool:
        """Forgetting it would change nothing."""
        return (
            self.connections == 0
            and self.documents == 0
            and all(
                spent.is_full(now)
                for spent in (self.handshakes, self.failures, self.creations, self.rate)
            )
        )


class Accounts:
    """All accounts of a gateway."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._accounts: dict[str, Account] = {}

    def of(self, name: str, now: float) -> Account:
        """The account of a client."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name, self._limits, now)
        return account

    def prune(self, now: float) -> None:
        """Forget those that are blank; to be called now and then."""
        for name in [n for n, account in self._accounts.items() if account.is_blank(now)]:
            del self._accounts[name]
