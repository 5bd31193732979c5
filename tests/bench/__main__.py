"""`make bench`: every case one JSON line, then a table. `--quick`: 1,000 nodes, for the invariants alone.

    python -m tests.bench [--case NAME]... [--idle-minutes 10] [--quick] [--output FILE]

The exit code is 1 when an invariant is broken, which no slow machine excuses; a figure that was missed is in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
import uvloop
from rich.console import Console

from tests.bench import cases, report
from tests.bench.cases import Record

Case = Callable[[], Awaitable[Record]]


def every_case(idle_minutes: float) -> dict[str, Case]:
    return {
        "1000-nodes-2s": lambda: cases.one_job(1_000, 2.0),
        "1000-nodes": lambda: cases.one_job(1_000, 0.0),
        # The two that are compared, one after the other: machines become slower and faster by the minute.
        "ceiling": lambda: cases.ceiling(10_000),
        report.BIG: lambda: cases.one_job(10_000, 0.0),
        "100-jobs": lambda: cases.many_jobs(100, 100),
        "restart": lambda: cases.restart(10_000),
        "idle": lambda: cases.idle(20_000, idle_minutes),
    }


def quick_cases() -> dict[str, Case]:
    return {
        "quick": lambda: cases.one_job(1_000, 0.0),
        "quick-jobs": lambda: cases.many_jobs(10, 100, 0.1),
        "quick-restart": lambda: cases.restart(300, 1.0),
    }


async def run(chosen: dict[str, Case], output: Path | None) -> dict[str, Record]:
    """The records, each also printed as it comes."""
    mine = asyncio.current_task()
    assert mine is not None
    # As by Ctrl-C: the hub and the others are processes that would stay.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, mine.cancel)
    records: dict[str, Record] = {}
    for name, case in chosen.items():
        load = os.getloadavg()[0]
        record = {"case": name, **await case(), "load_before": load}
        records[name] = {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()}
        line = json.dumps(records[name]) + "\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        if output is not None:
            with output.open("a") as file:
                file.write(line)
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench", description="What the hub costs, and that it loses nothing.")
    parser.add_argument("--case", action="append", choices=sorted(every_case(10)), help="only this; may be repeated")
    parser.add_argument("--idle-minutes", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="1,000 nodes, for the invariants alone")
    parser.add_argument("--output", type=Path, help="append the JSON lines to this file too")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    chosen = quick_cases() if options.quick else every_case(options.idle_minutes)
    if options.case:
        chosen = {name: case for name, case in chosen.items() if name in options.case}
    records = uvloop.run(run(chosen, options.output))
    if not options.quick:
        report.show(records, Console())
    problems = [
        f"{name}: {problem}"
        for name, record in records.items()
        if "ended" in record
        for problem in cases.broken(record)
    ]
    for problem in problems:
        sys.stderr.write(f"broken: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
