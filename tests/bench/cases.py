"""What is measured: each case with a hub, an API server and edges of its own, so that none inherits another's memory.

A case gives one flat record, which is its JSON line. `tests.bench.report` holds the records against what is to be
reached; nothing here judges but `broken`, the invariants that hold on any machine however slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from tests.bench.hub import IMAGE, Hub, settled
from tests.bench.identities import create_ca
from tests.bench.lines import Worker

Record = dict[str, Any]

SPARE_DESCRIPTORS: Final = 1400
"""Of the hub, beside its sessions: with fewer it lets hardly anybody wait at its door."""
MAX_OBJECT: Final = 400_000
EDGES: Final = "tests.bench.edges"


def usable_sessions(wanted: int) -> tuple[int, str]:
    """As many as one process may have descriptors for, and what to say when that is less than ``wanted``. Raises this
    process's limit, and with it that of those that it starts, to what the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted + SPARE_DESCRIPTORS
    for limits in ((goal, max(goal, hard)), (hard, hard)):
        if soft >= goal:
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft >= goal:
        return wanted, ""
    usable = soft - SPARE_DESCRIPTORS
    return usable, f"RLIMIT_NOFILE (ulimit -Hn) is {hard}: {usable} sessions instead of {wanted}"


@contextlib.asynccontextmanager
async def connected(
    nodes: int, *, delay: float = 0.0, ack: bool = False
) -> AsyncIterator[tuple[Hub, Worker, list[str], Record]]:
    """A hub and its nodes, with the record that it begins."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        usable, note = usable_sessions(nodes)
        hub = Hub(folder, node_limit=usable)
        async with hub.running(), Worker(EDGES, hub.pki, log=folder / "edges.log") as edges:
            names = (await edges.ask("prepare", count=usable))["nodes"]
            idle = await settled(hub)
            used = hub.cpu()
            answer = await edges.ask("connect", port=hub.port, delay=delay, ack=ack)
            record: Record = {"nodes": usable, "connect_s": answer["seconds"], "connect_cpu_s": hub.cpu() - used}
            if note:
                record["note"] = note
            record["rss_idle_mb"] = idle
            record["rss_connected_mb"] = await settled(hub)
            record["session_kb"] = 1000 * (record["rss_connected_mb"] - idle) / usable
            yield hub, edges, names, record


async def one_job(nodes: int, delay: float) -> Record:
    async with connected(nodes, delay=delay) as (hub, edges, names, record):
        used = hub.cpu()
        await hub.create_job("job", names)
        await hub.until_ended("job")
        cpu = hub.cpu() - used
        seen = hub.jobs["job"]
        record |= {
            "seconds": seen.ended - seen.created - 2 * delay,
            "edges_delay_s": 2 * delay,
            "hub_cpu_s": cpu,
            "tasks_per_cpu_s": len(names) / cpu,
            "rss_after_mb": hub.resident(),
        }
        await _observe(hub, edges, record)
        return record


async def ceiling(nodes: int) -> Record:
    """The bare transport, the median of three jobs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        create_ca(folder / "pki")
        usable, _ = usable_sessions(nodes)
        async with (
            Worker("tests.bench.ceiling", folder / "pki", log=folder / "ceiling.log") as server,
            Worker(EDGES, folder / "pki", log=folder / "edges.log") as edges,
        ):
            await edges.ask("prepare", count=usable)
            port = (await server.ask("listen"))["port"]
            idle = psutil.Process(server.pid).memory_info().rss
            answer = await edges.ask("connect", port=port)
            memory = psutil.Process(server.pid).memory_info().rss - idle
            runs = [await server.ask("run", job=f"job-{number}", image=IMAGE) for number in range(3)]
    run = sorted(runs, key=lambda found: float(found["cpu"]))[1]
    return {
        "nodes": usable,
        "connect_s": answer["seconds"],
        "session_kb": memory / 1000 / usable,
        "seconds": run["seconds"],
        "hub_cpu_s": run["cpu"],
        "tasks_per_cpu_s": usable / run["cpu"],
    }


async def restart(nodes: int, delay: float = 5.0) -> Record:
    """The hub is killed while all nodes pull, and started again; what they end meanwhile they tell it afterwards.

    They come back as soon as it listens, all at once: harder on the hub than EdgeCores, which wait for 30 s first, and
    than our agents, which spread over some seconds. The job ends when the last one is back."""
    async with connected(nodes, delay=delay, ack=True) as (hub, edges, names, record):
        await hub.create_job("job", names)
        await asyncio.sleep(1.5 * delay)
        killed = time.monotonic()
        await hub.kill_and_start()
        record["ready_again_s"] = time.monotonic() - killed
        record["back_s"] = (await edges.ask("back"))["seconds"]
        await hub.until_ended("job")
        seen = hub.jobs["job"]
        record |= {"seconds": seen.ended - seen.created - 2 * delay, "edges_delay_s": 2 * delay}
        record["rss_after_mb"] = hub.resident()
        await _observe(hub, edges, record)
        return record


async def many_jobs(jobs: int, nodes: int, delay: float = 2.0) -> Record:
    """Jobs that come at once, each of nodes of its own."""
    async with connected(jobs * nodes, delay=delay) as (hub, edges, names, record):
        used, begun = hub.cpu(), time.monotonic()
        wanted = [(f"job-{number:03}", names[number * nodes : (number + 1) * nodes]) for number in range(jobs)]
        await asyncio.gather(*(hub.create_job(name, mine) for name, mine in wanted))
        await hub.until_ended(*(name for name, _ in wanted))
        ends = [seen.ended - begun for seen in hub.jobs.values()]
        cpu = hub.cpu() - used
        record |= {
            "jobs": jobs,
            "seconds": max(ends) - 2 * delay,
            "edges_delay_s": 2 * delay,
            "first_end_s": min(ends),
            "last_end_s": max(ends),
            "spread": (max(ends) - min(ends)) / max(ends),
            "hub_cpu_s": cpu,
            "tasks_per_cpu_s": jobs * nodes / cpu,
            "rss_after_mb": hub.resident(),
        }
        await _observe(hub, edges, record)
        return record


async def idle(nodes: int, minutes: float) -> Record:
    async with connected(nodes) as (hub, edges, _names, record):
        used, begun = hub.cpu(), time.monotonic()
        most = least = hub.resident()
        while time.monotonic() - begun < 60 * minutes:
            await asyncio.sleep(min(5.0, 60 * minutes))
            most, least = max(most, hub.resident()), min(least, hub.resident())
        seconds = time.monotonic() - begun
        record |= {
            "minutes": seconds / 60,
            "core_share": (hub.cpu() - used) / seconds,
            "rss_after_mb": hub.resident(),
            "rss_growth": most / least - 1,
            **{key: value for key, value in (await edges.ask("counts")).items() if key in ("open", "lost")},
            **await hub.stall(),
        }
        return record


async def _observe(hub: Hub, edges: Worker, record: Record) -> None:
    """What holds for all cases with jobs: writes, sizes, gaps, stalls, and what the nodes saw."""
    jobs = hub.jobs
    gaps = [seen.longest_gap((await edges.ask("reports", job=name))["times"]) for name, seen in jobs.items()]
    record |= {
        "ended": sum(seen.ended > 0 for seen in jobs.values()) == len(jobs),
        "successful": all(seen.state == "Successful" for seen in jobs.values()),
        "writes": max(seen.writes for seen in jobs.values()),
        "writes_over": max(seen.writes - 3 - (seen.ended - seen.created) for seen in jobs.values()),
        "object_bytes": max(seen.largest for seen in jobs.values()),
        "gap_s": max(gaps),
        **await hub.stall(),
        **await edges.ask("counts"),
    }


def broken(record: Mapping[str, Any]) -> list[str]:
    """Invariants that do not hold; of times there are none."""
    problems = {
        "a job did not end": record["ended"],
        "a job did not succeed": record["successful"],
        f"{record['dispatched']} of {record['nodes']} nodes were asked": record["dispatched"] == record["nodes"],
        f"{record['twice']} node tasks were asked twice": record["twice"] == 0 or "back_s" in record,
        f"{record['pulled_twice']} pulls were done twice": record["pulled_twice"] == 0,
        # With the hub that is killed each session once, and with one that goes on none.
        f"{record['lost']} sessions were lost": record["lost"] == (record["nodes"] if "back_s" in record else 0),
        # One more a job for the second that had begun.
        f"{record['writes']} writes of a job's object": record["writes_over"] <= 1,
        f"an object of {record['object_bytes']} bytes": record["object_bytes"] < MAX_OBJECT,
    }
    return [problem for problem, holds in problems.items() if not holds]
