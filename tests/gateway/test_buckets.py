from amsync.gateway.buckets import Bucket, Buckets, Offenders


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


def test_buckets_are_apart_and_forgotten_when_full_and_unused() -> None:
    buckets = Buckets(1)
    mine, kept = buckets.of("mine"), buckets.of("kept")
    assert mine.take(0.0)
    assert not mine.take(0.0)
    assert kept.take(0.0)

    buckets.prune(59.0)
    assert buckets.of("mine") is mine
    buckets.prune(60.0, lambda key: key == "kept")

    assert buckets.of("mine") is not mine
    assert buckets.of("kept") is kept


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
