"""Names of the keys beside the streams; those of one shard are in its stream's slot."""


def size_key(stream: str) -> str:
    """How many bytes a stream holds."""
    return f"{stream}:size"


def lease_key(prefix: str, shard: int) -> str:
    """Who owns a shard."""
    return f"{{{prefix}:s{shard}}}:lease"


def cluster_key(prefix: str) -> str:
    """The cluster's record."""
    return f"{{{prefix}}}:cluster"


def members_key(prefix: str) -> str:
    """Who lives."""
    return f"{{{prefix}}}:members"


def channel_suffix(database: int) -> str:
    """What makes a stream's name the one of the channel where its entries are pushed.

    Redis keeps the keys of its databases apart, but not the channels.
    """
    return f"@{database}"
