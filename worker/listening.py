"""How far the engine listens to each peer of a document: as to a writer, or as to a reader.

Sans-IO. A peer is a writer for the engine if its access allows it and what it writes can be
saved. While nothing can be saved, writers are held: treated with the protocol's read-only flag,
from the moment in which they next speak. When it is over they are reset, so that they send what
was not taken. In a document that is as large as it may be, writers are held for good.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from amsync.protocol.access import Access
from amsync.worker.peers import Peer, WriteGate
from amsync.worker.ports import EngineDocument, EngineRefused


@dataclass(slots=True)
class Listening:
    """The roles of one document's peers in its engine.

    `has_held`: a peer may be held; never False while one is. `is_full`: the document is as large
    as it may be.
    """

    gate: WriteGate = field(default_factory=WriteGate)
    has_held: bool = False
    is_full: bool = False

    @property
    def is_open(self) -> bool:
        """Changes are taken from those who may write."""
        return self.gate.is_open and not self.is_full

    def measure(self, engine: EngineDocument) -> bool:
        """Look whether the document is full; tell whether it has become so just now."""
        was_full, self.is_full = self.is_full, self.gate.bounds.are_reached(engine)
        return self.is_full and not was_full

    def may_write(self, peer: Peer) -> bool:
        """Tell whether changes of this peer are taken now."""
        return peer.access >= Access.WRITE and self.is_open

    def admit(self, engine: EngineDocument, peer: Peer, *, reset: bool, token: bytes = b"") -> None:
        """Begin to sync with a peer, or go on where the token of an earlier owner says.

        With a reset if a message of its may have been lost.
        """
        read_only, tracks = not self.may_write(peer), peer.storage_id is not None
        try:
            engine.add_peer(
                peer.number, read_only=read_only, track_heads=tracks, token=token or None
            )
        except EngineRefused:  # a token of another version: as good as none
            engine.add_peer(peer.number, read_only=read_only, track_heads=tracks)
            reset = True
        self._note_held(peer)
        if reset:
            engine.reset_peer(peer.number)
        peer.in_engine, peer.needs_reset, peer.reset_due = True, False, reset
        peer.was_reset = peer.was_reset or reset

    def hold(self, engine: EngineDocument, peer: Peer) -> None:
        """Take nothing from a peer in the engine while nothing can be saved, or it is full."""
        if not self.is_open and not peer.held and peer.access >= Access.WRITE:
            engine.set_read_only(peer.number, True)
            self._note_held(peer)

    def release(self, engine: EngineDocument, peers: Iterable[Peer]) -> None:
        """What is written can be saved again: arm the resets of those who were held."""
        self.has_held = False
        for peer in peers:
            if peer.held and peer.in_engine:
                engine.set_read_only(peer.number, False)
                peer.reset_due = peer.was_reset = True
            peer.held = False

    def change_role(self, engine: EngineDocument | None, peer: Peer, access: int) -> bool:
        """Give a peer that had some access another one; tell whether the engine was told."""
        was_reader = peer.access < Access.WRITE or peer.held
        peer.access = access
        is_reader = not self.may_write(peer)
        if not peer.in_engine:
            return False
        self._note_held(peer)
        if was_reader == is_reader or engine is None:
            return False
        engine.set_read_only(peer.number, is_reader)
        peer.offered = peer.offered and not is_reader
        peer.reset_due = peer.reset_due or was_reader
        return True

    def _note_held(self, peer: Peer) -> None:
        peer.held = peer.access >= Access.WRITE and not self.is_open
        self.has_held = self.has_held or peer.held
