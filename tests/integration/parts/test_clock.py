"""What a process sees of a clock that is off."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.parts.clock import Clock

_TELL = """
import asyncio, json, sys, time, uvloop
async def main():
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"time": time.time(), "monotonic": time.monotonic(), "loop": loop.time()}), flush=True)
uvloop.run(main())
"""


async def _ask(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


async def test_it_is_off_both_ways_and_may_be_set_while_the_process_runs(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", -3600)
    process = await asyncio.create_subprocess_exec(
        *clock.command([sys.executable, "-c", _TELL]), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        first = await _ask(process)
        assert -3605 < first["time"] - time.time() < -3595
        clock.offset = 3600
        async with asyncio.timeout(60):
            while True:
                now = await _ask(process)
                if now["time"] > time.time():
                    break
                await asyncio.sleep(0.1)
        assert 3595 < now["time"] - time.time() < 3605
        for clock_name in ("monotonic", "loop"):
            assert 0 <= now[clock_name] - first[clock_name] < 60
            assert abs(now[clock_name] - time.monotonic()) < 60
    finally:
        process.kill()
        await process.wait()
