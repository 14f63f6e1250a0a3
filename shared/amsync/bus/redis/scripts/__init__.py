"""The Lua scripts, each in a file of its own: what they do is written at their heads."""

import hashlib
from importlib.resources import files


class Script:
    """One script.

    Args:
        when_full: It also runs when Redis has reached its `maxmemory`. Without that nobody could
            keep a lease then, deal with what fills the memory, and trim it.

    Attributes:
        text: Its source.
        digest: What Redis calls it: SHA-1 of the source, in hex.
    """

    def __init__(self, name: str, *, when_full: bool = True) -> None:
        flags = "#!lua flags=allow-oom\n" if when_full else ""
        self.text = flags + files(__name__).joinpath(f"{name}.lua").read_text("utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


APPEND = Script("append", when_full=False)
APPEND_WHEN_FULL = Script("append")
TRIM = Script("trim")
DELETE = Script("delete")
ACQUIRE_LEASE = Script("acquire_lease")
RENEW_LEASE = Script("renew_lease")
RELEASE_LEASE = Script("release_lease")
LOOK_LEASE = Script("look_lease")
BEAT = Script("beat")
CLUSTER_RECORD = Script("cluster_record")
LAST_ID = Script("last_id")
