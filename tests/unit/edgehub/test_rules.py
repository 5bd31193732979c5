"""Backoff, rate and renewal, without any clock."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgehub.link.rules import Backoff, TokenBucket, renewal_time


def _longest(_low: float, high: float) -> float:
    return high


def test_waits_double_up_to_the_maximum() -> None:
    backoff = Backoff(first=4, maximum=60, uniform=_longest)
    assert [backoff.next_delay() for _ in range(6)] == [4, 8, 16, 32, 60, 60]


def test_a_good_session_starts_the_row_of_waits_afresh() -> None:
    backoff = Backoff(first=4, maximum=60, uniform=_longest)
    for _ in range(5):
        backoff.next_delay()
    backoff.succeeded()
    assert backoff.next_delay() == 4


def test_a_thousand_failures_overflow_nothing() -> None:
    backoff = Backoff(first=4, maximum=60, uniform=_longest)
    assert {backoff.next_delay() for _ in range(1000)} == {4, 8, 16, 32, 60}


def test_ten_thousand_nodes_do_not_come_back_in_the_same_second() -> None:
    source = random.Random(7)
    first = [Backoff(first=4, maximum=60, uniform=source.uniform).next_delay() for _ in range(10_000)]
    busiest = max(sum(second <= delay < second + 0.1 for delay in first) for second in (n / 10 for n in range(40)))
    assert busiest < 400


def test_a_burst_goes_out_at_once_and_the_rest_at_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [round(bucket.take(100.0), 3) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]


def test_the_bucket_fills_again_but_not_beyond_the_burst() -> None:
    bucket = TokenBucket(rate=10, burst=2)
    for _ in range(2):
        bucket.take(0.0)
    assert [round(bucket.take(1000.0), 3) for _ in range(3)] == [0, 0, 0.1]


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=200))
def test_never_more_than_burst_plus_rate_in_any_run(gaps: list[float]) -> None:
    bucket = TokenBucket(rate=5, burst=4)
    now, sends = 0.0, []
    for gap in gaps:
        now += gap
        sends.append(now + bucket.take(now))
    span = sends[-1] - sends[0]
    assert len(sends) <= 4 + 5 * span + 1 + 1e-6


def test_what_may_be_dropped_takes_only_what_others_do_not_need() -> None:
    bucket = TokenBucket(rate=10, burst=4)
    assert [bucket.take_spare(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert bucket.take(100.0) == 0
    assert not bucket.take_spare(100.05)
    assert bucket.take_spare(100.2)
    smallest = TokenBucket(rate=1, burst=1)
    assert [smallest.take_spare(now) for now in (0.0, 0.5, 1.0)] == [True, False, True]


def test_renewal_is_between_seventy_and_ninety_percent_of_life() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    end = start + timedelta(days=100)
    moments = [renewal_time(start, end, random.Random(seed).uniform) for seed in range(200)]
    assert min(moments) >= start + timedelta(days=70)
    assert max(moments) <= start + timedelta(days=90)
    assert max(moments) - min(moments) > timedelta(days=15)
