"""What the simulated edges owe their hub, so that what is lost is the hub's doing."""

from __future__ import annotations

from collections import Counter

from tests.bench.edges import Rounds


def test_each_slice_is_due_once_in_a_round() -> None:
    rounds = Rounds(15.0, begun=100.0)
    found = Counter(position for turn in range(1, 121) for position in rounds.due(100.0 + turn * rounds.pause + 0.01))
    assert found == dict.fromkeys(range(rounds.slices), 2)


def test_a_loop_that_is_late_sends_what_is_due_and_no_round_takes_longer() -> None:
    rounds = Rounds(15.0, begun=0.0)
    last: dict[int, float] = dict.fromkeys(range(rounds.slices), 0.0)
    longest = now = 0.0
    for number in range(200):
        now += 0.6 + 0.3 * (number % 3)
        for position in rounds.due(now):
            longest, last[position] = max(longest, now - last[position]), now
    assert longest <= 15.0 + 1.2 + rounds.pause


def test_a_loop_that_stood_still_sends_each_keepalive_once() -> None:
    rounds = Rounds(15.0, begun=0.0)
    assert Counter(rounds.due(100.0)) == dict.fromkeys(range(rounds.slices), 1)
    assert rounds.due(100.0) == []
