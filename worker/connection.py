"""A connection as one shard knows it: its documents, and what it is told of.

Sans-IO. Not here: when it is told (`shard`). Most connections have one document and want no
announcements, so what others need is made when they need it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from amsync.ids import DocumentId
from amsync.worker.ports import Address

FEW_DOCUMENTS = 8
"""So many are held in a tuple: a set takes 216 bytes."""

_NOTHING: Iterator[DocumentId] = iter(())


@dataclass(slots=True)
class Connection:
    """See the module's text.

    Attributes:
        storage_id: None also if it belongs to another identity.
        has_peer_id: The peer id does not belong to another identity.
    """

    address: Address
    number: int
    peer_id: str
    storage_id: str | None
    wants_announcements: bool
    identity: str = ""
    has_peer_id: bool = True
    documents: tuple[DocumentId, ...] | set[DocumentId] = ()
    listed: Iterator[DocumentId] = _NOTHING
    to_offer: deque[DocumentId] | None = None
    unanswered: set[DocumentId] | frozenset[DocumentId] = frozenset()
    offer_open: bool = False
    offered_at: float = 0.0

    def joined(self, document_id: DocumentId) -> None:
        """It takes part in a document."""
        if document_id in self.documents:
            return
        if isinstance(self.documents, set):
            self.documents.add(document_id)
        elif len(self.documents) < FEW_DOCUMENTS:
            self.documents = (*self.documents, document_id)
        else:
            self.documents = {*self.documents, document_id}

    def left(self, document_id: DocumentId) -> None:
        """It takes part no more."""
        if isinstance(self.documents, set):
            self.documents.discard(document_id)
        else:
            self.documents = tuple(each for each in self.documents if each != document_id)

    def offer(self, document_id: DocumentId) -> None:
        """Have it told of a document, behind those it is to be told of already."""
        if self.to_offer is None:  # most connections never need one, and it takes 760 bytes
            self.to_offer = deque()
        self.to_offer.append(document_id)

    def await_answer(self, document_id: DocumentId) -> None:
        """It has been greeted with this document."""
        self.unanswered = {*self.unanswered, document_id}

    def has_answered(self, document_id: DocumentId) -> None:
        """It has spoken of this document, or won't be asked."""
        self.unanswered = self.unanswered - {document_id}
