"""Items of the bus as frames for clients, but for the target: what all receivers share."""

from amsync.protocol import codec
from amsync.protocol.envelope import (
    Addressed,
    EphemeralOut,
    HeadsOut,
    SubscribeOut,
    SyncOut,
    UnavailableOut,
)
from amsync.protocol.messages import RemoteHeads, Spelling

MESSAGE_TYPES: dict[type, str] = {
    SyncOut: "sync",
    UnavailableOut: "doc-unavailable",
    EphemeralOut: "ephemeral",
    HeadsOut: "remote-heads-changed",
    SubscribeOut: "remote-subscription-change",
}


def is_droppable(item: Addressed) -> bool:
    """Broadcasts are the first to go when a client reads too slowly, and nothing else is."""
    return isinstance(item, EphemeralOut)


def encode(item: Addressed, server_peer_id: str, spelling: Spelling | None = None) -> bytes:
    """Encode an item; `spelling` is the client's own for the document, None the canonical one."""
    match item:
        case SubscribeOut():
            return codec.encode_remote_subscription_change(
                server_peer_id, tuple(item.add), tuple(item.remove)
            )
        case SyncOut():
            return codec.encode_sync(server_peer_id, spelling or item.document_id, item.data)
        case UnavailableOut():
            return codec.encode_doc_unavailable(server_peer_id, spelling or item.document_id)
        case EphemeralOut():
            return codec.encode_ephemeral(
                item.sender_id,
                spelling or item.document_id,
                item.session_id,
                item.count,
                item.data,
            )
        case HeadsOut():
            heads = RemoteHeads(item.storage_id, tuple(item.heads), item.timestamp)
            return codec.encode_remote_heads_changed(
                server_peer_id, spelling or item.document_id, heads
            )
