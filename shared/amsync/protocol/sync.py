"""The little that is read of automerge's sync messages outside of the engine (PROTOCOL 5.1)."""


def names_no_heads(message: bytes) -> bool:
    """Tell whether a sync message says that its sender has nothing of the document."""
    # LEB128: zero may be written with any number of leading 0x80.
    return message[1:].lstrip(b"\x80").startswith(b"\x00")
