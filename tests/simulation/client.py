"""A client as automerge-repo 2.5 behaves on the wire: joins, asks, answers, waits, comes back.

Its documents are replicas of the automerge crate with the crate's own sync, so a bug that the
server and its engine have in common is not copied here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import cbor2

from amsync._automerge import Replica
from amsync.ids import DocumentId

from .clock import Clock
from .link import Link

SERVER = 0
Frame = dict[str, object]


@dataclass
class Copy:
    """One document at this client.

    `state` is what was kept of the last connection; `was_refused`: doc-unavailable came on this
    one, and no content since.
    """

    replica: Replica
    state: bytes | None = None
    has_spoken: bool = False
    is_due: bool = False
    was_refused: bool = False
    edits: int = 0


class Client:
    """One peer; its id, its documents and its session id outlive its connections."""

    def __init__(
        self,
        peer_id: str,
        clock: Clock,
        random: Random,
        *,
        keeps_state: bool,
        connect: Callable[["Client"], Link | None],
        heard: Callable[["Client", Frame], None],
    ) -> None:
        self.peer_id = peer_id
        self.copies: dict[DocumentId, Copy] = {}
        self.link: Link | None = None
        self.is_joined = False
        self.wants_link = True
        self.connections = 0
        self._clock, self._random = clock, random
        self._keeps_state = keeps_state
        self._connect, self._heard = connect, heard
        self._server = ""
        self._count = 0
        self._replicas = 0
        self.is_retrying = False

    # -- connections

    def connect(self) -> None:
        self.is_retrying = False
        if not self.wants_link or self.link is not None:
            return
        link = self._connect(self)
        if link is None:
            self.retry()
            return
        self.link = link
        self.connections += 1
        link.down.deliver = self._receive
        link.client_lost = lambda: self._lost(link)
        metadata: Frame = {"storageId": f"s-{self.peer_id}", "isEphemeral": not self._keeps_state}
        self._put(
            type="join",
            senderId=self.peer_id,
            peerMetadata=metadata,
            supportedProtocolVersions=["1"],
        )

    def retry(self) -> None:
        if not self.is_retrying:
            self.is_retrying = True
            self._clock.later(self._random.choice((0.1, 1.0, 5.0)), self.connect)

    def disconnect(self) -> None:
        """Go offline by itself."""
        self.wants_link = False
        if self.link is not None:
            link = self.link
            self._lost(link)
            link.client_closes()

    def _lost(self, link: Link) -> None:
        if self.link is not link:
            return
        self.link, self.is_joined = None, False
        link.down.stop()
        for copy in self.copies.values():
            state = copy.replica.disconnect(SERVER)
            copy.state = state if self._keeps_state else None
            copy.has_spoken = copy.was_refused = False
        self.retry()

    # -- documents

    def open(self, document_id: DocumentId) -> None:
        """Look for a document, as `repo.find`."""
        if document_id in self.copies:
            return
        self._make(document_id)
        if self.is_joined:
            self._begin(document_id)

    def edit(self, document_id: DocumentId) -> bytes | None:
        """Change a document that is there; returns the hash of the change."""
        copy = self.copies.get(document_id) or self._make(document_id)
        before = copy.replica.heads()
        copy.edits += 1
        key = f"k{self._random.randint(0, 3)}"
        kind = self._random.random()
        if kind < 0.1 and before:
            copy.replica.edit_at([self._random.choice(before)], key, copy.edits)
        elif kind < 0.3:
            copy.replica.splice("text", 0, 0, "abc")
        else:
            copy.replica.put(key, f"{self.peer_id} {copy.edits}")
        made = [head for head in copy.replica.heads() if head not in before]
        if self.is_joined:
            if copy.has_spoken and self._random.random() < 0.2:
                self._push(document_id, "sync")
            elif copy.has_spoken:
                self._push_later(document_id)
            else:
                self._begin(document_id)
        return made[0] if made else None

    def broadcast(self, document_id: DocumentId) -> None:
        self._count += 1
        self._put(
            type="ephemeral",
            senderId=self.peer_id,
            targetId=self._server,
            documentId=document_id,
            sessionId=f"session-{self.peer_id}",
            count=self._count,
            data=b"hello",
        )

    def _make(self, document_id: DocumentId) -> Copy:
        self._replicas += 1
        actor = f"{self.peer_id}-{self._replicas}".encode().ljust(16, b".")
        copy = self.copies[document_id] = Copy(Replica(actor))
        return copy

    # -- the wire

    def _put(self, **fields: object) -> None:
        if self.link is not None:
            self.link.up.put(cbor2.dumps(fields))

    def _begin(self, document_id: DocumentId) -> None:
        copy = self.copies[document_id]
        copy.replica.connect(SERVER, copy.state)
        copy.has_spoken = True
        self._push(document_id, "sync" if copy.replica.heads() else "request")

    def _push_later(self, document_id: DocumentId) -> None:
        copy = self.copies[document_id]
        if copy.is_due:
            return
        copy.is_due = True

        def push() -> None:
            copy.is_due = False
            if self.is_joined:
                self._push(document_id, "sync")

        self._clock.later(self._random.choice((0.0, 0.0, 0.02, 0.1)), push)

    def _push(self, document_id: DocumentId, kind: str) -> None:
        data = self.copies[document_id].replica.generate(SERVER)
        if data is not None:
            self._put(
                type=kind,
                senderId=self.peer_id,
                targetId=self._server,
                documentId=document_id,
                data=data,
            )

    def _receive(self, data: bytes) -> None:
        frame: Frame = cbor2.loads(data)
        self._heard(self, frame)
        match frame["type"]:
            case "peer":
                self._server = str(frame["senderId"])
                self.is_joined = True
                names = list(self.copies)
                self._random.shuffle(names)
                for document_id in names:
                    self._begin(document_id)
            case "sync":
                document_id = DocumentId(str(frame["documentId"]))
                message = frame["data"]
                assert isinstance(message, bytes)
                copy = self.copies.get(document_id)
                if copy is None:
                    copy = self._make(document_id)
                if not copy.has_spoken:
                    copy.replica.connect(SERVER, copy.state)
                    copy.has_spoken = True
                copy.replica.receive(SERVER, message)
                copy.was_refused = copy.was_refused and not copy.replica.heads()
                self._push_later(document_id)
            case "doc-unavailable":
                document_id = DocumentId(str(frame["documentId"]))
                if document_id in self.copies:
                    self.copies[document_id].was_refused = True
            case "ephemeral":
                # JavaScript peers send what they hear to all their peers, us included.
                echo = {**frame, "targetId": self._server}
                if self._random.random() < 0.5:
                    self._put(**echo)
            case _:
                pass
