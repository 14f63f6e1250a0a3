"""Documents that a shard offers: who is greeted, and how many at most."""

import pytest

from amsync.gateway.effects import Ask
from amsync.ids import (
    DocumentId,
    generate_document_id,
    shard_of,
)
from amsync.protocol.access import Grant
from amsync.protocol.envelope import (
    Greet,
    OfferDone,
    SyncIn,
    SyncOut,
)

from .talk import ANNOUNCE, DOCUMENT, NONE, SHARDS, WRITE, Talk, forwarded, sent


def test_offered_documents_are_greeted_if_access_says_announce() -> None:
    talk = Talk(announces=True)
    documents = [generate_document_id() for _ in range(4)]
    talk.grants = dict(zip(documents, [ANNOUNCE, WRITE, NONE, ANNOUNCE], strict=True))

    items = forwarded(talk.offered(*documents))

    assert items == [Greet(7, documents[0], 2), Greet(7, documents[3], 2), OfferDone(7)]
    (message,) = sent(talk, talk.deliver(SyncOut([7], documents[0], b"x")))
    assert message["documentId"] == documents[0]


def test_offer_with_open_questions_is_done_when_all_are_answered() -> None:
    talk = Talk(announces=True, grant=None)
    first, second = generate_document_id(), generate_document_id()

    assert talk.offered(first, second) == [Ask((first, second))]
    assert forwarded(talk.decided(ANNOUNCE, first)) == [Greet(7, first, 2)]
    assert forwarded(talk.decided(WRITE, second)) == [OfferDone(7)]


def test_offered_document_that_the_client_opens_meanwhile_is_not_greeted() -> None:
    talk = Talk(announces=True, grant=None)
    talk.offered(DOCUMENT)
    talk.request()

    items = forwarded(talk.decided(ANNOUNCE))

    assert [type(item) for item in items] == [SyncIn, OfferDone]


def test_open_documents_are_not_greeted_again() -> None:
    talk = Talk(announces=True, grant=ANNOUNCE)
    talk.request()

    assert forwarded(talk.offered(DOCUMENT)) == [OfferDone(7)]


def test_offers_of_two_shards_are_apart() -> None:
    talk = Talk(announces=True, grant=None)
    documents: dict[int, DocumentId] = {}
    while len(documents) < 2:
        document = generate_document_id()
        documents[shard_of(document, SHARDS)] = document
    (one, first), (two, second) = documents.items()
    talk.offered(first, shard=one)
    talk.offered(second, shard=two)

    effects = talk.decided(ANNOUNCE, second)

    assert [(e.shard, type(e.item)) for e in effects] == [(two, Greet), (two, OfferDone)]
    assert [e.shard for e in talk.decided(NONE, first)] == [one]


@pytest.mark.parametrize("grant", [None, ANNOUNCE])
def test_announcements_stay_within_the_bound_of_documents(grant: Grant | None) -> None:
    talk = Talk(announces=True, grant=grant, max_documents_per_connection=2)
    documents = [generate_document_id() for _ in range(4)]
    talk.offered(*documents)
    for document in documents:
        talk.decided(ANNOUNCE, document)

    assert talk.session.document_count == 2
