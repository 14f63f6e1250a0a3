"""The driver's peers and documents: what a scenario talks to.

`Repo` is one automerge-repo Repo in the driver's Node process, `Doc` one of its document
handles. Methods are commands of tests/js/peer.mjs; all wait for the answer, at most `timeout`
seconds, and raise DriverError with Node's own words when it is a refusal.
"""

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interop.driver import Driver

DEFAULT_SECONDS = 30.0

Json = Any
Edit = list[Any]


class UnavailableError(Exception):
    """The server, asked by find(), said that it doesn't have the document."""


class FindTimeoutError(Exception):
    """find() was still pending when its time was over."""


class Repo:
    """One automerge-repo Repo. Made by `Driver.connect` and `Driver.listen`."""

    def __init__(self, driver: "Driver", name: str) -> None:
        self.driver = driver
        self.name = name
        self.peer_id = ""
        self.url = ""

    def __repr__(self) -> str:
        return f"<Repo {self.name} {self.peer_id}>"

    def call(self, command: str, timeout: float = DEFAULT_SECONDS, **args: Json) -> Json:
        return self.driver.call(command, args, self.name, timeout)

    def close(self) -> None:
        """Flush, disconnect and forget."""
        self.driver._forget(self)
        self.driver.call("closePeer", {"peer": self.name})

    def wait_connected(self, welcomes: int = 1, timeout: float = DEFAULT_SECONDS) -> Json:
        """Wait until connected and welcomed at least so many times; return `connection()`."""
        return self.call("waitConnected", timeout, welcomes=welcomes)

    def wait_disconnected(self, timeout: float = DEFAULT_SECONDS) -> Json:
        return self.call("waitDisconnected", timeout)

    def connection(self) -> Json:
        """Connected, welcomes, losses, socketsOpened, peerId, serverPeerId, serverMetadata."""
        return self.call("connection")

    def drop(self) -> None:
        """Cut the socket; the client comes back by itself."""
        self.call("drop")

    def come_no_more(self) -> None:
        """Keep the socket that stands; once it is lost, stay away."""
        self.call("comeNoMore")

    def go_offline(self) -> None:
        """Cut the socket and stay away."""
        self.call("goOffline")
        self.wait_disconnected()

    def go_online(self) -> None:
        """End `go_offline`; returns before the connection stands."""
        self.call("goOnline")

    def create(self, value: Json = None) -> "Doc":
        return Doc(self, self.call("create", value=value or {})["documentId"])

    def find(self, document_id: str, timeout: float = DEFAULT_SECONDS) -> "Doc":
        """Ask for a document.

        Raises:
            UnavailableError: automerge-repo's find() said so.
            FindTimeoutError: find() was pending to the end.
        """
        return self._found(document_id, self.call("find", timeout, documentId=document_id))

    def find_later(self, document_id: str, timeout: float = DEFAULT_SECONDS) -> "Future[Json]":
        """Start find(); the future gives {"state": ...}."""
        return self.driver.submit("find", {"documentId": document_id}, self.name, timeout)

    def find_many(self, ids: list[str], timeout: float = DEFAULT_SECONDS) -> "list[Doc]":
        """Ask for many documents in one burst."""
        results = self.call("findMany", timeout, documentIds=ids)
        return [self._found(i, result) for i, result in zip(ids, results, strict=True)]

    def doc(self, document_id: str) -> "Doc":
        """The handle of a document that this Repo already has."""
        return Doc(self, document_id)

    def documents(self) -> set[str]:
        """Ids of the documents that are ready here, asked for or announced."""
        return set(self.call("documents"))

    def wait_documents(self, ids: list[str], timeout: float = DEFAULT_SECONDS) -> None:
        self.call("waitDocuments", timeout, documentIds=ids)

    def start_creating(self, label: str, interval_seconds: float) -> None:
        """Create documents {"list": ["label-n"]} until `stop_creating`."""
        self.call("startCreating", label=label, intervalMs=interval_seconds * 1000)

    def stop_creating(self) -> list[str]:
        """Stop; return the ids of everything created."""
        result: list[str] = self.call("stopCreating")
        return result

    def created(self) -> list[str]:
        """Ids of what `start_creating` has made so far."""
        result: list[str] = self.call("created")
        return result

    def named_heads(self) -> dict[str, list[str]]:
        """For each document every head that the server ever named as its own."""
        result: dict[str, list[str]] = self.call("namedHeads")
        return result

    def watch(self, document_id: str) -> "Doc":
        """Look for a document and note every state and value that the handle shows from now on."""
        self.call("startWatching", documentId=document_id)
        return Doc(self, document_id)

    def storage_id(self) -> str:
        result: str = self.call("storageId")
        return result

    def subscribe_to_remotes(self, *storage_ids: str) -> None:
        self.call("subscribeToRemotes", storageIds=list(storage_ids))

    def _found(self, document_id: str, result: Json) -> "Doc":
        if result["state"] == "unavailable":
            raise UnavailableError(document_id)
        if result["state"] == "timeout":
            raise FindTimeoutError(document_id)
        return Doc(self, document_id)


class Doc:
    """One document as one Repo has it."""

    def __init__(self, repo: Repo, document_id: str) -> None:
        self.repo = repo
        self.id = document_id

    def __repr__(self) -> str:
        return f"<Doc {self.id} of {self.repo.name}>"

    def call(self, command: str, timeout: float = DEFAULT_SECONDS, **args: Json) -> Json:
        return self.repo.call(command, timeout, documentId=self.id, **args)

    def state(self) -> str:
        result: str = self.call("get")["state"]
        return result

    def value(self) -> Json:
        return self.call("get")["value"]

    def heads(self) -> list[str]:
        result: list[str] = self.call("get")["heads"]
        return result

    def edit(self, *edits: Edit) -> list[str]:
        """Make one change of some edits (see tests/js/edits.mjs); return the new heads."""
        result: list[str] = self.call("change", edits=list(edits))["heads"]
        return result

    def edit_at(self, heads: list[str], *edits: Edit) -> list[str]:
        result: list[str] = self.call("changeAt", heads=heads, edits=list(edits))["heads"]
        return result

    def type_text(self, path: list[str], text: str) -> list[str]:
        """Append text, one change per character."""
        result: list[str] = self.call("typeText", path=path, text=text)["heads"]
        return result

    def start_typing(self, path: list[str], label: str, interval_seconds: float) -> None:
        """Push `label-0`, `label-1`, ... to a list until `stop_typing`."""
        self.call("startTyping", path=path, label=label, intervalMs=interval_seconds * 1000)

    def wait_typed(self, count: int, timeout: float = DEFAULT_SECONDS) -> None:
        self.call("waitTyped", timeout, count=count)

    def stop_typing(self) -> list[str]:
        """Stop; return everything written."""
        result: list[str] = self.call("stopTyping")["written"]
        return result

    def delete(self) -> None:
        self.call("delete")

    def wait(self, timeout: float = DEFAULT_SECONDS, **wanted: Json) -> Json:
        """Wait for path=, equals=, length=, contains=, heads=; return the document's value."""
        return self.call("wait", timeout, **wanted)["value"]

    def wait_saved(self, timeout: float = DEFAULT_SECONDS) -> list[str]:
        """Wait until the server has named all our changes as its own; return our heads."""
        result: list[str] = self.call("waitSaved", timeout)["heads"]
        return result

    def acknowledged(self) -> Json:
        """The value made of every change that the server ever named as its own."""
        return self.call("acknowledged")["value"]

    def seen(self) -> list[Json]:
        """After `Repo.watch`: [{state, value?, connected}], `connected` as of the first welcome."""
        result: list[Json] = self.call("seen")
        return result

    def wait_seen(self, state: str, timeout: float = DEFAULT_SECONDS) -> list[Json]:
        """After `Repo.watch`: wait for a state; return everything seen."""
        result: list[Json] = self.call("waitSeen", timeout, state=state)
        return result

    def traffic(self) -> dict[str, int]:
        """Frames of this document on this client's sockets, as {"in sync": 3}."""
        result: dict[str, int] = self.call("traffic")
        return result

    def wait_traffic(
        self, kind: str, at_least: int, timeout: float = DEFAULT_SECONDS
    ) -> dict[str, int]:
        """Wait for so many frames of a kind, as "in doc-unavailable"."""
        result: dict[str, int] = self.call("waitTraffic", timeout, kind=kind, atLeast=at_least)
        return result

    def broadcast(self, message: Json) -> None:
        self.call("broadcast", message=message)

    def ephemerals(self, at_least: int = 0, timeout: float = DEFAULT_SECONDS) -> list[Json]:
        """[{senderId, message}] received so far, once there are at least so many."""
        result: list[Json] = self.call("ephemerals", timeout, atLeast=at_least)
        return result

    def remote_heads(self, storage_id: str) -> list[str] | None:
        result: list[str] | None = self.call("remoteHeads", storageId=storage_id)
        return result

    def wait_remote_heads(
        self, storage_id: str, heads: list[str], timeout: float = DEFAULT_SECONDS
    ) -> None:
        self.call("waitRemoteHeads", timeout, storageId=storage_id, heads=heads)
