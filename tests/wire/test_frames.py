"""WebSocket frames that no client of ours sends: closed with a code, counted, nobody else hurt."""

import time

import cbor2
import pytest

from amsync import Server
from support.rawclient import RawClient

from .conftest import SMALL, Serve
from .friends import RawSocket, Witness, frame, increases, request

DOCUMENT = Server.generate_document_id()
BROKEN_FRAMES = {
    "unmasked": (frame(b"x", masked=False), 1002),
    "reserved bit": (frame(b"x", reserved=0x40), 1002),
    "reserved opcode": (frame(b"x", opcode=3), 1002),
    "reserved control opcode": (frame(b"x", opcode=11), 1002),
    "lone continuation": (frame(b"x", opcode=0), 1002),
    "two beginnings": (frame(b"x", final=False) + frame(b"x"), 1002),
    "text inside a binary message": (frame(b"x", final=False) + frame(b"x", opcode=1), 1002),
    "fragmented ping": (frame(b"", opcode=9, final=False), 1002),
    "long ping": (frame(b"x" * 126, opcode=9), 1002),
    "close of one byte": (frame(b"x", opcode=8), 1002),
    "close with a forbidden code": (frame(b"\x03\xed", opcode=8), 1002),
    "close with a bad text": (frame(b"\x03\xe8\xff", opcode=8), 1007),
    "length of 2^63": (frame(b"", length=(1 << 64) - 1), 1009),
    "length over the limit": (frame(b"", length=SMALL.max_frame_bytes + 1), 1009),
}


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("case", BROKEN_FRAMES)
def test_broken_frame_closes_with_its_code(server: Server, case: str, joined: bool) -> None:
    data, code = BROKEN_FRAMES[case]
    with RawSocket(server, join=joined) as hostile:
        hostile.send(data)

        assert hostile.close_code() == code

    with increases(server, "closes", reason="protocol_error"), RawSocket(server) as hostile:
        hostile.send(data)


def test_frame_at_the_limit_is_taken_and_one_byte_more_is_not(server: Server) -> None:
    filler = SMALL.max_frame_bytes - len(cbor2.dumps(request(DOCUMENT, x=b"")))
    exact = cbor2.dumps(request(DOCUMENT, x=b"x" * (filler - 4)))
    assert len(exact) == SMALL.max_frame_bytes
    with RawSocket(server) as hostile:
        hostile.send(frame(exact))
        assert hostile.receive()[1]["documentId"] == DOCUMENT

        # Refused by its header already: what is still being sent then would be reset.
        hostile.send(frame(exact + b"x")[:1000])
        assert hostile.close_code() == 1009


@pytest.mark.parametrize("part", [1, 7, 1000])
def test_fragmented_message_with_pings_between_is_one_message(server: Server, part: int) -> None:
    whole = cbor2.dumps(request(DOCUMENT, x=b"x" * 3000 if part > 10 else b""))
    pieces = [whole[start : start + part] for start in range(0, len(whole), part)]
    with RawSocket(server) as hostile:
        for number, piece in enumerate(pieces):
            opcode, final = 2 if number == 0 else 0, number == len(pieces) - 1
            hostile.send(frame(piece, opcode=opcode, final=final))
            if number == 0:
                hostile.send(frame(b"now", opcode=9))
        answers = [hostile.receive() for _ in range(2)]

    assert answers[0] == (10, b"now")
    assert answers[1][1]["documentId"] == DOCUMENT


def test_fragments_are_bounded_together(server: Server) -> None:
    piece = b"x" * (SMALL.max_frame_bytes // 4)
    with RawSocket(server) as hostile:
        hostile.send(frame(piece, final=False))
        for _ in range(3):
            hostile.send(frame(piece, opcode=0, final=False))
        hostile.send(frame(b"x", opcode=0, final=False))

        assert hostile.close_code() == 1009


def test_before_the_join_a_frame_may_not_be_larger_than_a_join(server: Server) -> None:
    with RawSocket(server, join=False) as hostile:
        hostile.send(frame(b"", length=200_000))

        assert hostile.close_code() == 1009


def test_a_large_join_is_refused(server: Server) -> None:
    join = {"type": "join", "senderId": "x", "peerMetadata": {}, "filler": b"x" * 100_000}
    with RawSocket(server, join=False) as hostile, increases(server, "refusals", reason="bad_join"):
        hostile.message(join)

        assert hostile.receive()[1]["type"] == "error"
        assert hostile.close_code() == 1002


def test_empty_fragments_are_harmless(server: Server) -> None:
    whole = cbor2.dumps(request(DOCUMENT))
    with RawSocket(server) as hostile:
        hostile.send(frame(b"", final=False))
        hostile.send(frame(b"", opcode=0, final=False) * 1000)
        hostile.send(frame(whole, opcode=0))

        assert hostile.receive()[1]["documentId"] == DOCUMENT


def test_flood_of_pings_is_answered_or_cut_and_bounded(server: Server, witness: Witness) -> None:
    with RawSocket(server) as hostile:
        for _ in range(20):
            hostile.send(frame(b"x" * 125, opcode=9) * 500)
        witness.check()

        assert hostile.receive() == (10, b"x" * 125)


def test_text_frame_gets_an_error_and_a_close(server: Server) -> None:
    with (
        RawClient(server.url, peer_id="text") as client,
        increases(server, "refusals", reason="text_frame"),
    ):
        client.join()
        client.send_text("hello")
        code, messages = client.wait_closed()

    assert code == 1003
    assert [m["message"] for m in messages] == ["frames must be binary"]


def test_text_before_the_join_is_refused(server: Server) -> None:
    with (
        RawClient(server.url, peer_id="text") as client,
        increases(server, "refusals", reason="text_frame"),
    ):
        client.send_text("{}")

        assert client.wait_closed()[0] == 1003


def test_close_frame_is_answered(server: Server) -> None:
    with increases(server, "closes", reason="client"), RawSocket(server) as hostile:
        hostile.send(frame(b"\x03\xe8bye", opcode=8))

        assert hostile.close_code() == 1000


def test_end_without_a_close_frame_is_no_fault(server: Server) -> None:
    with increases(server, "closes", reason="lost"):
        RawSocket(server).socket.close()


def test_messages_behind_a_refused_one_are_not_taken(server: Server) -> None:
    other = Server.generate_document_id()
    with RawSocket(server) as hostile:
        hostile.send(frame(b"\xf6") + frame(cbor2.dumps(request(other))))

        assert hostile.receive()[1]["type"] == "error"
        assert hostile.close_code() == 1003
    assert server.get_document(other) is None


def test_client_that_does_not_answer_the_close_is_cut(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amsync.gateway.connection.CLOSE_SECONDS", 0.2)
    server = serve()
    with RawSocket(server) as hostile, increases(server, "closes", reason="bad_frame"):
        hostile.send(frame(b"\xf6"))
        started = time.monotonic()
        while True:
            try:
                hostile.receive()
            except (EOFError, ConnectionResetError):
                break

        assert time.monotonic() - started > 0.1
