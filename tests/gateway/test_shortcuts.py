"""What a shortcut reads is what the decoder reads, or nothing."""

from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from amsync.errors import RemoteProtocolError
from amsync.gateway.session import FEW_UNANSWERED, LEARN_AT
from amsync.gateway.shortcuts import MAX_SHAPES, Shortcuts
from amsync.protocol import codec
from amsync.protocol.envelope import SyncOut
from amsync.protocol.messages import Message, Sync
from support.rawclient import javascript_cbor

from .talk import DOCUMENT, NONE, READ, Talk, forwarded, in_use, sync_in

KEYS = ("type", "senderId", "targetId", "documentId", "data")
FIELDS = {"type": "sync", "senderId": "client", "targetId": "server", "documentId": DOCUMENT}

orders = st.permutations(KEYS)
lengths = st.one_of(st.integers(0, 40), st.integers(240, 300), st.integers(65_400, 65_600))
encoders = st.sampled_from([cbor2.dumps, javascript_cbor])


def frame_of(data: bytes, order: Any = KEYS, encode: Any = cbor2.dumps, **extra: Any) -> bytes:
    fields = {**FIELDS, "data": data}
    frame: bytes = encode({**{key: fields[key] for key in order}, **extra})
    return frame


def decoded(frame: bytes) -> Message | None:
    try:
        return codec.decode(frame)
    except RemoteProtocolError:
        return None


def learnt(frame: bytes) -> Shortcuts[str]:
    message = codec.decode(frame)
    assert isinstance(message, Sync)
    shortcuts: Shortcuts[str] = Shortcuts()
    shortcuts.learn(frame, message, "known")
    return shortcuts


@given(orders, encoders, lengths, lengths)
def test_other_data_is_read_in_whatever_order_the_keys_come(
    order: list[str], encode: Any, first: int, second: int
) -> None:
    shortcuts = learnt(frame_of(b"a" * first, order, encode))

    found = shortcuts.find(frame_of(b"b" * second, order, encode))

    if first < 65_536 and second < 65_536:
        assert found == ("known", b"b" * second)
    else:
        assert found is None


@given(orders, st.binary(max_size=40), st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_frame_that_is_found_reads_the_same_in_the_decoder(
    order: list[str], data: bytes, at: int, byte: int, cut: bool
) -> None:
    shortcuts = learnt(frame_of(b"some data", order))
    frame = bytearray(frame_of(data, order))
    if cut:
        del frame[at % len(frame) :]
    else:
        frame[at % len(frame)] = byte

    found = shortcuts.find(bytes(frame))

    if found is not None:
        assert decoded(bytes(frame)) == Sync("client", DOCUMENT, found[1], is_request=False)


def test_frames_cut_anywhere_are_left_to_the_decoder() -> None:
    for order in (KEYS, KEYS[::-1]):
        for length in (0, 1, 30, 300, 70_000):
            frame = frame_of(bytes(length), order)
            shortcuts = learnt(frame_of(b"x", order))
            for end in {*range(min(len(frame), 400)), *range(max(0, len(frame) - 200), len(frame))}:
                assert shortcuts.find(frame[:end]) is None


def test_data_that_looks_like_the_key_and_itself_is_not_taken_for_it() -> None:
    inner = b"\x64data\x41x"
    tricky = [
        frame_of(b"x", targetId=inner.decode("latin-1")),
        frame_of(b"x", KEYS, cbor2.dumps, zextra={"data": b"x"}),
        cbor2.dumps({"extra": {"data": b"x"}, **FIELDS, "data": b"x"}),
        cbor2.dumps({"extra": inner, **FIELDS, "data": b"x"}),
        b"\xa6" + frame_of(b"y")[1:] + inner,  # `data` twice: the last one counts
    ]
    for frame in tricky:
        message = codec.decode(frame)
        assert isinstance(message, Sync)
        shortcuts: Shortcuts[str] = Shortcuts()
        shortcuts.learn(frame, message, "known")
        for data in (b"", b"z", b"other data"):
            again = frame.replace(b"\x41x", codec.byte_string(data))
            found = shortcuts.find(again)
            if found is not None:
                assert decoded(again) == Sync("client", DOCUMENT, found[1], is_request=False)


def test_tagged_data_is_left_to_the_decoder() -> None:
    frame = frame_of(b"x")
    tagged = frame.replace(b"\x64data\x41x", b"\x64data\xd8\x40\x41x")

    assert learnt(tagged).find(tagged) is None


def test_few_shapes_are_remembered() -> None:
    shortcuts: Shortcuts[str] = Shortcuts()
    for number in range(MAX_SHAPES + 3):
        frame = frame_of(b"x", targetId="t" * (number + 1))
        message = codec.decode(frame)
        assert isinstance(message, Sync)
        shortcuts.learn(frame, message, str(number))

    assert len(shortcuts._shapes) == MAX_SHAPES


# -- in a session


def practised() -> Talk:
    talk = in_use()
    for _ in range(LEARN_AT):
        talk.say("sync", documentId=DOCUMENT, data=b"as usual")
    assert talk.session._shortcuts is not None
    return talk


def test_a_client_that_repeats_itself_is_understood_as_before() -> None:
    talk, slow = practised(), in_use()

    for data in (b"", b"x", b"y" * 30, b"z" * 70_000):
        expected = slow.say("sync", documentId=DOCUMENT, data=data)
        assert talk.say("sync", documentId=DOCUMENT, data=data) == expected
    (item,) = forwarded(talk.request())
    assert item == sync_in()


def test_another_sender_has_no_use_of_a_shortcut() -> None:
    talk = practised()

    assert forwarded(talk.say("sync", documentId=DOCUMENT, data=b"x", senderId="cliant")) == []


def test_shortcut_ends_with_the_access() -> None:
    talk = practised()
    talk.decided(READ)
    (item,) = forwarded(talk.say("sync", documentId=DOCUMENT, data=b"x"))
    assert (item.access, item.may_create) == (1, False)

    talk.decided(NONE)

    assert forwarded(talk.say("sync", documentId=DOCUMENT, data=b"x")) == []


def test_shortcut_ends_with_the_session() -> None:
    talk = practised()
    talk.session.disconnected()
    talk.session.take_effects()

    assert talk.say("sync", documentId=DOCUMENT, data=b"x") == []


ANSWER = b"\x42\1" + bytes(32) + b"\0\1\1" + bytes(32) + b"\0\0\x02\x02\x84"
EDIT = b"\x42\1" + bytes(32) + b"\0\1\1" + bytes(32) + b"\0\1\1c\x02\x02\x84"


def test_only_answers_may_wait() -> None:
    talk = practised()

    waits = [talk.say("sync", documentId=DOCUMENT, data=d)[0].may_wait for d in (ANSWER, EDIT)]

    assert waits == [True, False]


def test_answers_before_there_is_a_shortcut_do_not_wait() -> None:
    talk = in_use()

    assert [e.may_wait for e in talk.say("sync", documentId=DOCUMENT, data=ANSWER)] == [False]


def test_answer_of_a_client_that_has_much_to_answer_does_not_wait() -> None:
    talk = practised()
    for _ in range(FEW_UNANSWERED):
        talk.deliver(SyncOut([7], DOCUMENT, b"x"))

    (first,) = talk.say("sync", documentId=DOCUMENT, data=ANSWER)
    (second,) = talk.say("sync", documentId=DOCUMENT, data=ANSWER)

    assert (first.may_wait, second.may_wait) == (False, True)
