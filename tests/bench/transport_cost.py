"""What a node task costs the hub's sessions alone, and a bare websockets server: run by hand, prints two lines.

    python -m tests.bench.transport_cost [--nodes 2000] [--jobs 20]

The same edges as in `make bench`, over real mutual TLS; one message down and two up a node task. With so few nodes the
processor's caches hold more than in the cases of 10,000: compare the lines with each other, not with those.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.bench.cases import EDGES, usable_sessions
from tests.bench.hub import IMAGE
from tests.bench.identities import create_ca
from tests.bench.lines import Worker

SERVERS = ("tests.bench.ceiling", "tests.bench.transport")


async def measure(module: str, nodes: int, jobs: int) -> list[float]:
    """Microseconds of processor time a node task, of each job."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        create_ca(folder / "pki")
        usable, _ = usable_sessions(nodes)
        async with (
            Worker(module, folder / "pki", log=folder / "server.log") as server,
            Worker(EDGES, folder / "pki", log=folder / "edges.log") as edges,
        ):
            await edges.ask("prepare", count=usable)
            await edges.ask("connect", port=(await server.ask("listen"))["port"])
            runs = [await server.ask("run", job=f"job-{number}", image=IMAGE) for number in range(jobs)]
    return [1e6 * float(run["cpu"]) / usable for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=20)
    options = parser.parse_args()
    for module in SERVERS:
        found = uvloop.run(measure(module, options.nodes, options.jobs))
        sys.stdout.write(f"{module:22} best {min(found):4.0f}  median {statistics.median(found):4.0f} us a node task\n")


if __name__ == "__main__":
    main()
