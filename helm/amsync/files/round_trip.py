"""What `helm test` runs: two clients; what one writes reaches the other, both ways, and is saved.

Runs in the image of the release, which has the protocol's engine and libraries, and tries again
until it works or time is over. With --wants-token and no token it only sees that it is refused.

Exit status: 0 when all of it was seen, else 1.
"""

import argparse
import os
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cbor2
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from amsync._automerge import Replica
from amsync.ids import base58check_encode

SERVER = 0
PAUSE_SECONDS = 1.0


class Client:
    """One socket, and a replica of one document."""

    def __init__(self, socket: ClientConnection, document_id: str, step_seconds: float) -> None:
        self._socket, self._document_id, self._step = socket, document_id, step_seconds
        self._me = f"helm-test-{os.urandom(4).hex()}"
        self._replica = Replica()
        self._send(type="join", peerMetadata={"isEphemeral": True}, supportedProtocolVersions=["1"])
        answer = self._receive(time.monotonic() + self._step)
        if answer["type"] != "peer":
            raise RuntimeError(f"the server answers a join with {answer['type']}")
        self._server = answer["senderId"]
        self._replica.connect(SERVER)

    def write(self, key: str, value: str) -> None:
        """Edit the document and send that."""
        self._replica.put(key, value)
        self._flush("sync")

    def look_for_it(self) -> None:
        """Ask for the document."""
        self._flush("request")

    def wait_for(self, value: dict[str, str]) -> None:
        """Return when the document is this."""
        self._until(lambda: self._replica.value() == value, f"{value} did not arrive")

    def wait_until_saved(self) -> None:
        """Return when the server has said that all of it is on its disk."""
        self._until(
            lambda: self._replica.state(SERVER)["their_heads"] == self._replica.heads(),
            "the server does not acknowledge",
        )

    def _until(self, done: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + self._step
        while not done():
            try:
                message = self._receive(deadline)
            except TimeoutError:
                raise RuntimeError(f"{trouble} within {self._step:g} s") from None
            if message.get("documentId") == self._document_id and message["type"] == "sync":
                self._replica.receive(SERVER, message["data"])
                self._flush("sync")

    def _flush(self, kind: str) -> None:
        while (data := self._replica.generate(SERVER)) is not None:
            self._send(type=kind, targetId=self._server, documentId=self._document_id, data=data)

    def _send(self, **message: object) -> None:
        self._socket.send(cbor2.dumps({"senderId": self._me, **message}))

    def _receive(self, deadline: float) -> dict[str, object]:
        frame = self._socket.recv(max(0.0, deadline - time.monotonic()))
        if not isinstance(frame, bytes):
            raise RuntimeError("the server sends text")
        message: dict[str, object] = cbor2.loads(frame)
        return message


def round_trip(opening: Callable[[], ClientConnection], step_seconds: float) -> str:
    """Do it once; returns what was seen."""
    document_id = base58check_encode(os.urandom(16))
    began = time.monotonic()
    with opening() as first, opening() as second:
        one = Client(first, document_id, step_seconds)
        other = Client(second, document_id, step_seconds)
        one.write("from", "one")
        one.wait_until_saved()
        other.look_for_it()
        other.wait_for({"from": "one"})
        other.write("back", "other")
        other.wait_until_saved()
        one.wait_for({"from": "one", "back": "other"})
    return f"both ways and saved in {time.monotonic() - began:.2f} s"


def refusal(opening: Callable[[], ClientConnection], _step_seconds: float) -> str:
    """Come without a token; returns how that was refused."""
    try:
        with opening():
            raise RuntimeError("the server takes clients without a token")
    except InvalidStatus as error:
        if error.response.status_code not in (401, 403):
            raise
        return f"no token given, and refused with {error.response.status_code}: no round trip made"


def client_context(certificate: Path) -> ssl.SSLContext:
    """Trust this certificate and no other, whatever name it is for: not that of the Service."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def main() -> int:
    """Try until it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=60.0, help="so long is tried again")
    parser.add_argument("--step-seconds", type=float, default=20.0, help="the longest wait")
    parser.add_argument("--certificate", type=Path, help="the only one to trust")
    parser.add_argument("--wants-token", action="store_true", help="the server asks for one")
    parser.add_argument("--token-file", type=Path)
    given = parser.parse_args()

    headers = {}
    if given.token_file is not None:
        headers["Authorization"] = f"Bearer {given.token_file.read_text().strip()}"
    context = client_context(given.certificate) if given.certificate is not None else None

    def opening() -> ClientConnection:
        return connect(given.url, additional_headers=headers, ssl=context, max_size=None)

    attempt = refusal if given.wants_token and given.token_file is None else round_trip
    deadline = time.monotonic() + given.seconds
    while True:
        try:
            sys.stdout.write(f"{given.url}: {attempt(opening, given.step_seconds)}\n")
        except (OSError, RuntimeError, WebSocketException) as error:
            if time.monotonic() > deadline:
                sys.stderr.write(f"{given.url}: {type(error).__name__}: {error}\n")
                return 1
            time.sleep(PAUSE_SECONDS)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
