"""What a session lets pass: access decided, changed and lost; documents and creations counted."""

from typing import Any

import pytest

from amsync.gateway.account import Account
from amsync.gateway.effects import Ask, Forward
from amsync.gateway.limits import Limits
from amsync.ids import (
    generate_document_id,
)
from amsync.protocol.access import Access, Grant
from amsync.protocol.envelope import (
    AccessIn,
    EphemeralIn,
    EphemeralOut,
    Open,
    SyncIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)

from .talk import (
    ANNOUNCE,
    DOCUMENT,
    MESSAGES,
    NONE,
    READ,
    SHARD,
    WRITE,
    Talk,
    counts,
    forwarded,
    in_use,
    sent,
    sync_in,
)

NO_CREATION = Grant(Access.WRITE, create=False)

# -- access


def test_nothing_passes_before_access_is_decided_and_then_all_in_order() -> None:
    talk = Talk(grant=None)

    assert talk.request(data=b"1") == [Ask((DOCUMENT,))]
    assert talk.say("ephemeral", **MESSAGES["ephemeral"]) == []
    assert talk.say("doc-unavailable", documentId=DOCUMENT) == []
    assert talk.request(data=b"2") == []
    assert talk.session.queued_bytes > 0

    items = forwarded(talk.decided(READ))

    assert [type(item) for item in items] == [Open, SyncIn, EphemeralIn, UnavailableIn, SyncIn]
    assert [item.access for item in items if isinstance(item, SyncIn)] == [1, 1]
    assert talk.session.queued_bytes == 0


def test_undecided_document_holds_back_no_other() -> None:
    talk = Talk(grant=None)
    other = generate_document_id()
    talk.grants[other] = WRITE
    talk.request()

    assert forwarded(talk.request(other), SyncIn)


def test_queue_that_is_refused_is_answered_message_by_message() -> None:
    talk = Talk(grant=None)
    talk.request(data=b"1")
    talk.request(data=b"2")
    talk.say("ephemeral", **MESSAGES["ephemeral"])

    effects = talk.decided(NONE)

    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"] * 2
    assert counts(effects) == ["access_denied"] * 3
    assert forwarded(effects) == []
    assert talk.session.queued_bytes == 0


def test_readers_may_not_create() -> None:
    talk = Talk(grant=READ, creations_per_minute=1)

    (item,) = forwarded(talk.request(), SyncIn)

    assert (item.access, item.may_create) == (1, False)
    assert talk.account.creations.take(talk.now)


@pytest.mark.parametrize(
    ("before", "after", "told", "shard_told"),
    [
        (WRITE, READ, [], [AccessIn(7, DOCUMENT, 1)]),
        (READ, WRITE, [], [AccessIn(7, DOCUMENT, 2, may_create=True)]),
        (WRITE, NONE, ["doc-unavailable"], [AccessIn(7, DOCUMENT, 0)]),
        (WRITE, WRITE, [], []),
        (WRITE, ANNOUNCE, [], []),
    ],
)
def test_changed_access_reaches_the_shard(
    before: Grant, after: Grant, told: list[str], shard_told: list[Any]
) -> None:
    talk = Talk(grant=before)
    talk.request()
    talk.session.recheck(talk.now, everything=True)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]

    effects = talk.decided(after)

    assert [m["type"] for m in sent(talk, effects)] == told
    assert forwarded(effects) == shard_told


def test_after_the_loss_nothing_comes_and_nothing_goes() -> None:
    talk = in_use()
    talk.decided(NONE)

    assert talk.deliver(SyncOut([7], DOCUMENT, b"x")) == []
    assert talk.deliver(EphemeralOut([7], DOCUMENT, "o", "s", 1, b"x")) == []
    effects = talk.request()
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert forwarded(effects) == []


def test_access_gained_is_told_to_the_shard_which_hears_of_the_connection_first() -> None:
    talk = Talk(grant=NONE)
    talk.request()

    items = forwarded(talk.decided(WRITE))

    assert [type(item) for item in items] == [Open, AccessIn]
    assert forwarded(talk.request(), SyncIn) == [sync_in()]


def test_decisions_are_made_again_when_their_time_is_over() -> None:
    talk = Talk(grant=Grant(Access.WRITE, expires_at=130.0))
    talk.request()

    talk.session.recheck(129.0)
    assert talk.session.take_effects() == []
    talk.session.recheck(130.0)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]
    talk.session.recheck(131.0)
    assert talk.session.take_effects() == []

    # Until then the old decision holds: an open document doesn't stall every 30 s.
    assert forwarded(talk.request(), SyncIn)
    talk.decided(Grant(Access.WRITE, expires_at=160.0))
    talk.session.recheck(161.0)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]


def test_decision_on_a_document_that_nobody_opened_is_ignored() -> None:
    assert Talk().decided(WRITE) == []


# -- limits


def test_documents_are_bounded_and_open_ones_go_on() -> None:
    talk = Talk(max_documents_per_connection=2)
    documents = [generate_document_id() for _ in range(3)]
    for document in documents[:2]:
        talk.request(document)

    effects = talk.request(documents[2])

    assert counts(effects) == ["too_many_documents"]
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert forwarded(talk.request(documents[0]), SyncIn)


def test_creations_are_reserved_and_given_back_when_nothing_was_created() -> None:
    talk = Talk(creations_per_minute=1)
    first, second = generate_document_id(), generate_document_id()
    (item,) = forwarded(talk.request(first), SyncIn)
    assert item.may_create

    effects = talk.request(second)
    assert counts(effects) == ["creation_rate"]
    assert not forwarded(effects, SyncIn)[0].may_create

    talk.deliver(SyncOut([7], first, b"x"))
    assert forwarded(talk.request(second), SyncIn)[0].may_create
    talk.deliver(UnavailableOut([7], second))
    assert forwarded(talk.request(second), SyncIn)[0].may_create


def test_creation_that_happened_is_spent_until_time_has_passed() -> None:
    talk = Talk(creations_per_minute=2)
    first, second, third = (generate_document_id() for _ in range(3))
    for document in (first, second):
        talk.request(document)
        talk.deliver(SyncOut([7], document, b"x", created=True))

    assert not forwarded(talk.request(third), SyncIn)[0].may_create
    talk.now += 30
    assert forwarded(talk.request(third), SyncIn)[0].may_create


def test_one_document_reserves_once() -> None:
    talk = Talk(creations_per_minute=1)
    for _ in range(5):
        assert forwarded(talk.request(), SyncIn)[0].may_create


def test_going_before_the_answer_gives_no_creation_back() -> None:
    """What was sent may still create; a client that always goes at once would have no bound."""
    account = Account("client", Limits(creations_per_minute=1), 0.0)
    talk = Talk(account=account, creations_per_minute=1)
    talk.request()

    talk.session.disconnected()

    assert not account.creations.take(talk.now)


def test_connections_of_an_address_share_its_creations() -> None:
    account = Account("client", Limits(creations_per_minute=1), 0.0)
    one, two = (Talk(account=account, creations_per_minute=1) for _ in range(2))

    assert forwarded(one.request(), SyncIn)[0].may_create
    assert not forwarded(two.request(generate_document_id()), SyncIn)[0].may_create


# -- who may not create


def test_who_may_not_create_takes_no_creation_and_the_shard_knows() -> None:
    talk = Talk(grant=NO_CREATION)
    (item,) = forwarded(talk.request(), SyncIn)
    assert (item.access, item.may_create) == (2, False)
    assert talk.account.creations.take(talk.now)
    (item,) = forwarded(talk.say("sync", documentId=DOCUMENT, data=b"x"), SyncIn)
    assert not item.may_create


def test_shortcut_of_repeated_messages_does_not_create_either() -> None:
    talk = Talk(grant=NO_CREATION)
    items = [
        item
        for _ in range(12)
        for item in forwarded(talk.say("sync", documentId=DOCUMENT, data=b"x" * 40), SyncIn)
    ]
    assert len(items) == 12
    assert not any(item.may_create for item in items)


def test_creation_that_is_allowed_later_counts_from_the_next_message() -> None:
    talk = Talk(grant=NO_CREATION)
    talk.request()
    assert forwarded(talk.decided(WRITE)) == [AccessIn(7, DOCUMENT, 2, may_create=True)]
    assert forwarded(talk.request(), SyncIn)[0].may_create
    assert forwarded(talk.decided(NO_CREATION)) == [AccessIn(7, DOCUMENT, 2)]
    assert not forwarded(talk.request(), SyncIn)[0].may_create


# -- withdrawn at once


def test_restriction_takes_effect_without_asking_anybody() -> None:
    talk = in_use()
    talk.session.restrict(DOCUMENT, Access.READ, talk.now)
    assert talk.session.take_effects() == [Forward(SHARD, AccessIn(7, DOCUMENT, 1), 0)]
    talk.session.restrict(None, Access.NONE, talk.now)
    effects = talk.session.take_effects()
    assert forwarded(effects) == [AccessIn(7, DOCUMENT, 0)]
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert talk.deliver(SyncOut([7], DOCUMENT, b"x")) == []


def test_restriction_gives_nothing() -> None:
    talk = Talk(grant=READ)
    talk.request()
    talk.session.restrict(None, Access.WRITE, talk.now)
    talk.session.restrict(generate_document_id(), Access.NONE, talk.now)
    assert talk.session.take_effects() == []


def test_end_of_a_restriction_has_the_decision_made_again() -> None:
    talk = in_use()
    talk.session.restrict(DOCUMENT, Access.NONE, talk.now)
    talk.session.take_effects()
    talk.session.review(DOCUMENT)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]
    assert forwarded(talk.decided(WRITE)) == [AccessIn(7, DOCUMENT, 2, may_create=True)]
    talk.session.review(generate_document_id())
    assert talk.session.take_effects() == []


def test_restriction_does_not_forget_that_a_decision_is_being_made() -> None:
    talk = in_use()
    talk.session.recheck(talk.now, everything=True)
    talk.session.take_effects()
    talk.session.restrict(DOCUMENT, Access.READ, talk.now)
    talk.session.take_effects()
    talk.session.recheck(talk.now, everything=True)
    assert talk.session.take_effects() == []


# -- decisions that end


def test_decision_is_renewed_before_its_end_and_holds_meanwhile() -> None:
    talk = Talk(grant=Grant(Access.WRITE, expires_at=130.0, renew_at=120.0))
    talk.request()
    talk.session.recheck(119.0)
    assert talk.session.take_effects() == []
    talk.session.recheck(120.0)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]
    talk.session.recheck(129.0)
    assert talk.session.take_effects() == []


def test_decision_whose_renewal_is_late_ends_in_time_and_comes_back_with_it() -> None:
    talk = Talk(grant=Grant(Access.WRITE, expires_at=130.0, renew_at=120.0))
    talk.request()
    talk.session.recheck(120.0)
    talk.session.take_effects()

    talk.session.recheck(130.0)
    effects = talk.session.take_effects()

    assert forwarded(effects) == [AccessIn(7, DOCUMENT, 0)]
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert counts(effects) == ["decision_late"]
    talk.session.recheck(131.0)
    assert talk.session.take_effects() == []
    renewed = Grant(Access.WRITE, expires_at=190.0, renew_at=180.0)
    assert forwarded(talk.decided(renewed)) == [AccessIn(7, DOCUMENT, 2, may_create=True)]
