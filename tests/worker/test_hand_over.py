"""A shard with a new owner goes on where the last one was, by what gateways hand over."""

from dataclasses import replace
from typing import Any

import pytest

import amsync.worker.arrivals as arrivals_module
from amsync._automerge import Replica
from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    AccessIn,
    Close,
    EphemeralIn,
    EphemeralOut,
    Greet,
    HandedOver,
    HandOver,
    Inbound,
    Offer,
    Open,
    Outbound,
    Owned,
    Resume,
    Resync,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
    Welcome,
)
from amsync.protocol.sync import names_no_heads
from amsync.worker.arrivals import EARLY_SECONDS, Arrivals
from worker.net import GATEWAY, Client, Net, new_document, stored


class Spoken(Client):
    """A client, with what its gateway remembers of it."""

    def __init__(self, net: Net, document_id: DocumentId, number: int, **more: Any) -> None:
        self.asks = self.told = self.syncs = False
        self.token = b""
        super().__init__(net, document_id, number, **more)

    def send(self, data: bytes, *, is_request: bool | None = None) -> list[Outbound]:
        self.syncs, self.asks, self.told = True, names_no_heads(data), False
        return super().send(data, is_request=is_request)

    def hear(self, item: Outbound) -> None:
        super().hear(item)
        match item:
            case SyncOut():
                self.token, self.asks, self.told = item.token, False, False
            case UnavailableOut():
                self.told = True
            case _:
                pass

    def hears_nothing(self) -> None:
        """What the owner has said dies with it."""
        self.heard.clear()

    def opened(self) -> Open:
        return Open(self.number, f"peer-{self.number}", None, False, ())

    def resume(self, *, may_be_lost: bool = False) -> Resume:
        return Resume(
            self.number,
            self.document_id,
            self.access,
            self.may_create,
            self.syncs,
            self.token,
            may_be_lost,
            self.asks,
            self.told,
        )


def cluster_net(**more: Any) -> Net:
    """A shard of a first owner, to which two gateways have handed over nothing."""
    net = Net(arrivals=Arrivals(), **more)
    for gateway in (GATEWAY, "other"):
        net.give(HandOver(0, 1, 1), HandedOver(0, 1), gateway=gateway)
    return net


def take_over(old: Net, **more: Any) -> Net:
    """A new owner of the shard, by what the old one has made durable."""
    old.shard.settled()
    known = dict(old.shard.settled_sequences)
    net = Net(epoch=old.epoch + 1, arrivals=Arrivals.after(known), **more)
    net.position, net.now = old.position, old.now
    net.sequences = dict(old.sequences)
    net.stored, net.deleted, net.clients = old.stored, old.deleted, old.clients
    for client in net.clients.values():
        client.net = net
    return net


def handed_over(
    net: Net, *clients: Spoken, generation: int = 2, may_be_lost: bool = False
) -> list[Inbound]:
    items: list[Inbound] = [HandOver(0, net.epoch, generation, may_be_lost)]
    for client in clients:
        items += [client.opened(), client.resume(may_be_lost=may_be_lost)]
    return [*items, HandedOver(0, generation)]


def hand_over(net: Net, *clients: Spoken, **more: Any) -> list[Outbound]:
    return net.give(*handed_over(net, *clients, **more))


def same_heads(*clients: Client) -> bool:
    return len({tuple(client.replica.heads()) for client in clients}) == 1


def two_writers(net: Net) -> tuple[DocumentId, Spoken, Spoken]:
    document_id = new_document()
    ann, ben = Spoken(net, document_id, 1), Spoken(net, document_id, 2)
    ann.put("title", "a")
    net.introduce(ann, ben)
    assert same_heads(ann, ben)
    return document_id, ann, ben


def test_a_new_owner_goes_on_with_small_hellos() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)

    published = hand_over(net, ann, ben)

    assert published[0] == Welcome(2)
    hellos = [item for _, item in net.published if isinstance(item, SyncOut)]
    assert max(len(item.data) for item in hellos) < 120
    assert not any(item.resets for item in hellos)
    assert net.settle() <= 4
    ann.put("title", "b")
    net.introduce(ann)
    assert ben.value() == {"title": "b"}


def test_every_sync_message_has_a_token() -> None:
    net = cluster_net()

    two_writers(net)

    sent = [item for _, item in net.published if isinstance(item, SyncOut)]
    assert sent
    assert all(item.token for item in sent)


def test_one_owner_for_good_gives_no_tokens() -> None:
    net = Net()

    two_writers(net)

    sent = [item for _, item in net.published if isinstance(item, SyncOut)]
    assert sent
    assert not any(item.token or item.resets for item in sent)


def test_what_the_first_owner_was_sent_and_did_not_settle_the_next_one_takes() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    ann.put("title", "lost with its owner")
    data = ann.replica.generate(0)
    assert data is not None
    item = ann.item(data)
    net = take_over(old)

    before = net.give(item)
    assert before == [Owned([[0, 2]])]
    assert net.settled() < net.position
    hand_over(net, ann, ben)
    net.settle()

    assert ben.value() == {"title": "lost with its owner"}
    assert net.settled() == net.position


def test_a_gateway_is_prompted_once() -> None:
    net = take_over(cluster_net())

    prompts = [net.give(Close(9)), net.give(Close(9)), net.give(Close(9), gateway="other")]

    assert prompts == [[Owned([[0, 2]])], [], [Owned([[0, 2]])]]
    assert net.settled() == net.position


def test_a_message_that_the_last_owner_has_dealt_with_is_passed_over() -> None:
    old = cluster_net()
    _, ann, _ = two_writers(old)
    net = take_over(old)

    assert net.give(ann.item(b"nonsense"), sequence=1) == []

    assert net.counts == [("repeated_entries", "inbound")]
    assert net.settled() == net.position
    assert net.shard.settled_sequences[GATEWAY] == old.shard.settled_sequences[GATEWAY]


def test_a_gap_asks_for_everything_with_what_may_be_lost() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    ann.put("title", "never came")
    assert ann.replica.generate(0) is not None
    net.sequences[GATEWAY] += 1

    assert net.give() == [Resync()]
    hand_over(net, ann, ben, may_be_lost=True)
    net.settle()

    assert ben.value() == {"title": "never came"}
    assert any(isinstance(i, SyncOut) and i.resets for _, i in net.published)


def test_a_gap_is_seen_by_the_next_owner_too() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    old.sequences[GATEWAY] += 1
    old.give()
    assert old.settled() == old.position
    net = take_over(old)

    published = hand_over(net, ann, ben)

    assert Resync() in published
    assert not any(isinstance(item, Welcome) for item in published)
    assert Welcome(3) in hand_over(net, ann, ben, generation=3, may_be_lost=True)
    net.settle()
    assert net.settled() == net.position
    assert net.shard.settled_sequences[GATEWAY] == net.sequences[GATEWAY]


def test_a_hand_over_that_knows_of_no_loss_does_not_mend_a_gap() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    net.sequences[GATEWAY] += 1
    net.give()

    published = hand_over(net, ann, ben)
    assert Resync() in published
    assert Welcome(2) not in published
    assert hand_over(net, ann, ben, generation=3, may_be_lost=True)[0] == Welcome(3)


def test_a_gap_within_a_hand_over_begins_it_again() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    items = handed_over(net, ann, ben)
    net.give(*items[:3])
    net.sequences[GATEWAY] += 1

    assert Resync() in net.give(*items[-1:])

    hand_over(net, ann, ben, generation=3, may_be_lost=True)
    net.settle()
    ann.put("title", "b")
    net.introduce(ann)
    assert ben.value() == {"title": "b"}


def test_a_hand_over_for_another_owner_is_not_taken() -> None:
    net = take_over(cluster_net())

    published = net.give(HandOver(0, 1, 1), Open(1, "peer", None, False, ()), HandedOver(0, 1))

    assert published == [Owned([[0, 2]])]
    assert net.shard.connections == {}
    assert ("hand_overs_of_other_epochs", "") in net.counts
    assert net.settled() == net.position


def test_connections_and_documents_that_are_named_no_more_are_let_go() -> None:
    net = cluster_net()
    document_id, _, ben = two_writers(net)
    third = new_document()
    net.give(replace(ben.item(b""), document_id=third))

    hand_over(net, ben)

    assert net.shard.connections.keys() == {(GATEWAY, 2)}
    assert net.shard.connections[GATEWAY, 2].documents == (document_id,)
    assert [peer.address for peer in net.shard.documents[document_id].peers] == [(GATEWAY, 2)]
    assert not net.shard.documents[third].peers


def test_the_end_of_a_connection_that_was_not_named_is_no_surprise() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    hand_over(net, ben)

    net.give(Close(ann.number))

    assert net.counts == []


def test_connections_of_another_gateway_are_not_touched() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    Client(net, ann.document_id, 1, gateway="other")

    hand_over(net, ann, ben)

    assert ("other", 1) in net.shard.connections


def test_a_repeated_hand_over_changes_nothing() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    hand_over(net, ann, ben)
    net.settle()

    hand_over(net, ann, ben, generation=3)
    net.settle()

    ben.put("title", "c")
    net.introduce(ben)
    assert ann.value() == {"title": "c"}
    assert len(net.shard.connections) == 2


def test_an_unanswered_request_is_answered_by_the_next_owner() -> None:
    old = cluster_net(auto_create=False)
    document_id = new_document()
    stored(old, document_id, title="kept")
    ann = Spoken(old, document_id, 1)
    ann.say()
    ann.hears_nothing()
    net = take_over(old, auto_create=False)

    hand_over(net, ann)
    net.settle()

    assert ann.value() == {"title": "kept"}


def test_an_unanswered_request_for_an_absent_document_is_refused_once() -> None:
    old = cluster_net(auto_create=False)
    ann = Spoken(old, new_document(), 1)
    ann.say()
    ann.hears_nothing()
    net = take_over(old, auto_create=False)

    hand_over(net, ann)
    net.settle()
    assert ann.kinds() == ["unavailable"]

    hand_over(net, ann, generation=3)
    assert ann.kinds() == ["unavailable"]


def test_one_that_was_told_unavailable_gets_the_document_when_it_appears() -> None:
    old = cluster_net(auto_create=False)
    document_id = new_document()
    ann, ben = Spoken(old, document_id, 1), Spoken(old, document_id, 2)
    old.introduce(ann)
    assert ann.kinds() == ["unavailable"]
    net = take_over(old, auto_create=False)
    hand_over(net, ann, ben)

    ben.put("title", "new")
    net.introduce(ben)

    assert ann.value() == {"title": "new"}


def test_one_whose_offer_was_refused_offers_it_again() -> None:
    """Simulation, seed 362: the reset after a full disk was lost on the bus."""
    old = cluster_net(auto_create=False)
    old.disk_is_full = True
    ann = Spoken(old, new_document(), 1)
    ann.put("title", "mine")
    old.introduce(ann)
    assert ann.told
    net = take_over(old, auto_create=False)

    hand_over(net, ann)
    net.settle()

    assert Replica.load(b"".join(net.stored[ann.document_id])).heads() == ann.replica.heads()


def test_one_that_has_offered_an_absent_document_offers_it_again_while_others_wait() -> None:
    old = cluster_net(auto_create=False)
    document_id = new_document()
    ann, ben = Spoken(old, document_id, 1), Spoken(old, document_id, 2)
    ann.put("title", "mine")
    for client in (ann, ben):
        client.say()
        client.hears_nothing()
    net = take_over(old, auto_create=False)

    hand_over(net, ben, ann)
    net.settle()

    assert ben.value() == {"title": "mine"}
    assert "unavailable" not in ben.kinds()


def test_a_readers_offer_is_not_waited_for() -> None:
    old = cluster_net(auto_create=False)
    document_id = new_document()
    ann, ben = Spoken(old, document_id, 1, access=1), Spoken(old, document_id, 2)
    ann.put("title", "mine")
    for client in (ann, ben):
        client.say()
        client.hears_nothing()
    net = take_over(old, auto_create=False)

    published = hand_over(net, ben, ann)

    assert any(isinstance(i, UnavailableOut) and 2 in i.connections for i in published)
    net.settle()
    assert net.stored.get(document_id, []) == []


def test_a_read_only_peer_stays_one() -> None:
    old = cluster_net()
    document_id = new_document()
    writer, reader = Spoken(old, document_id, 1), Spoken(old, document_id, 2, access=1)
    writer.put("title", "a")
    old.introduce(writer, reader)
    net = take_over(old)
    hand_over(net, writer, reader)
    net.settle()

    reader.put("title", "not allowed")
    writer.put("more", 1)
    net.introduce(reader, writer)

    assert writer.value() == {"title": "a", "more": 1}
    assert reader.value()["more"] == 1


def test_without_access_nobody_is_synced_and_it_is_reset_when_it_comes_back() -> None:
    old = cluster_net()
    document_id, ann, ben = two_writers(old)
    net = take_over(old)
    ben.access = 0
    hand_over(net, ann, ben)
    ann.put("title", "secret")
    net.introduce(ann)
    assert ben.value() == {"title": "a"}

    net.give(AccessIn(2, document_id, 2))
    net.settle()

    assert ben.value() == {"title": "secret"}
    sent = [i for _, i in net.published if isinstance(i, SyncOut) and 2 in i.connections]
    assert sent[0].resets


def test_what_was_said_before_access_was_lost_does_not_give_it_back() -> None:
    old = cluster_net()
    document_id, ann, ben = two_writers(old)
    net = take_over(old)
    ben.put("title", "early")
    data = ben.replica.generate(0)
    assert data is not None
    net.give(ben.item(data))
    ben.access = 0

    hand_over(net, ann, ben)

    assert net.settled() == net.position
    peer = net.shard.documents[document_id].peers.get((GATEWAY, 2))
    assert peer is not None
    assert peer.access == 0
    net.give(AccessIn(2, document_id, 2))
    net.settle()
    assert ann.value() == {"title": "early"}


def test_one_that_wants_the_document_no_more_is_not_synced() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    net.give(UnavailableIn(2, ben.document_id))
    ben.syncs = False
    heard = len(ben.heard)

    hand_over(net, ann, ben)
    ann.put("title", "b")
    net.introduce(ann)

    assert len(ben.heard) == heard


def test_one_that_only_listens_hears_broadcasts() -> None:
    old = cluster_net()
    document_id, ann, ben = two_writers(old)
    net = take_over(old)
    ben.syncs = False
    hand_over(net, ann, ben)

    published = net.give(EphemeralIn(1, document_id, "session", 1, b"x", None))

    assert [i.connections for i in published if isinstance(i, EphemeralOut)] == [[2]]


def test_a_deleted_document_is_unavailable_after_a_hand_over() -> None:
    old = cluster_net()
    document_id, ann, ben = two_writers(old)
    old.deleted.add(document_id)
    net = take_over(old)

    published = hand_over(net, ann, ben)

    told = [item for item in published if isinstance(item, UnavailableOut)]
    assert sorted(n for item in told for n in item.connections) == [1, 2]
    assert not any(isinstance(item, SyncOut) for item in published)


def test_a_silenced_peer_is_heard_again_with_a_reset() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    ben.send(b"\x42\xff nonsense")
    for item in ben.unread(take=True):
        ben.hear(item)
    assert ben.told
    ben.put("title", "unheard")
    ben.replica.generate(0)
    net = take_over(old)

    hand_over(net, ann, ben)
    net.settle()

    assert ann.value() == {"title": "unheard"}


def test_a_silenced_peer_is_heard_again_by_the_same_owner_too() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    ben.send(b"\x42\xff nonsense")
    for item in ben.unread(take=True):
        ben.hear(item)
    ben.put("title", "unheard")
    ben.replica.generate(0)

    hand_over(net, ann, ben)
    net.settle()

    assert ann.value() == {"title": "unheard"}


def test_the_same_owner_stops_to_sync_with_one_that_wants_the_document_no_more() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    ben.syncs = False
    hand_over(net, ann, ben)
    heard = len(ben.heard)

    ann.put("title", "b")
    net.introduce(ann)

    assert len(ben.heard) == heard


def test_the_first_word_after_a_time_without_access_is_answered_with_a_reset() -> None:
    net = cluster_net()
    _, ann, ben = two_writers(net)
    ben.access = 0
    hand_over(net, ann, ben)
    ben.access = 2
    ben.put("title", "c")
    heard = len(ben.heard)

    ben.say()

    answer = ben.heard[heard]
    assert isinstance(answer, SyncOut)
    assert answer.resets


def test_a_token_of_another_version_counts_as_a_loss() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    ben.token = b"\xff\x00"

    hand_over(net, ann, ben)

    resets = {
        n for _, i in net.published if isinstance(i, SyncOut) and i.resets for n in i.connections
    }
    assert resets == {2}
    net.settle()
    assert same_heads(ann, ben)


def test_announcements_go_on() -> None:
    old = cluster_net()
    document_id = new_document()
    stored(old, document_id, title="kept")
    opened = Open(1, "peer-1", None, True, ())
    assert Offer(1, [document_id]) in [*old.give(opened), *(i for _, i in old.published)]
    net = take_over(old)

    net.give(HandOver(0, 2, 2), opened, HandedOver(0, 2))

    assert [i for _, i in net.published if isinstance(i, Offer)] == [Offer(1, [document_id])]


def test_an_offer_whose_answer_was_lost_is_made_again() -> None:
    net = cluster_net()
    document_id = new_document()
    stored(net, document_id, title="kept")
    opened = Open(1, "peer-1", None, True, ())
    net.give(opened)

    net.give(HandOver(0, 1, 2), opened, HandedOver(0, 2))

    assert [i for _, i in net.published if isinstance(i, Offer)] == 2 * [Offer(1, [document_id])]


def test_one_that_was_greeted_and_never_heard_it_is_greeted() -> None:
    old = cluster_net()
    document_id = new_document()
    stored(old, document_id, title="kept")
    ann = Spoken(old, document_id, 1)
    old.give(Greet(1, document_id, 2))
    ann.hears_nothing()
    ann.syncs = True
    net = take_over(old)

    hand_over(net, ann)
    net.settle()

    assert ann.value() == {"title": "kept"}


def test_subscriptions_that_are_named_no_more_end() -> None:
    net = cluster_net()
    net.give(Open(1, "peer-1", None, False, ("s1", "s2")))

    net.give(HandOver(0, 1, 2), Open(1, "peer-1", None, False, ("s2",)), HandedOver(0, 2))

    assert not net.shard._gossip.is_wanted("s1")
    assert net.shard._gossip.is_wanted("s2")


def test_early_messages_of_a_connection_that_is_gone_hold_nothing_up() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    net.give(ben.item(b"whatever"))
    net.give(Close(2))
    assert net.settled() < net.position

    hand_over(net, ann)

    assert net.settled() == net.position
    assert net.shard.connections.keys() == {(GATEWAY, 1)}


def test_early_messages_without_room_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    monkeypatch.setattr(arrivals_module, "EARLY_BYTES", 10)
    ann.put("title", "no room")
    data = ann.replica.generate(0)
    assert data is not None

    assert Resync() in net.give(ann.item(data))
    assert net.settled() == net.position
    hand_over(net, ann, ben, may_be_lost=True)
    net.settle()

    assert ben.value() == {"title": "no room"}


def test_early_messages_do_not_hold_the_stream_up_for_ever() -> None:
    old = cluster_net()
    _, ann, ben = two_writers(old)
    net = take_over(old)
    ann.put("title", "waited")
    data = ann.replica.generate(0)
    assert data is not None
    net.give(ann.item(data))

    assert net.tick(EARLY_SECONDS) == []
    assert net.tick() == [Resync()]
    assert net.settled() == net.position

    hand_over(net, ann, ben, may_be_lost=True)
    net.settle()
    assert ben.value() == {"title": "waited"}


def test_a_forgotten_gateway_holds_nothing_up_and_leaves_nothing() -> None:
    old = cluster_net()
    _, ann, _ = two_writers(old)
    net = take_over(old)
    net.give(ann.item(b"whatever"))
    assert GATEWAY in net.shard.gateways()

    net.step(lambda effects: net.shard.forget_gateway(GATEWAY, effects, net.now))

    assert net.settled() == net.position
    assert GATEWAY not in net.shard.gateways()
    assert GATEWAY not in net.shard.settled_sequences


def test_everything_the_replica_knows_survives_three_owners() -> None:
    net = cluster_net()
    document_id, ann, ben = two_writers(net)
    for round_number in range(3):
        ann.put("round", round_number)
        data = ann.replica.generate(0)
        net = take_over(net)
        if data is not None:
            net.give(ann.item(data))
        hand_over(net, ann, ben, generation=round_number + 2)
        net.settle()
        assert ben.value()["round"] == round_number

    assert Replica.load(b"".join(net.stored[document_id])).heads() == ann.replica.heads()


def test_a_loss_of_the_owners_own_is_not_forgotten_with_a_reset_that_did_not_arrive() -> None:
    """What ann wrote could not be saved and was asked for again; her gateway knows of nothing."""
    net = cluster_net()
    _, ann, ben = two_writers(net)
    net.disk_is_full = True
    ann.put("title", "b")
    ann.say()
    net.make_room()
    assert any(getattr(item, "resets", False) for item in ann.heard)
    ann.heard, ben.heard = ann.heard[: ann._read], ben.heard[: ben._read]  # lost on the way

    sent = hand_over(net, ann, ben)
    net.settle()

    mine = [item for item in sent if isinstance(item, SyncOut) and ann.number in item.connections]
    assert any(item.resets for item in mine)
    assert ben.value() == {"title": "b"}
