"""The checks: what they measure, and what they say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgehub.runtime.base import RuntimeUnavailable
from edgehub.tasks.prechecks import CpuTimes, Limits, PreChecks, Space, ThisMachine

GIB = 1 << 30


class Machine:
    """Busy for `busy` of each second that passes."""

    def __init__(self, *, busy: float = 0.1, memory: float = 50, disk: float = 50) -> None:
        self.busy = busy
        self.now = 0.0
        self._memory = memory
        self._disk = disk
        self.looked_at: list[Path] = []

    def cpu(self) -> CpuTimes:
        return CpuTimes(busy=100 + self.busy * self.now, total=1000 + self.now)

    def memory(self) -> Space:
        return Space(percent_used=self._memory, available=int(0.3 * GIB), total=2 * GIB)

    def disk(self, path: Path) -> Space:
        self.looked_at.append(path)
        if path == Path("/gone"):
            raise FileNotFoundError(2, "No such file or directory")
        return Space(percent_used=self._disk, available=int(2.5 * GIB), total=20 * GIB)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def _checks(machine: Machine, *, filesystem: Path | None = Path("/var/lib/containerd"), cpu: float = 80) -> PreChecks:
    async def where() -> Path | None:
        return filesystem

    return PreChecks(limits=Limits(cpu=cpu), filesystem=where, machine=machine, cpu_sample=5, sleep=machine.sleep)


async def test_a_node_with_room_passes_all() -> None:
    assert await _checks(Machine()).run(["cpu", "mem", "disk"]) == ""


async def test_no_items_are_no_checks() -> None:
    machine = Machine(disk=99)
    assert await _checks(machine).run([]) == ""
    assert machine.looked_at == []


async def test_disk_is_the_filesystem_that_holds_the_images() -> None:
    machine = Machine(disk=91)
    reason = await _checks(machine).run(["disk"])
    assert reason == "disk: /var/lib/containerd is 91 % used (2.5 of 20.0 GiB free), limit 80 %"
    assert machine.looked_at == [Path("/var/lib/containerd")]


async def test_a_runtime_that_does_not_say_means_the_root_filesystem() -> None:
    machine = Machine()
    await _checks(machine, filesystem=None).run(["disk"])
    assert machine.looked_at == [Path("/")]


async def test_a_filesystem_that_is_gone_is_named() -> None:
    reason = await _checks(Machine(), filesystem=Path("/gone")).run(["disk"])
    assert reason == "disk: /gone cannot be read: No such file or directory"


async def test_cpu_is_an_average_over_the_sample() -> None:
    machine = Machine(busy=0.93)
    assert await _checks(machine).run(["cpu"]) == "cpu: 93 % busy over 5 s, limit 80 %"
    assert machine.now == 5


async def test_memory_says_what_is_free() -> None:
    assert await _checks(Machine(memory=88)).run(["mem"]) == "mem: 88 % used (0.3 of 2.0 GiB free), limit 80 %"


async def test_exactly_at_the_limit_passes() -> None:
    assert await _checks(Machine(busy=0.8, memory=80, disk=80)).run(["cpu", "mem", "disk"]) == ""


async def test_all_that_is_wrong_is_said_at_once() -> None:
    reason = await _checks(Machine(memory=99, disk=99)).run(["disk", "mem", "disk", "gpu"])
    assert reason.count("disk:") == 1
    assert reason.count("mem:") == 1
    assert "check item 'gpu' is unknown; known are cpu, mem, disk" in reason


async def test_a_runtime_that_is_away_is_the_callers_to_wait_for() -> None:
    async def where() -> Path | None:
        raise RuntimeUnavailable("containerd does not answer")

    machine = Machine()
    checks = PreChecks(limits=Limits(), filesystem=where, machine=machine, sleep=machine.sleep)
    with pytest.raises(RuntimeUnavailable):
        await checks.run(["disk"])


def test_this_machine_has_numbers(tmp_path: Path) -> None:
    machine = ThisMachine()
    before, after = machine.cpu(), machine.cpu()
    assert 0 < before.busy <= before.total <= after.total
    assert machine.memory().total > 0
    assert machine.disk(tmp_path).total > 0
