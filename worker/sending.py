"""What a document says, as items for the gateways: one item for each gateway, equal for all.

Sans-IO. Not here: what to say, and to whom (`synchronizer`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Resuming:
    """What another owner will need to go on with the receivers of a message.

    `token_of`: gives a peer's resume token, by its number. `resets`: for these it is a reset.
    """

    token_of: Callable[[int], bytes]
    resets: Collection[int]


def send_sync(
    document_id: DocumentId,
    data: bytes,
    receivers: Sequence[Peer],
    creator: Peer | None,
    edited_at: float,
    resuming: Resuming | None,
    effects: Effects,
) -> None:
    """Send one sync message; `creator` is told that the document was made for it.

    `resuming`: None where there is one owner for good.
    """
    groups: dict[tuple[bool, bytes, bool], list[Address]] = {}
    for peer in receivers:
        token = b"" if resuming is None else resuming.token_of(peer.number)
        resets = resuming is not None and peer.number in resuming.resets
        groups.setdefault((peer is creator, token, resets), []).append(peer.address)
    for (created, token, resets), addresses in groups.items():
        for gateway, connections in by_gateway(addresses).items():
            item = SyncOut(connections, document_id, data, created, edited_at, token, resets)
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
