"""Document ids: a client gets back its own spelling, and a bad id opens nothing."""

import uuid

import pytest

from amsync.gateway.effects import Count
from amsync.protocol.envelope import (
    EphemeralOut,
    HeadsOut,
    SyncIn,
    SyncOut,
    UnavailableOut,
)

from .talk import (
    DOCUMENT,
    MESSAGES,
    NONE,
    RAW,
    WRITE,
    Talk,
    counts,
    forwarded,
    sent,
    sync_in,
)

LEGACY = str(uuid.UUID(bytes=RAW))
SPELLINGS: list[str | bytes] = [DOCUMENT, LEGACY, LEGACY.upper(), RAW, f"automerge:{DOCUMENT}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_client_gets_back_its_own_spelling(spelling: str | bytes) -> None:
    talk = Talk()

    assert forwarded(talk.request(spelling), SyncIn) == [sync_in()]

    items = [
        SyncOut([7], DOCUMENT, b"x"),
        UnavailableOut([7], DOCUMENT),
        EphemeralOut([7], DOCUMENT, "other", "s", 1, b"x"),
        HeadsOut([7], DOCUMENT, "storage", ["h"], 5),
    ]
    for item in items:
        (message,) = sent(talk, talk.deliver(item))
        assert message["documentId"] == spelling
        assert message["targetId"] == "client"
        assert message["senderId"] == ("other" if isinstance(item, EphemeralOut) else "server")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_refusals_use_the_clients_spelling(spelling: str | bytes) -> None:
    talk = Talk(grant=NONE)

    (message,) = sent(talk, talk.request(spelling))

    assert (message["type"], message["documentId"]) == ("doc-unavailable", spelling)


def test_the_last_spelling_counts_and_the_table_does_not_grow() -> None:
    talk = Talk(max_documents_per_connection=1)
    for spelling in SPELLINGS * 2:
        assert forwarded(talk.request(spelling), SyncIn)
        (message,) = sent(talk, talk.deliver(SyncOut([7], DOCUMENT, b"x")))
        assert message["documentId"] == spelling
    assert talk.session.document_count == 1


def test_messages_queued_under_two_spellings_stay_in_order() -> None:
    talk = Talk(grant=None)
    talk.request(DOCUMENT, b"1")
    talk.request(LEGACY, b"2")
    talk.request(RAW, b"3")

    assert [item.data for item in forwarded(talk.decided(WRITE), SyncIn)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("spelling", ["", "x", "../..", b"", b"x" * 65, DOCUMENT + "1"])
def test_bad_id_is_unavailable_and_opens_nothing(spelling: str | bytes) -> None:
    talk = Talk()

    effects = talk.request(spelling)

    assert counts(effects) == ["bad_document_id"]
    (message,) = sent(talk, effects)
    assert (message["type"], message["documentId"]) == ("doc-unavailable", spelling)
    assert talk.session.document_count == 0
    assert forwarded(effects) == []


@pytest.mark.parametrize("kind", ["ephemeral", "doc-unavailable", "remote-heads-changed"])
def test_bad_id_in_what_asks_nothing_is_only_counted(kind: str) -> None:
    effects = Talk().say(kind, **{**MESSAGES[kind], "documentId": "bad"})

    assert effects == [Count("bad_document_id")]


def test_megabyte_of_id_is_not_repeated() -> None:
    assert Talk().request("1" * 1_000_000) == [Count("bad_document_id")]
