"""The little that is read of automerge's sync messages outside of the engine (PROTOCOL 5.1)."""


def names_no_heads(message: bytes) -> bool:
    """Tell whether a sync message says that its sender has nothing of the document."""
    if len(message) < 2 or message[1] != 0x80:
        return message[1:2] == b"\x00"
    # LEB128: zero may be written with any number of leading 0x80.
    return message[1:].lstrip(b"\x80").startswith(b"\x00")


def is_answer(message: bytes) -> bool:
    """Tell whether a sync message names heads, asks for nothing and brings nothing.

    False for what is written in an unusual way, is cut off, or has more than a few of anything.
    """
    try:
        heads = message[1]
        at = 2 + 32 * heads
        if not 1 <= heads < 0x80 or message[at] != 0:  # it needs changes
            return False
        at += 2
        if message[at - 1] == 1:
            shared = message[at]
            at += 1 + 32 * shared
            bloom = message[at]
            at += 1 + bloom
            if shared >= 0x80 or bloom >= 0x80:
                return False
        elif message[at - 1] != 0:
            return False
        return message[at] == 0
    except IndexError:
        return False
