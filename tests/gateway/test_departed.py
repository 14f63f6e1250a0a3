"""Who comes back is told from who is new, within bounds."""

from amsync.gateway.departed import MOST, REMEMBERED_SECONDS, Departed

ONE, OTHER = ("", "one"), ("", "other")


def test_who_left_a_moment_ago_comes_back_once() -> None:
    departed = Departed()
    departed.left(ONE, 10.0)

    assert not departed.comes_back(OTHER, 11.0)
    assert departed.comes_back(ONE, 11.0)
    assert not departed.comes_back(ONE, 11.0)


def test_the_same_peer_id_of_another_identity_is_somebody_else() -> None:
    departed = Departed()
    departed.left(("somebody", "one"), 10.0)

    assert not departed.comes_back(ONE, 11.0)


def test_who_left_long_ago_is_new_and_takes_no_room() -> None:
    departed = Departed()
    departed.left(ONE, 0.0)
    departed.left(OTHER, 1.0)

    assert not departed.comes_back(ONE, REMEMBERED_SECONDS + 0.5)
    departed.prune(REMEMBERED_SECONDS + 0.5)
    assert len(departed) == 1
    departed.prune(REMEMBERED_SECONDS + 1.5)
    assert len(departed) == 0


def test_of_too_many_the_first_are_forgotten() -> None:
    departed = Departed()
    for number in range(MOST + 5):
        departed.left(("", str(number)), float(number))

    assert len(departed) == MOST
    assert not departed.comes_back(("", "4"), 1.0 * MOST)
    assert departed.comes_back(("", str(MOST + 4)), MOST + 5.0)
