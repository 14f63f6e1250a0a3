"""What a document says, as items for the gateways: one item for each gateway, equal for all.

Sans-IO. Not here: what to say, and to whom (`synchronizer`).
"""

from collections.abc import Callable, Iterable, Sequence

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
    token_of: Callable[[int], bytes] | None,
    effects: Effects,
) -> None:
    """Send one sync message; `creator` is told that the document was made for it.

    `token_of`: gives a peer's resume token, by its number; None where nobody needs any.
    """
    groups: dict[tuple[bool, bytes], list[Address]] = {}
    for peer in receivers:
        token = b"" if token_of is None else token_of(peer.number)
        groups.setdefault((peer is creator, token), []).append(peer.address)
    for (created, token), addresses in groups.items():
        for gateway, connections in by_gateway(addresses).items():
            item = SyncOut(connections, document_id, data, created, edited_at, token)
            effects.send(gateway, item)


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
