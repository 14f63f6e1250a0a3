"""Any bytes: `decode` raises RemoteProtocolError or nothing; what it takes can be sent on.

Run it with `python tests/fuzz/run.py codec`.
"""

from amsync.errors import RemoteProtocolError
from amsync.protocol import codec
from amsync.protocol.messages import DocUnavailable, Ephemeral, Message, RemoteHeadsChanged, Sync

REASONS = {"undecodable", "not_a_map", "too_many_items", "bad_field", "unknown_type"}
TARGET = codec.target_suffix("somebody")


def one_input(data: bytes) -> None:
    """Check one frame."""
    try:
        message = codec.decode(data)
    except RemoteProtocolError as error:
        reason = error.reason
    else:
        _check_forwarded(message)
        return
    assert reason in REASONS, "the reason is a metric label"


def _check_forwarded(message: Message) -> None:
    for frame, expected in _forwarded(message):
        assert codec.decode(frame + TARGET) == expected


def _forwarded(message: Message) -> list[tuple[bytes, Message]]:
    """What other clients would get of this message, and how it must be read there."""
    match message:
        case Sync(sender_id=sender, document_id=document_id, data=data):
            frame = codec.encode_sync(sender, document_id, data)
            return [(frame, Sync(sender, document_id, data, is_request=False))]
        case DocUnavailable(sender_id=sender, document_id=document_id):
            return [(codec.encode_doc_unavailable(sender, document_id), message)]
        case Ephemeral():
            frame = codec.encode_ephemeral(
                message.sender_id,
                message.document_id,
                message.session_id,
                message.count,
                message.data,
            )
            expected = Ephemeral(
                message.sender_id,
                "somebody",
                message.document_id,
                message.session_id,
                message.count,
                message.data,
            )
            return [(frame, expected)]
        case RemoteHeadsChanged(sender_id=sender, document_id=document_id):
            return [
                (
                    codec.encode_remote_heads_changed(sender, document_id, heads),
                    RemoteHeadsChanged(sender, document_id, (heads,)),
                )
                for heads in message.heads
                if heads.timestamp <= 1 << 53  # as in JavaScript, whose numbers are floats
            ]
        case _:
            return []
