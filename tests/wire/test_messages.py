"""Messages that decode, or nearly, and mean harm: what each is answered; nobody else notices."""

import time
from typing import Any

import cbor2
import pytest

from amsync import Server
from amsync._automerge import Replica
from native import craft
from native.test_hostile_changes import REFUSED
from support.rawclient import EMPTY_SYNC

from .conftest import SMALL
from .friends import SECONDS, RawSocket, Witness, frame, increases

UNDECODABLE = {
    "empty": (b"", "undecodable"),
    "null": (b"\xf6", "not_a_map"),
    "undefined": (b"\xf7", "not_a_map"),
    "garbage": (b"\xff\xfe\xfd", "undecodable"),
    "text": (b"{}", "undecodable"),
    "truncated map": (cbor2.dumps({"type": "sync", "senderId": "hostile"})[:-3], "undecodable"),
    "trailing bytes": (cbor2.dumps({"type": "sync"}) + b"\0", "undecodable"),
    "array": (b"\x80", "not_a_map"),
    "map that lies": (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "undecodable"),
    "map of 2^32": (b"\xba\xff\xff\xff\xff\xa0", "undecodable"),
    "array that lies": (b"\xa1\x61a\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "undecodable"),
    "array of 2^28": (b"\xa1\x61a\x9a\x10\x00\x00\x00", "undecodable"),
    "bytes that lie": (b"\xa1\x61a\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "undecodable"),
    "bytes of 2^31": (b"\xa1\x61a\x5a\x80\x00\x00\x00", "undecodable"),
    "text that lies": (b"\xa1\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", "undecodable"),
    "deep arrays": (b"\xa1\x61a" + b"\x81" * 50_000 + b"\0", "undecodable"),
    "deep maps": (b"\xa1\x61a" * 20_000 + b"\0", "undecodable"),
    "deep tags": (b"\xa1\x61a" + b"\xc6" * 50_000 + b"\0", "undecodable"),
    "deep indefinite": (b"\xbf\x61a" * 20_000, "undecodable"),
    "huge integer": (b"\xa1\x61a\xc2\x5a\x00\x00\xff\xff" + b"\xff" * 0xFFFF, "undecodable"),
    "decimal": (b"\xa1\x61a\xc4\x82\x1a\x7f\xff\xff\xff\x01", "undecodable"),
    "big float": (b"\xa1\x61a\xc5\x82\x1a\x7f\xff\xff\xff\x01", "undecodable"),
    "rational": (b"\xa1\x61a\xd8\x1e\x82\x01\x00", "undecodable"),
    "regular expression": (b"\xa1\x61a\xd8\x23\x66(a+)+$", "undecodable"),
    "shared value in itself": (b"\xd8\x1c\xa1\x61a\xd8\x1d\x00", "undecodable"),
    "million tiny items": (b"\xa1\x61a\x9a\x00\x0f\x00\x00" + b"\0" * 0xF0000, "too_many_items"),
    "million tiny items, indefinite": (b"\xa1\x61a\x9f" + b"\0" * 0xF0000, "too_many_items"),
    "million string parts": (b"\xa1\x61a\x5f" + b"\x40" * 0xF0000 + b"\xff", "too_many_items"),
    "bad utf-8": (b"\xa1\x61\xff\0", "undecodable"),
    "map as key": (b"\xa1\xa1\x01\x02\x03", "undecodable"),
    "no type": (b"\xa0", "bad_field"),
    "type is a number": (b"\xa1\x64type\x01", "bad_field"),
}


def message(kind: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": kind, "senderId": "hostile", "targetId": "s", **fields}
    return {key: value for key, value in made.items() if value is not ...}


def fresh() -> str:
    return Server.generate_document_id()


@pytest.mark.parametrize("case", UNDECODABLE)
def test_undecodable_frame_gets_an_error_and_a_close(server: Server, case: str) -> None:
    data, reason = UNDECODABLE[case]
    started = time.monotonic()
    with (
        RawSocket(server) as hostile,
        increases(server, "refusals", by=1, reason=reason),
        increases(server, "refusals", by=1, reason="bad_frame"),
        increases(server, "messages", type="undecodable", direction="in"),
    ):
        hostile.send(frame(data))
        answer = hostile.receive()[1]
        code = hostile.close_code()

    assert (answer["type"], answer["message"]) == ("error", "frame is not a message")
    assert answer["targetId"] == "hostile"
    assert code == 1003
    assert time.monotonic() - started < SECONDS / 2


@pytest.mark.parametrize("case", ["null", "garbage", "bytes that lie", "deep tags"])
def test_undecodable_first_frame_is_refused(server: Server, case: str) -> None:
    with RawSocket(server, join=False) as hostile:
        hostile.send(frame(UNDECODABLE[case][0]))

        assert hostile.receive()[1]["type"] == "error"
        assert hostile.close_code() == 1003


NOT_JOINS = {
    "request": message("request", documentId=fresh(), data=EMPTY_SYNC),
    "leave": message("leave"),
    "error": {"type": "error", "message": "x"},
    "unknown type": message("hello"),
    "peer": message("peer", selectedProtocolVersion="1", peerMetadata={}),
}


@pytest.mark.parametrize("case", NOT_JOINS)
def test_first_message_must_be_a_join(server: Server, case: str) -> None:
    with (
        RawSocket(server, join=False) as hostile,
        increases(server, "refusals", by=1, reason="not_join"),
    ):
        hostile.message(NOT_JOINS[case])

        assert hostile.receive()[1]["message"] == "expected a join message"
        assert hostile.close_code() == 1002


@pytest.mark.parametrize("versions", [["2"], [], ["0", "9"], ["01"]])
def test_unknown_version_gets_the_error_of_the_javascript_server(
    server: Server, versions: list[str]
) -> None:
    with (
        RawSocket(server, join=False) as hostile,
        increases(server, "refusals", by=1, reason="version"),
    ):
        hostile.message({"type": "join", "senderId": "v", "supportedProtocolVersions": versions})
        answer = hostile.receive()[1]

        assert answer["message"] == "unsupported protocol version"
        assert answer["targetId"] == "v"
        assert hostile.close_code() == 1002


@pytest.mark.parametrize(
    "fields",
    [
        {"senderId": ...},
        {"senderId": ""},
        {"senderId": 7},
        {"senderId": "x" * 257},
        {"senderId": "a\0b"},
        {"senderId": "a\nb"},
        {"peerMetadata": "x"},
        {"peerMetadata": {"storageId": 7}},
        {"peerMetadata": {"storageId": "x" * 1000}},
        {"peerMetadata": {"storageId": "../../etc\n"}},
        {"supportedProtocolVersions": "1"},
        {"supportedProtocolVersions": [1]},
    ],
    ids=str,
)
def test_bad_join_is_refused(server: Server, fields: dict[str, Any]) -> None:
    with (
        RawSocket(server, join=False) as hostile,
        increases(server, "refusals", by=1, reason="bad_join"),
    ):
        hostile.message(message("join", **fields))

        assert hostile.receive()[1]["message"] == "join message is not valid"
        assert hostile.close_code() == 1002


@pytest.mark.parametrize(
    "join",
    [
        {"supportedProtocolVersions": ["0", "1", "2"]},
        {"supportedProtocolVersions": cbor2.undefined},
        {"supportedProtocolVersions": None},
        {"peerMetadata": {"storageId": cbor2.undefined, "isEphemeral": True}},
        {"peerMetadata": {"storageId": None, "isEphemeral": None}},
        {"peerMetadata": cbor2.undefined},
        {"peerMetadata": ..., "supportedProtocolVersions": ...},
        {"extra": {"deep": [1, 2, {"x": None}]}},
        {"senderId": "ü" * 128},
        {"senderId": "../../etc/passwd"},
    ],
    ids=str,
)
def test_forms_of_the_join_that_are_taken(server: Server, join: dict[str, Any]) -> None:
    with RawSocket(server, join=False) as friendly:
        sent = message("join", **join)
        friendly.message(sent)
        answer = friendly.receive()[1]

    assert answer["type"] == "peer"
    assert answer["targetId"] == sent["senderId"]
    assert answer["selectedProtocolVersion"] == "1"
    assert answer["peerMetadata"] == {"storageId": server.storage_id, "isEphemeral": False}


def test_nothing_is_sent_before_the_join(server: Server) -> None:
    with RawSocket(server, join=False) as silent:
        silent.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent.receive()


def test_second_join_is_refused(server: Server) -> None:
    with RawSocket(server) as hostile, increases(server, "refusals", by=1, reason="second_join"):
        hostile.message(message("join"))

        assert hostile.receive()[1]["message"] == "already joined"
        assert hostile.close_code() == 1002


def test_rejoin_closes_the_older_socket_and_its_late_end_harms_nothing(server: Server) -> None:
    mine = message("request", senderId="twice", documentId=fresh(), data=EMPTY_SYNC)
    older = RawSocket(server, "twice")
    with RawSocket(server, "twice") as newer:
        newer.message(mine)
        assert newer.receive()[1]["documentId"] == mine["documentId"]
        assert older.close_code() == 1001
        with increases(server, "closes", by=1, reason="replaced"):
            older.socket.close()

        newer.message({**mine, "documentId": fresh()})
        assert newer.receive()[1]["type"] == "sync"
        # Only a connection that is still known by its peer id is replaced.
        with RawSocket(server, "twice"):
            assert newer.close_code() == 1001


@pytest.mark.parametrize("kind", ["sync", "request", "ephemeral", "doc-unavailable", "leave"])
def test_message_of_another_sender_is_dropped(server: Server, kind: str) -> None:
    theirs, mine = fresh(), fresh()
    fields = {"data": EMPTY_SYNC, "documentId": theirs, "count": 1, "sessionId": "x"}
    with RawSocket(server) as hostile, increases(server, "refusals", by=1, reason="other_sender"):
        hostile.message(message(kind, **fields, senderId="witness-1"))
        hostile.message(message("request", documentId=mine, data=EMPTY_SYNC))

        assert hostile.receive()[1]["documentId"] == mine


@pytest.mark.parametrize("kind", ["hello", "peer", "", "x" * 1000, "SYNC"])
def test_unknown_type_is_ignored(server: Server, kind: str) -> None:
    document_id = fresh()
    with RawSocket(server) as hostile, increases(server, "refusals", by=1, reason="unknown_type"):
        hostile.message(message(kind, anything=[1, 2]))
        hostile.message(message("request", documentId=document_id, data=EMPTY_SYNC))

        assert hostile.receive()[1]["documentId"] == document_id


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (message("leave"), "leave"),
        (message("error", message="x"), "peer_error"),
        ({"type": "error"}, "peer_error"),
        ({"type": "error", "message": 7, "senderId": []}, "peer_error"),
    ],
)
def test_leave_and_error_are_only_counted(
    server: Server, sent: dict[str, Any], reason: str
) -> None:
    document_id = fresh()
    with RawSocket(server) as hostile, increases(server, "refusals", by=1, reason=reason):
        hostile.message(sent)
        hostile.message(message("request", documentId=document_id, data=EMPTY_SYNC))

        assert hostile.receive()[1]["documentId"] == document_id


BAD_FIELDS = [
    message("sync", documentId=fresh()),
    message("sync", documentId=fresh(), data="text"),
    message("sync", documentId=fresh(), data=[1, 2]),
    message("sync", documentId=7, data=b"x"),
    message("sync", data=b"x"),
    message("sync", documentId=fresh(), data=b"x", senderId=...),
    message("ephemeral", documentId=fresh(), data=b"x", count=-1, sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=1.5, sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=float("nan"), sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=1e300, sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=True, sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=1 << 63, sessionId="s"),
    message("ephemeral", documentId=fresh(), data=b"x", count=1),
    message("remote-heads-changed", documentId=fresh(), newHeads=[]),
    message("remote-heads-changed", documentId=fresh(), newHeads={"s": 1}),
    message("remote-heads-changed", documentId=fresh(), newHeads={"": {}}),
    message("remote-subscription-change", add="x"),
    message("remote-subscription-change", add=[1]),
    message("remote-subscription-change", add=["x" * 257]),
]


@pytest.mark.parametrize("number", range(len(BAD_FIELDS)))
def test_bad_field_closes(server: Server, number: int) -> None:
    with RawSocket(server) as hostile, increases(server, "refusals", by=1, reason="bad_field"):
        hostile.message(BAD_FIELDS[number])

        assert hostile.receive()[1]["type"] == "error"
        assert hostile.close_code() == 1003


@pytest.mark.parametrize(
    "document_id",
    [
        "",
        "x",
        "../../../etc/passwd",
        "3uQLXrx4C7D8TPUoYUsWQYp1tytE",
        "\0",
        "é" * 28,
        "1" * 100,
        "a" * 1000,
        b"",
        b"x" * 65,
    ],
)
def test_bad_document_id_is_unavailable_and_creates_nothing(
    server: Server, document_id: str | bytes
) -> None:
    before = server.list_documents()
    with (
        RawSocket(server) as hostile,
        increases(server, "refusals", by=1, reason="bad_document_id"),
    ):
        hostile.message(message("request", documentId=document_id, data=EMPTY_SYNC))
        answer = hostile.receive()[1]

    assert (answer["type"], answer["documentId"]) == ("doc-unavailable", document_id)
    assert server.list_documents() == before


def test_megabyte_of_document_id_is_not_sent_back(server: Server) -> None:
    mine = fresh()
    with (
        RawSocket(server) as hostile,
        increases(server, "refusals", by=1, reason="bad_document_id"),
    ):
        size = SMALL.max_frame_bytes - 200
        hostile.message(message("request", documentId="1" * size, data=EMPTY_SYNC))
        hostile.message(message("request", documentId=mine, data=EMPTY_SYNC))

        assert hostile.receive()[1]["documentId"] == mine


CORRUPT_SYNC = {
    "empty": b"",
    "garbage": b"garbage",
    "wrong magic": b"\x44" + EMPTY_SYNC[1:],
    "truncated": EMPTY_SYNC[:-4],
    "count that lies": b"\x42\xff\xff\xff\xff\x7f",
    "endless number": b"\x42" + b"\xff" * 5000,
    "many haves": b"\x42\0\0" + craft.unsigned(2**40),
    "zero bits per bloom entry": craft.message(
        haves=[craft.have(bloom=craft.unsigned(10) + craft.unsigned(0) + craft.unsigned(7))]
    ),
    "huge bloom": craft.message(
        haves=[craft.have(bloom=craft.unsigned(2**31) + craft.unsigned(10) + craft.unsigned(7))]
    ),
    "many probes": craft.message(
        haves=[
            craft.have(
                bloom=craft.unsigned(1) + craft.unsigned(10) + craft.unsigned(2**31) + b"\xff\xff"
            )
        ]
    ),
}


@pytest.mark.parametrize("kind", ["sync", "request"])
@pytest.mark.parametrize("case", CORRUPT_SYNC)
def test_corrupt_sync_bytes_get_doc_unavailable(server: Server, case: str, kind: str) -> None:
    document_id = fresh()
    started = time.monotonic()
    with RawSocket(server) as hostile:
        hostile.message(message(kind, documentId=document_id, data=CORRUPT_SYNC[case]))
        answer = hostile.receive()[1]

        assert (answer["type"], answer["documentId"]) == ("doc-unavailable", document_id)
    assert time.monotonic() - started < SECONDS / 2
    assert document_id not in server.list_documents()


@pytest.mark.parametrize("case", REFUSED)
def test_crasher_of_the_engine_is_refused_over_the_wire(server: Server, case: str) -> None:
    chunks, reason = REFUSED[case]
    document_id = fresh()
    data = craft.message(chunks)
    replica = Replica()
    replica.put("kept", True)
    server.create_document(document_id)
    server.apply_changes(document_id, b"".join(replica.changes()))
    before = server.get_document(document_id)
    started = time.monotonic()

    with (
        RawSocket(server) as hostile,
        increases(server, "engine_faults", reason=reason),
    ):
        hostile.message(message("sync", documentId=document_id, data=data))
        answer = hostile.receive()[1]
        while answer["type"] == "sync":
            answer = hostile.receive()[1]
        assert answer["type"] == "doc-unavailable"

    after = server.get_document(document_id)
    assert before is not None
    assert after is not None
    assert (after.heads, after.value) == (before.heads, before.value)
    assert time.monotonic() - started < SECONDS


def test_subscriptions_are_bounded(server: Server) -> None:
    with (
        RawSocket(server) as hostile,
        increases(server, "refusals", reason="too_many_subscriptions"),
    ):
        for start in (0, 600):
            names = [f"storage-{number}" for number in range(start, start + 600)]
            hostile.message(message("remote-subscription-change", add=names))


def test_hostile_broadcasts_reach_nobody_outside_the_document(
    server: Server, witness: Witness
) -> None:
    document_id = fresh()
    before = len(witness.one.seen)
    with RawSocket(server) as hostile:
        for count in range(50):
            hostile.message(
                message(
                    "ephemeral",
                    documentId=document_id,
                    count=count,
                    sessionId="s",
                    data=b"x" * 9999,
                )
            )
        witness.check()

    assert not [m for m in witness.one.seen[before:] if m["type"] == "ephemeral"]
