"""What every test gets: a check that it leaves no asyncio task behind, files in memory, hypothesis without a clock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler.protocol import Scheduling

from tests.lanes import make_scheduler

_MEMORY: Final = "/dev/shm"
_ROOM: Final = 2 << 30

# How long an example takes is the machine's business: no test asserts a time, hypothesis' own checks neither.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """`tmp_path` is in memory where there is room: most of what a test of the store takes is waiting for its disk,
    which others on the machine may keep busy. No test loses power, so none can tell; full disks are mounted as such."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return
    if found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC and os.access(_MEMORY, os.W_OK):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which ``-p no:xdist`` takes away
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return make_scheduler(config, log)


@pytest_asyncio.fixture(autouse=True)
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fails the test that ends while a task that it started still runs: such a task has no owner."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()}
    assert not left, f"tasks left running: {sorted(task.get_name() for task in left)}"
