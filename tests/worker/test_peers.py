"""The peers of a document: few without tables, many with them, the same to everybody."""

import pytest

from amsync.worker.peers import FEW, Peer, Peers


def peer(number: int) -> Peer:
    return Peer(("gateway", 100 + number), number, f"peer-{number}", None)


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 3 * FEW])
def test_each_is_found_by_address_and_by_number(count: int) -> None:
    peers, joined = Peers(), [peer(number) for number in range(count)]

    for each in joined:
        assert peers.join(each) is each

    assert len(peers) == count
    assert list(peers) == joined
    assert [peers.get(each.address) for each in joined] == joined
    assert [peers.numbered(each.number) for each in joined] == joined
    assert peers.get(("other gateway", 100)) is None
    assert peers.numbered(count) is None


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 3 * FEW])
def test_who_joins_again_is_the_one_who_is_there(count: int) -> None:
    peers, joined = Peers(), [peer(number) for number in range(count)]
    for each in joined:
        peers.join(each)

    assert peers.join(peer(count - 1)) is joined[-1]

    assert list(peers) == joined


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 3 * FEW])
def test_who_has_left_is_found_no_more(count: int) -> None:
    peers, joined = Peers(), [peer(number) for number in range(count)]
    for each in joined:
        peers.join(each)

    while joined:
        gone = joined.pop(0)
        peers.leave(gone)

        assert peers.get(gone.address) is None
        assert peers.numbered(gone.number) is None
        assert list(peers) == joined
        assert [peers.numbered(each.number) for each in joined] == joined

    assert not peers
