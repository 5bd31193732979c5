"""Renewal on a clock that the test drives."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from edgehub.link.errors import HubUnreachable, JoinError
from edgehub.link.identity import Certificate
from edgehub.link.rotation import MAX_SLEEP, Rotation

START = datetime(2026, 1, 1, tzinfo=UTC)


class Stop(Exception):
    """The test has seen enough."""


class World:
    """Each renewal brings a certificate of `life` from the present moment on."""

    def __init__(self, *, life: timedelta = timedelta(days=100), failures: int = 0, stop_after: int = 2) -> None:
        self.now = START
        self.life = life
        self.failures = failures
        self.error: Exception = HubUnreachable("the hub is away")
        self.stop_after = stop_after
        self.certificate = self._new()
        self.renewed: list[datetime] = []
        self.attempts: list[datetime] = []
        self.slept: list[float] = []
        self.jump = timedelta()

    def _new(self) -> Certificate:
        return Certificate(common_name="system:node:n", not_before=self.now, not_after=self.now + self.life)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds) + self.jump
        self.jump = timedelta()
        await asyncio.sleep(0)

    async def renew(self) -> None:
        self.attempts.append(self.now)
        if self.failures:
            self.failures -= 1
            raise self.error
        self.certificate = self._new()

    def note(self, _certificate: Certificate) -> None:
        self.renewed.append(self.now)
        if len(self.renewed) >= self.stop_after:
            raise Stop

    async def run(self, share: float = 0.8) -> None:
        rotation = Rotation(
            load=lambda: self.certificate,
            renew=self.renew,
            renewed=self.note,
            sleep=self.sleep,
            now=lambda: self.now,
            uniform=lambda low, high: low + (high - low) * (share - 0.7) / 0.2 if high < 1 else high,
        )
        with pytest.raises(Stop):
            await rotation.run()


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
async def test_it_renews_at_the_drawn_share_of_life_again_and_again(share: float) -> None:
    world = World()
    await world.run(share)
    first, second = world.renewed
    assert abs(first - (START + timedelta(days=100 * share))) < timedelta(minutes=1)
    assert abs(second - first - timedelta(days=100 * share)) < timedelta(minutes=1)


async def test_it_looks_at_the_clock_at_least_each_hour() -> None:
    world = World(stop_after=1)
    await world.run()
    assert max(world.slept) <= MAX_SLEEP


async def test_a_clock_that_jumps_ahead_is_noticed() -> None:
    world = World(stop_after=1)
    world.jump = timedelta(days=95)
    await world.run()
    assert len(world.slept) <= 2


@pytest.mark.parametrize("error", [HubUnreachable("away"), JoinError("banned"), OSError(28, "No space left")])
async def test_a_failed_renewal_is_tried_again_with_growing_waits(error: Exception) -> None:
    world = World(failures=9, stop_after=1)
    world.error = error
    await world.run()
    gaps = [(after - before).total_seconds() for before, after in zip(world.attempts, world.attempts[1:], strict=False)]
    assert gaps == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert world.renewed[0] < START + timedelta(days=100)


async def test_a_new_certificate_that_looks_old_makes_no_storm_of_requests() -> None:
    world = World(life=timedelta(seconds=0), stop_after=5)
    await world.run()
    gaps = [(after - before).total_seconds() for before, after in zip(world.renewed, world.renewed[1:], strict=False)]
    assert min(gaps) >= 60


async def test_an_error_that_nobody_thought_of_does_not_end_it() -> None:
    world = World(failures=2, stop_after=1)
    world.error = KeyError("an extension given twice, say")
    await world.run()
    assert len(world.attempts) == 3
