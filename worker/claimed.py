"""Which identity has which of the ids that clients choose: peer ids and storage ids.

Sans-IO. An id belongs to the first identity that comes with it, as long as a connection of it
lives; to others that come with it meanwhile it does not belong. Where there is no authentication
all are one identity, and nothing is kept of them.
"""

from dataclasses import dataclass, field

NOBODY = ""
"""The identity of connections without authentication."""


@dataclass(slots=True)
class ClaimedIds:
    """One kind of ids, in one shard."""

    _owners: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of each id its identity, and how many of its connections have it."""

    def claim(self, text: str, identity: str) -> bool:
        """A connection comes with an id; False if it belongs to another identity.

        Else `release` it when the connection ends.
        """
        owner = self._owners.get(text)
        if owner is None:
            if identity != NOBODY:
                self._owners[text] = (identity, 1)
            return True
        if owner[0] != identity:
            return False
        self._owners[text] = (identity, owner[1] + 1)
        return True

    def release(self, text: str, identity: str) -> None:
        """A connection that has claimed an id has ended."""
        owner = self._owners.get(text)
        if owner is None or owner[0] != identity:
            return
        if owner[1] == 1:
            del self._owners[text]
        else:
            self._owners[text] = (identity, owner[1] - 1)

    def belongs_to_another(self, text: str, identity: str) -> bool:
        """Somebody else has this id now."""
        owner = self._owners.get(text)
        return owner is not None and owner[0] != identity
