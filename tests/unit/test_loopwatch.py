"""The heartbeat that sees how late the event loop is."""

from __future__ import annotations

import pytest

from cloudhub.loopwatch import INTERVAL, watch_loop
from cloudhub.metrics import Metrics, sample


class End(Exception):
    pass


async def watched(*turns: tuple[float, float]) -> Metrics:
    """Metrics after sleeps that came this late, of which the thread worked so long."""
    metrics = Metrics()
    now, worked = 0.0, 0.0
    left = list(turns)

    async def sleep(seconds: float) -> None:
        nonlocal now, worked
        if not left:
            raise End
        late, busy = left.pop(0)
        now += seconds + late
        worked += busy

    with pytest.raises(End):
        await watch_loop(metrics, clock=lambda: now, thread_clock=lambda: worked, sleep=sleep)
    return metrics


async def test_the_longest_lateness_stays() -> None:
    metrics = await watched((0.01, 0.01), (0.3, 0.3), (0.1, 0.1))
    assert sample(metrics.event_loop_stall_seconds_max) == pytest.approx(0.3)
    assert sample(metrics.event_loop_busy_seconds_max) == pytest.approx(0.3)


async def test_turns_of_other_programs_are_no_work_of_ours() -> None:
    metrics = await watched((0.5, 0.02), (0.1, 0.1))
    assert sample(metrics.event_loop_stall_seconds_max) == pytest.approx(0.5)
    assert sample(metrics.event_loop_busy_seconds_max) == pytest.approx(0.1)


async def test_work_that_kept_nobody_waiting_is_no_stall() -> None:
    metrics = await watched((0.0, INTERVAL))
    assert sample(metrics.event_loop_busy_seconds_max) == 0.0
