import pytest

from amsync.gateway.account import Accounts
from amsync.gateway.buckets import Bucket, Offenders, Rate
from amsync.gateway.limits import Limits


def test_bucket_refill_evenly_up_to_a_minutes_worth() -> None:
    bucket = Bucket(60)

    assert [bucket.take(0.0) for _ in range(61)] == [True] * 60 + [False]
    assert [bucket.take(1.5) for _ in range(2)] == [True, False]
    assert bucket.take(2.0)
    assert [bucket.take(10_000.0) for _ in range(61)] == [True] * 60 + [False]


def test_bucket_given_back_can_be_taken_and_never_pile_up() -> None:
    bucket = Bucket(1)
    assert bucket.take(0.0)
    assert not bucket.take(0.0)

    bucket.give_back()
    bucket.give_back()

    assert bucket.take(0.0)
    assert not bucket.take(0.0)


def test_no_bound_never_refuses() -> None:
    bucket = Bucket(0)

    assert all(bucket.take(0.0) for _ in range(1000))
    bucket.give_back()
    assert bucket.take(0.0)
    assert bucket.is_full(0.0)


def test_untouched_or_refilled_bucket_may_be_forgotten() -> None:
    bucket = Bucket(2)
    assert bucket.is_full(0.0)
    bucket.take(0.0)
    assert not bucket.is_full(29.0)
    assert bucket.is_full(30.0)


def test_clock_that_stands_still_refills_nothing() -> None:
    bucket = Bucket(1)
    bucket.take(5.0)

    assert not any(bucket.take(5.0) for _ in range(10))


def test_empty_bucket_says_so_until_it_has_one_again() -> None:
    bucket = Bucket(60)
    assert not bucket.is_empty(0.0)
    while bucket.take(0.0):
        pass

    assert bucket.is_empty(0.5)
    assert not bucket.is_empty(1.0)
    assert not Bucket(0).is_empty(0.0)


class TestRate:
    def test_burst_passes_and_then_comes_the_pace(self) -> None:
        rate = Rate(10, 0, 0.0)

        assert [rate.spend(1, 0.0) for _ in range(50)] == [0.0] * 50
        assert rate.spend(1, 0.0) == pytest.approx(0.1)
        assert rate.spend(1, 0.1) == pytest.approx(0.1)
        assert rate.spend(1, 0.35) == 0.0

    def test_large_message_passes_and_is_paid_for_later(self) -> None:
        rate = Rate(0, 1000, 0.0)

        assert rate.spend(15_000, 0.0) == pytest.approx(10.0)
        assert rate.spend(0, 10.0) == 0.0
        assert rate.spend(1000, 10.0) == pytest.approx(1.0)

    def test_who_was_slow_for_long_has_no_more_than_a_burst(self) -> None:
        rate = Rate(10, 0, 0.0)

        spent = [rate.spend(1, 1000.0) for _ in range(150)]

        assert spent[:100] == [0.0] * 100  # the burst of the start, and one for the time since
        assert spent[-1] > 0

    def test_no_bound_never_waits(self) -> None:
        rate = Rate(0, 0, 0.0)

        assert not any(rate.spend(10**9, 0.0) for _ in range(10_000))

    def test_one_in_debt_is_not_forgotten(self) -> None:
        rate = Rate(1, 0, 0.0)
        assert rate.is_full(5.0)
        while not rate.spend(1, 5.0):
            pass

        assert not rate.is_full(100.0)


def test_account_is_forgotten_when_nothing_of_it_is_spent() -> None:
    accounts = Accounts(Limits(creations_per_minute=1))
    mine, here = accounts.of("mine", 0.0), accounts.of("here", 0.0)
    here.connections = 1
    assert mine.creations.take(0.0)

    accounts.prune(59.0)
    assert accounts.of("mine", 59.0) is mine
    accounts.prune(60.0)

    assert accounts.of("mine", 60.0) is not mine
    assert accounts.of("here", 60.0) is here


class TestOffenders:
    def setup_method(self) -> None:
        self.said: list[tuple[str, str, int]] = []
        self.offenders = Offenders(lambda *what: self.said.append(what))

    def test_each_is_named_once_a_minute_with_how_often_it_was(self) -> None:
        for now in (0.0, 5.0, 59.0, 60.0, 61.0):
            self.offenders.note("a", "no_token", now)

        assert self.said == [("a", "no_token", 1), ("a", "no_token", 3)]

    def test_offenders_and_offences_are_apart(self) -> None:
        for offender, offence in (("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")):
            self.offenders.note(offender, offence, 0.0)

        assert self.said == [("a", "x", 1), ("b", "x", 1), ("a", "y", 1)]

    def test_a_crowd_of_offenders_takes_bounded_memory(self) -> None:
        for number in range(Offenders.MAX_KNOWN + 100):
            self.offenders.note(str(number), "x", 0.0)

        assert len(self.offenders._known) == Offenders.MAX_KNOWN
        self.offenders.prune(200.0)
        assert len(self.offenders._known) == 0
