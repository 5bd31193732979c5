"""The checks before a pull: cpu, mem, disk, each against a limit, each failure with its numbers.

Problem: KubeEdge's checks look at one 100 ms sample of the processor and at filesystems that hold no images, so busy or
Ubuntu nodes fail for nothing.

Guarantee: cpu is averaged over some seconds; disk is the filesystem that the runtime says holds the images; the reason
names what was measured and the limit. A check item of an unknown name fails, and the reason lists the known ones.

Not here: how much a pull will need. The built-in store checks that against the manifest before the first byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.jobs import CheckItem

_GIB = 1 << 30
_STAT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since boot, over all processors."""

    busy: float
    total: float


@dataclass(frozen=True, slots=True)
class Space:
    percent_used: float
    available: int
    total: int


class Machine(Protocol):
    def cpu(self) -> CpuTimes: ...
    def memory(self) -> Space: ...
    def disk(self, path: Path) -> Space:
        """Raises OSError."""
        ...


class ThisMachine:
    """psutil costs 1 MB and most jobs ask for disk alone, so it is imported when cpu or memory are asked for."""

    def cpu(self) -> CpuTimes:
        import psutil

        times = psutil.cpu_times()
        # guest is counted in user already; waiting for a disk is not work.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return CpuTimes(busy=total - times.idle - getattr(times, "iowait", 0.0), total=total)

    def memory(self) -> Space:
        import psutil

        memory = psutil.virtual_memory()
        return Space(percent_used=memory.percent, available=memory.available, total=memory.total)

    def disk(self, path: Path) -> Space:
        # As `df` counts: what is kept back for root is neither used nor available.
        stats = os.statvfs(path)
        used = (stats.f_blocks - stats.f_bfree) * stats.f_frsize
        available = stats.f_bavail * stats.f_frsize
        percent = 100.0 * used / (used + available) if used + available else 0.0
        return Space(percent_used=percent, available=available, total=stats.f_blocks * stats.f_frsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Percent."""

    cpu: float = 80.0
    mem: float = 80.0
    disk: float = 80.0


class PreChecks:
    """``filesystem`` asks the runtime where the images are; what it raises passes through `run`."""

    def __init__(
        self,
        *,
        limits: Limits,
        filesystem: Callable[[], Awaitable[Path | None]],
        machine: Machine,
        cpu_sample: float = 5.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits = limits
        self._filesystem = filesystem
        self._machine = machine
        self._cpu_sample = cpu_sample
        self._sleep = sleep

    async def run(self, items: Sequence[str]) -> str:
        """Empty when all is well, else the reasons of all that is not."""
        checks: dict[str, Callable[[], Awaitable[str]]] = {
            CheckItem.CPU: self._cpu,
            CheckItem.MEM: self._mem,
            CheckItem.DISK: self._disk,
        }
        problems: list[str] = []
        for name in dict.fromkeys(items):
            check = checks.get(name)
            problem = await check() if check else f"check item {name[:64]!r} is unknown; known are cpu, mem, disk"
            if problem:
                problems.append(problem)
        return "; ".join(problems)

    async def _cpu(self) -> str:
        before = self._machine.cpu()
        await self._sleep(self._cpu_sample)
        after = self._machine.cpu()
        elapsed = after.total - before.total
        percent = 100.0 * (after.busy - before.busy) / elapsed if elapsed > 0 else 0.0
        if percent <= self._limits.cpu:
            return ""
        return f"cpu: {percent:.0f} % busy over {self._cpu_sample:g} s, limit {self._limits.cpu:g} %"

    async def _mem(self) -> str:
        memory = self._machine.memory()
        if memory.percent_used <= self._limits.mem:
            return ""
        return f"mem: {memory.percent_used:.0f} % used ({_free(memory)}), limit {self._limits.mem:g} %"

    async def _disk(self) -> str:
        path = await self._filesystem() or Path("/")
        try:
            # In a thread and bounded: statvfs on a dead network mount never returns.
            async with asyncio.timeout(_STAT_TIMEOUT):
                space = await asyncio.to_thread(self._machine.disk, path)
        except TimeoutError:
            return f"disk: {path} does not answer"
        except OSError as error:
            return f"disk: {path} cannot be read: {error.strerror}"
        if space.percent_used <= self._limits.disk:
            return ""
        return f"disk: {path} is {space.percent_used:.0f} % used ({_free(space)}), limit {self._limits.disk:g} %"


def _free(space: Space) -> str:
    return f"{space.available / _GIB:.1f} of {space.total / _GIB:.1f} GiB free"
