"""What a session tells a new owner of a shard of its client."""

from amsync.ids import generate_document_id, shard_of
from amsync.protocol.envelope import (
    AccessIn,
    EphemeralOut,
    Greet,
    Inbound,
    Offer,
    Open,
    Resume,
    SyncOut,
    UnavailableOut,
)

from .talk import ANNOUNCE, DOCUMENT, NONE, READ, SHARD, SHARDS, WRITE, Talk, forwarded, in_use

HEADS = b"\x42\x01" + bytes(32) + b"\x00\x00\x00"
NO_HEADS = b"\x42\x00\x00\x00\x00"
TOKEN = b"token"


def resumed(talk: Talk, *, may_be_lost: bool = False) -> Resume:
    items: list[Inbound] = talk.session.hand_over(SHARD, may_be_lost=may_be_lost)
    (resume,) = [item for item in items if isinstance(item, Resume)]
    return resume


def spoken() -> Talk:
    """A client that has a document, and was answered."""
    talk = Talk()
    talk.say("sync", documentId=DOCUMENT, data=HEADS)
    talk.deliver(SyncOut([7], DOCUMENT, HEADS, token=TOKEN))
    return talk


def test_a_shard_that_knows_nothing_of_the_client_hears_nothing() -> None:
    talk = in_use()

    assert talk.session.hand_over((SHARD + 1) % SHARDS, may_be_lost=False) == []


def test_the_introduction_comes_first() -> None:
    talk = in_use()
    talk.say("remote-subscription-change", add=["s1", "s2"])
    talk.say("remote-subscription-change", remove=["s1"])

    items = talk.session.hand_over(SHARD, may_be_lost=False)

    assert items[0] == Open(7, "client", "client-storage", False, ("s2",))
    assert len(items) == 2


def test_a_document_goes_on_from_the_token_of_the_last_message() -> None:
    talk = spoken()
    talk.deliver(SyncOut([7], DOCUMENT, HEADS, token=b"newer"))

    assert resumed(talk) == Resume(7, DOCUMENT, 2, True, True, b"newer", False, False, False)


def test_documents_of_other_shards_are_left_out() -> None:
    talk = spoken()
    while len(talk.session._shards) < 2:
        talk.request(generate_document_id())

    named = [
        item.document_id
        for item in talk.session.hand_over(SHARD, may_be_lost=False)
        if isinstance(item, Resume)
    ]

    assert DOCUMENT in named
    assert {talk.session._documents[name].shard for name in named} == {SHARD}


def test_one_that_waits_for_a_decision_is_left_out() -> None:
    talk = spoken()
    names = (generate_document_id() for _ in range(10_000))
    waiting = next(name for name in names if shard_of(name, SHARDS) == SHARD)
    talk.grants[waiting] = None
    talk.request(waiting)

    assert resumed(talk).document_id == DOCUMENT


def test_an_unanswered_request_asks() -> None:
    talk = Talk()
    talk.say("request", documentId=DOCUMENT, data=NO_HEADS)
    assert (resumed(talk).asks, resumed(talk).told_unavailable) == (True, False)

    talk.deliver(SyncOut([7], DOCUMENT, HEADS))
    assert not resumed(talk).asks


def test_an_empty_reset_is_no_answer() -> None:
    """Simulation, seed 2109: a reset came to one that asks for an absent document."""
    talk = Talk()
    talk.say("request", documentId=DOCUMENT, data=NO_HEADS)

    talk.deliver(SyncOut([7], DOCUMENT, NO_HEADS, resets=True))

    assert resumed(talk).asks


def test_one_that_was_refused_was_told() -> None:
    talk = Talk()
    talk.say("sync", documentId=DOCUMENT, data=NO_HEADS)
    talk.deliver(UnavailableOut([7], DOCUMENT))
    assert (resumed(talk).asks, resumed(talk).told_unavailable) == (True, True)

    talk.say("sync", documentId=DOCUMENT, data=HEADS)
    assert (resumed(talk).asks, resumed(talk).told_unavailable) == (False, False)

    talk.deliver(UnavailableOut([7], DOCUMENT))
    assert (resumed(talk).asks, resumed(talk).told_unavailable) == (False, True)

    talk.deliver(SyncOut([7], DOCUMENT, HEADS))
    assert not resumed(talk).told_unavailable


def test_one_that_wants_the_document_no_more_does_not_sync() -> None:
    talk = spoken()

    talk.say("doc-unavailable", documentId=DOCUMENT)

    assert not resumed(talk).syncs


def test_one_that_only_listens_does_not_sync() -> None:
    talk = Talk()
    talk.say("ephemeral", documentId=DOCUMENT, count=1, sessionId="s", data=b"x")

    assert not resumed(talk).syncs


def test_a_loss_is_told_until_a_reset_was_delivered() -> None:
    talk = spoken()
    assert resumed(talk, may_be_lost=True).may_be_lost

    talk.deliver(SyncOut([7], DOCUMENT, HEADS, token=TOKEN))
    talk.deliver(EphemeralOut([7], DOCUMENT, "o", "s", 1, b"x"))
    talk.deliver(UnavailableOut([7], DOCUMENT))
    assert resumed(talk).may_be_lost

    talk.deliver(SyncOut([7], DOCUMENT, HEADS, token=TOKEN, resets=True))
    assert not resumed(talk).may_be_lost


def test_what_was_not_delivered_gives_no_token() -> None:
    talk = spoken()
    talk.decided(NONE)

    talk.deliver(SyncOut([7], DOCUMENT, HEADS, token=b"never came"))

    assert resumed(talk).token == TOKEN


def test_what_was_refused_without_access_counts_as_lost() -> None:
    talk = spoken()
    talk.decided(NONE)
    talk.say("sync", documentId=DOCUMENT, data=HEADS)

    assert forwarded(talk.decided(WRITE)) == [AccessIn(7, DOCUMENT, 2, may_create=True)]

    assert resumed(talk).may_be_lost


def test_one_that_never_had_access_syncs_when_it_gets_it() -> None:
    talk = Talk(grant=NONE)
    talk.request()
    talk.decided(READ)

    resume = resumed(talk)

    assert (resume.access, resume.syncs, resume.may_be_lost) == (1, True, True)


def test_access_and_creation_are_those_of_now() -> None:
    talk = spoken()
    talk.decided(READ)

    assert (resumed(talk).access, resumed(talk).may_create) == (1, False)


def test_offers_that_are_open_are_made_again_by_the_new_owner() -> None:
    talk = Talk(announces=True)
    document = generate_document_id()
    talk.grants[document] = None
    talk.offered(document)

    talk.session.hand_over(SHARD, may_be_lost=False)

    assert talk.decided(ANNOUNCE, document) == []
    talk.grants[document] = ANNOUNCE
    talk.session.offered(SHARD, Offer(7, [document]))
    assert [type(item) for item in forwarded(talk.session.take_effects())][:1] == [Greet]
