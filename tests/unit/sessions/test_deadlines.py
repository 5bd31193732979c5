"""What is late, from one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.sessions.deadlines import Expiries, ServedTime, Waiting


def test_what_was_touched_last_falls_due_last() -> None:
    waiting: Waiting[str] = Waiting()
    for now, key in enumerate("abc"):
        waiting.touch(key, float(now))
    waiting.touch("a", 5.0)
    assert list(waiting.due(3.0)) == ["b", "c"]
    assert list(waiting.due(5.0)) == []
    assert list(waiting.due(5.1)) == ["a"]
    assert len(waiting) == 0


def test_what_is_done_with_one_key_may_take_out_the_next() -> None:
    waiting: Waiting[str] = Waiting()
    for key in "abc":
        waiting.touch(key, 0.0)
    seen = []
    for key in waiting.due(1.0):
        seen.append(key)
        waiting.discard("b")
        waiting.discard("nobody")
    assert seen == ["a", "c"]


def test_expiries_come_in_the_order_of_their_times_and_only_for_the_living() -> None:
    expiries: Expiries[str] = Expiries()
    for key, at in (("late", 30.0), ("early", 10.0), ("dead", 5.0)):
        expiries.add(key, at)
    expiries.discard("dead")
    assert list(expiries.due(9.9)) == []
    assert list(expiries.due(100.0)) == ["early", "late"]


def test_a_key_that_came_back_has_its_new_time_only() -> None:
    expiries: Expiries[str] = Expiries()
    expiries.add("a", 10.0)
    expiries.discard("a")
    expiries.add("a", 20.0)
    assert list(expiries.due(15.0)) == []
    assert list(expiries.due(20.0)) == ["a"]


def test_sessions_that_came_and_went_leave_nothing_behind() -> None:
    expiries: Expiries[int] = Expiries()
    for key in range(10_000):
        expiries.add(key, 1e9)
        expiries.discard(key)
    assert len(expiries) == 0
    assert len(expiries._heap) < 100


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10)), max_size=40), st.floats(0, 10))
def test_exactly_the_living_that_are_due_are_given(adds: list[tuple[int, float]], now: float) -> None:
    expiries: Expiries[int] = Expiries()
    latest: dict[int, float] = {}
    for key, at in adds:
        expiries.add(key, at)
        latest[key] = at
    assert sorted(expiries.due(now)) == sorted(key for key, at in latest.items() if at <= now)


def test_time_in_which_the_hub_stood_still_does_not_count() -> None:
    readings = iter([100.0, 101.0, 161.0, 162.0, 150.0, 151.0])
    served = ServedTime(lambda: next(readings), max_step=3.0)
    assert served.advance() == 0.0
    assert served.now == 1.0
    assert served.advance() == 57.0
    assert served.now == 4.0
    assert served.advance() == 0.0
    # A clock that goes backwards is none that was asked for, but it must not turn time around.
    served.advance()
    assert served.now == 5.0
    served.advance()
    assert served.now == 6.0
