"""What a document says, as items for the gateways: one item for each gateway, equal for all.

Sans-IO. Not here: what to say, and to whom (`synchronizer`).
"""

from collections.abc import Iterable, Sequence

from amsync.ids import DocumentId
from amsync.protocol.envelope import EphemeralIn, EphemeralOut, SyncOut, UnavailableOut
from amsync.worker.peers import Peer
from amsync.worker.ports import Address, Effects


def by_gateway(addresses: Iterable[Address]) -> dict[str, list[int]]:
    """Group connections by the gateway that has them."""
    grouped: dict[str, list[int]] = {}
    for gateway, connection in addresses:
        grouped.setdefault(gateway, []).append(connection)
    return grouped


def send_sync(
    document_id: DocumentId,
    data: bytes,
    receivers: Sequence[Peer],
    creator: Peer | None,
    edited_at: float,
    effects: Effects,
) -> None:
    """Send one sync message; `creator` is told that the document was made for it."""
    for created in (True, False):
        some = [peer.address for peer in receivers if (peer is creator) is created]
        for gateway, connections in by_gateway(some).items():
            effects.send(gateway, SyncOut(connections, document_id, data, created, edited_at))


def send_unavailable(
    document_id: DocumentId, addresses: Iterable[Address], effects: Effects
) -> None:
    """Say that there is no such document."""
    for gateway, connections in by_gateway(addresses).items():
        effects.send(gateway, UnavailableOut(connections, document_id))


def relay(
    document_id: DocumentId,
    sender: Peer,
    item: EphemeralIn,
    targets: Iterable[Address],
    effects: Effects,
) -> None:
    """Pass a broadcast on (PROTOCOL 4.1)."""
    for gateway, connections in by_gateway(targets).items():
        effects.send(
            gateway,
            EphemeralOut(
                connections,
                document_id,
                sender.peer_id,
                item.session_id,
                item.count,
                item.data,
            ),
        )
