"""Write the corpora: frames as real clients send them, and scripts of whole conversations.

Run by hand, `python tests/fuzz/make_corpus.py`, when the protocol or the script format of
fuzz_session changes. What a fuzzer finds is added to tests/fuzz/corpus/<target>/ as a file.
"""

import sys
from pathlib import Path
from typing import Any

import cbor2

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from amsync._automerge import Document, Replica  # noqa: E402
from fuzz.fuzz_session import DECIDE, DELIVER, DOCUMENTS, END, FRAME, OFFER, RECHECK, WAIT  # noqa: E402
from support.rawclient import EMPTY_SYNC, javascript_cbor  # noqa: E402

CORPUS = HERE / "corpus"
ME = {"senderId": "peer-a", "targetId": "server"}
DOCUMENT = {"documentId": DOCUMENTS[0]}


def sync_messages() -> dict[str, bytes]:
    """Messages of a real exchange, in the order in which they were sent to the server."""
    replica = Replica(b"a" * 16)
    replica.connect(0)
    messages = {"request": replica.generate(0) or b""}
    replica = Replica(b"a" * 16)
    replica.connect(0)
    replica.put("title", "Hello")
    replica.splice("text", 0, 0, "some text")
    document = Document()
    document.add_peer(1)
    for name in ("hello", "changes", "answer", "later"):
        message = replica.generate(0)
        if message is None:
            replica.put("n", len(messages))
            message = replica.generate(0) or b""
        messages[name] = message
        for answer, _ in document.sync([(1, message)]).messages:
            replica.receive(0, answer)
    messages["saved"] = b"\x43" + messages["changes"][1:]
    return messages


def frames() -> dict[str, bytes]:
    """Every message type, as JavaScript and as others encode it."""
    messages = sync_messages()
    values: dict[str, dict[str, Any]] = {
        "join": {
            "type": "join",
            "senderId": "peer-a",
            "peerMetadata": {"storageId": cbor2.undefined, "isEphemeral": True},
            "supportedProtocolVersions": ["1"],
        },
        "join-storage": {
            "type": "join",
            "senderId": "peer-a",
            "peerMetadata": {"storageId": "3760df37-a4c6-4f66-9ecd-732039a9385d"},
            "supportedProtocolVersions": ["1", "2"],
        },
        "leave": {"type": "leave", "senderId": "peer-a"},
        "error": {"type": "error", "message": "unsupported protocol version"},
        "unavailable": {"type": "doc-unavailable", **ME, **DOCUMENT},
        "request": {"type": "request", **ME, **DOCUMENT, "data": messages["request"]},
        "request-empty": {"type": "request", **ME, **DOCUMENT, "data": EMPTY_SYNC},
        "request-uuid": {
            "type": "request",
            **ME,
            "documentId": "12345678-1234-4234-8234-123456789abc",
            "data": EMPTY_SYNC,
        },
        "request-bytes": {"type": "request", **ME, "documentId": b"x" * 16, "data": EMPTY_SYNC},
        "sync": {"type": "sync", **ME, **DOCUMENT, "data": messages["changes"]},
        "sync-tagged": {
            "type": "sync",
            **ME,
            **DOCUMENT,
            "data": cbor2.CBORTag(64, messages["hello"]),
        },
        "ephemeral": {
            "type": "ephemeral",
            **ME,
            **DOCUMENT,
            "sessionId": "session",
            "count": 1,
            "data": cbor2.dumps({"cursor": 5}),
        },
        "subscribe": {
            "type": "remote-subscription-change",
            **ME,
            "add": ["storage-b"],
            "remove": cbor2.undefined,
        },
        "heads": {
            "type": "remote-heads-changed",
            **ME,
            **DOCUMENT,
            "newHeads": {"storage-b": {"heads": ["head"], "timestamp": 1_700_000_000_000}},
        },
        "unknown": {"type": "from-the-future", **ME, "field": [1, 2.5, None, {"a": b"b"}]},
    }
    made = {f"{name}-js": javascript_cbor(value) for name, value in values.items()}
    made |= {name: cbor2.dumps(value) for name, value in values.items()}
    made |= {
        "empty": b"",
        "null": b"\xf6",
        "array": cbor2.dumps([1, 2]),
        "self-described": b"\xd9\xd9\xf7" + made["leave"],
        "indefinite": b"\xbf" + made["leave"][1:] + b"\xff",
        "trailing": made["leave"] + b"\0",
        "deep": b"\x81" * 64 + b"\0",
        "lying-length": b"\xa1\x64type\x5b" + b"\x7f" * 8,
        "bignum": b"\xa1\x64type\xc2\x58\x20" + b"\xff" * 32,
        "date": b"\xa1\x64type\xc0\x74" + b"2013-03-21T20:04:00Z",
        "shared-reference": b"\xd8\x1c\xa1\x64type\xd8\x1d\x00",
        "key-is-list": b"\xa1\x81\x01\x01",
        "surrogate": b"\xa1\x64type\x63\xed\xa0\x80",
    }
    return made


def scripts() -> dict[str, bytes]:
    """Conversations for fuzz_session; the first byte is the mode of its harness."""
    made = frames()

    def frame(name: str) -> bytes:
        return bytes([FRAME]) + len(made[name]).to_bytes(2, "big") + made[name]

    join, end = frame("join-js"), bytes([END])
    return {
        "empty": b"",
        "join": b"\0" + join + end,
        "not-join": b"\0" + frame("sync"),
        "twice": b"\0" + join + join,
        "talk": b"\0"
        + join
        + frame("request-js")
        + bytes([DELIVER, 0, 0])
        + frame("sync-js")
        + bytes([DELIVER, 2, 0, DELIVER, 3, 0])
        + frame("ephemeral-js")
        + end,
        "undecided": b"\x08"
        + join
        + frame("request-js")
        + frame("sync-js")
        + bytes([DECIDE, 2])
        + frame("sync-js")
        + bytes([DELIVER, 8, 0])
        + end,
        "denied-later": b"\x08"
        + join
        + frame("request-js")
        + bytes([DECIDE, 10, WAIT, 60, RECHECK, 0, DECIDE, 0])
        + frame("sync-js")
        + bytes([RECHECK, 1, DECIDE, 2])
        + frame("sync-js"),
        "announced": b"\x14" + join + bytes([OFFER, 0, 3, OFFER, 1, 1, DELIVER, 0, 1]) + end,
        "announced-undecided": b"\x0c"
        + join
        + bytes([OFFER, 0, 3, DECIDE, 6, DECIDE, 0, OFFER, 0, 2, DECIDE, 6])
        + frame("sync-js"),
        "gossip": b"\0" + join + frame("subscribe-js") + frame("heads-js") + bytes([DELIVER, 4, 0]),
        "spellings": b"\x02"
        + join
        + frame("request-uuid")
        + frame("request-bytes")
        + frame("request-js")
        + frame("unavailable-js")
        + frame("request-bytes"),
        "garbage-later": b"\x08" + join + frame("request-js") + frame("null") + bytes([DECIDE, 2]),
        "ends-first": b"\0" + end + join + frame("sync-js"),
    }


def write(target: str, inputs: dict[str, bytes]) -> None:
    """Write one corpus; files of other names stay."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write("codec", frames())
    write("session", scripts())
    write("document", sync_messages())
