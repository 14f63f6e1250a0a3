"""The little that is read of automerge's sync messages outside of the engine (PROTOCOL 5.1)."""


def names_no_heads(message: bytes) -> bool:
    """Tell whether a sync message says that its sender has nothing of the document."""
    return len(message) > 1 and message[1] == 0
