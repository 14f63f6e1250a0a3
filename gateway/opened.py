"""A document as one connection has it open.

Sans-IO. What is done with it is in `session`.
"""

from collections import deque
from dataclasses import dataclass

from amsync.errors import InvalidDocumentId
from amsync.ids import DocumentId, base58check_encode, parse_document_id
from amsync.protocol.access import Grant
from amsync.protocol.messages import Message, Spelling


@dataclass(slots=True)
class OpenDocument:
    """A document as this connection sees it.

    Attributes:
        heard: Sync messages of the client that were decoded in full.
        unanswered: Items for the document that were sent on since it last spoke.
        syncs: It takes part in the sync; else it only hears broadcasts.
        asks: Its last word named no heads, and nothing with heads has answered it.
        told_unavailable: We spoke last, and said that there is no such document.
        may_be_lost: Something that it said may never have reached the shard's owner, and no reset
            (`SyncOut.resets`) was sent to it since.
        token: Of the last sync message that it was sent (`SyncOut.token`).
        queue: Messages that wait for a decision on access, with their sizes; mostly none.
    """

    spelling: Spelling
    shard: int
    grant: Grant | None = None
    asking: bool = False
    exists: bool = False
    reserved_creation: bool = False
    heard: int = 0
    unanswered: int = 0
    syncs: bool = False
    asks: bool = False
    told_unavailable: bool = False
    may_be_lost: bool = False
    token: bytes = b""
    queue: deque[tuple[Message, int]] | None = None


Known = tuple[DocumentId, OpenDocument]


def canonical(spelling: Spelling) -> DocumentId:
    """The one name of a document. Raises InvalidDocumentId."""
    if isinstance(spelling, bytes):
        if not 1 <= len(spelling) <= 64:
            raise InvalidDocumentId(f"document id has {len(spelling)} bytes, allowed are 1 to 64")
        return DocumentId(base58check_encode(spelling))
    return parse_document_id(spelling)
