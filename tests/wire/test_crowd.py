"""A crowd of random clients, honest and not: nobody else notices, and what was saved is there.

Everything that the server named as its heads must load after a restart, whatever the crowd sent
in between: the changes that a check lets in must pass it again in any other order.
"""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from amsync import Server, Share
from amsync._automerge import Replica
from native import craft
from native.test_hostile_changes import REFUSED
from support.rawclient import EMPTY_SYNC

from .friends import SECONDS, RawSocket, Witness, counted

CRASHERS = [
    craft.message(chunks) for chunks, _ in REFUSED.values() if sum(map(len, chunks)) < 100_000
]
KINDS = ["sync"] * 4 + ["request"] * 2 + ["doc-unavailable", "ephemeral", "leave", "unknown"]
KINDS += ["remote-subscription-change", "remote-heads-changed"]


class Crowd:
    def __init__(self, server: Server, random: Random) -> None:
        self.server, self.random = server, random
        self.documents = [server.generate_document_id() for _ in range(5)]
        self.replicas = [Replica(random.randbytes(16)) for _ in range(6)]
        for replica in self.replicas:
            replica.connect(0)
            replica.put("start", random.random())
        self.members: dict[str, RawSocket] = {}

    def sync_bytes(self) -> bytes:
        random, replica = self.random, self.random.choice(self.replicas)
        choice = random.random()
        if choice < 0.3:
            return random.choice(CRASHERS)
        if choice < 0.6:
            replica.put("edit", random.random())
            return replica.generate(0) or EMPTY_SYNC
        if choice < 0.8:
            changes = replica.changes()
            return craft.message(random.sample(changes, min(3, len(changes))), replica.heads())
        data = bytearray(replica.generate(0) or EMPTY_SYNC)
        for _ in range(random.randint(0, 3)):
            data[random.randrange(len(data))] = random.randrange(256)
        return bytes(data)

    def message(self, sender: str) -> dict[str, Any]:
        random = self.random
        made: dict[str, Any] = {
            "type": random.choice(KINDS),
            "senderId": sender,
            "targetId": random.choice(["server", "peer-1"]),
            "documentId": random.choice(self.documents),
            "data": self.sync_bytes(),
            "count": random.randint(0, 1000),
            "sessionId": random.choice("ab"),
            random.choice(["add", "remove"]): random.sample(["a", "b", "storage"], 2),
            "newHeads": {"a": {"heads": ["h"], "timestamp": random.randint(0, 99)}},
        }
        if random.random() < 0.02:
            made[random.choice(list(made))] = random.choice([None, 7, b"", ""])
        return made

    def act(self) -> None:
        """One member says something, comes or goes; what it hears is thrown away."""
        random = self.random
        name = f"peer-{random.randint(0, 7)}"
        try:
            if name not in self.members or random.random() < 0.01:
                self.members[name] = RawSocket(self.server, name, join=False)
                metadata = {"storageId": f"storage-{name}"}
                self.members[name].message(
                    {"type": "join", "senderId": name, "peerMetadata": metadata}
                )
            member = self.members[name]
            member.message(self.message(name))
            member.socket.setblocking(False)
            try:
                while member.socket.recv(1 << 20):
                    pass
                del self.members[name]
            except BlockingIOError:
                member.socket.settimeout(SECONDS)
        except OSError:
            self.members.pop(name).socket.close()

    def leave(self) -> None:
        for member in self.members.values():
            member.socket.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_crowd_harms_nobody_and_what_was_saved_is_there_after_a_restart(
    seed: int, tmp_path: Path
) -> None:
    random = Random(seed)

    def share(peer_id: str, document_id: str) -> Share:
        return Share.ALLOW if "witness" in peer_id else random.choice(list(Share))

    options: dict[str, Any] = {"data_dir": tmp_path, "share": share if seed % 2 else Share.ANNOUNCE}
    with Server(port=0, **options) as server:
        with Witness(server) as witness:
            crowd = Crowd(server, random)
            for number in range(3000):
                crowd.act()
                if number % 1000 == 999:
                    witness.check()
            crowd.leave()
            witness.check()
        assert counted(server, "internal_errors", where="document") == 0
        assert counted(server, "internal_errors", where="deliver") == 0
        before = {each: server.get_document(each) for each in server.list_documents()}
    assert len(before) > 1

    with Server(port=0, **options) as server:
        for document_id, view in before.items():
            again = server.get_document(document_id)
            assert view is not None
            assert again is not None
            assert (again.heads, again.value) == (view.heads, view.value)
        assert server.aio.store is not None
        assert server.aio.store.report() == []
