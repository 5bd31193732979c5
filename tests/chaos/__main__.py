"""`make chaos`: one JSON line a round.

    python -m tests.chaos [--seed N] [--rounds N] [--only NAME]... [--first N] [--list] [--output FILE]

Without ``--rounds`` each kind is played as often as it says; with it, so many in all, in that proportion. What is
random in a round comes from seed, name and number (`first` is the number of the first), so ``again`` in a line plays
it again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import structlog
import uvloop

from tests.chaos.catalogue import BY_NAME, ROUNDS
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import World, opened


def schedule(kinds: Sequence[type[Round]], rounds: int | None, first: int) -> list[tuple[type[Round], int]]:
    """Kind and number of each round, in the order of the kinds. Of few rounds, each kind has one before any has two."""
    wanted = {kind: kind.times if rounds is None else 0 for kind in kinds}
    for _ in range(rounds or 0):
        # max gives the first of equals, and a kind that has none yet comes before all that have one.
        kind = max(kinds, key=lambda kind: (wanted[kind] == 0, kind.times / (wanted[kind] + 1)))
        wanted[kind] += 1
    return [(kind, first + number) for kind in kinds for number in range(wanted[kind])]


async def play(world: World, kind: type[Round], seed: int, number: int) -> dict[str, Any]:
    """The round's line."""
    random = Random(f"{seed}/{kind.name}/{number}")
    begun = time.monotonic()
    world.begin_round()
    scene = Scene(world=world, random=random, label=f"{kind.name}-{number}", number=number)
    problems: list[str] = []
    try:
        await kind().play(scene)
        problems = await scene.finish()
    except Exception as error:
        problems = [f"the round broke off: {type(error).__name__}: {error}", *world.problems]
    return {
        "round": kind.name,
        "number": number,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        "load": round(os.getloadavg()[0], 1),
        "nodes": sum(len(job.nodes) for job in scene.jobs),
        **world.counts,
        **({"requests hit": world.proxy.hits} if world.plan.proxied else {}),
        "problems": problems,
        "again": f"--seed {seed} --only {kind.name} --first {number} --rounds 1",
    }


async def run(planned: Sequence[tuple[type[Round], int]], seed: int, output: Path | None) -> int:
    """How many rounds found something."""
    mine = asyncio.current_task()
    assert mine is not None
    # As by Ctrl-C: the hub and the others are processes that would stay.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, mine.cancel)
    found = 0
    for _, group in groupby(planned, key=lambda entry: (entry[0].world, entry[0].plan)):
        rest = list(group)
        while rest:
            # A world in which something went wrong is left: what comes next is not to be blamed for it.
            rest, broken = await _play_in_one_world(rest, seed, output)
            found += broken
    return found


async def _play_in_one_world(
    planned: list[tuple[type[Round], int]], seed: int, output: Path | None
) -> tuple[list[tuple[type[Round], int]], int]:
    kind, _ = planned[0]
    keep: dict[str, Path] = {}
    async with opened(kind.world, kind.plan, keep=keep) as world:
        for position, (kind, number) in enumerate(planned):
            line = await play(world, kind, seed, number)
            if line["problems"]:
                keep["folder"] = world.folder
                line["files"] = str(world.folder)
            for file in _outputs(output):
                file.write(json.dumps(line) + "\n")
                file.flush()
            if line["problems"]:
                return planned[position + 1 :], 1
    return [], 0


def _outputs(output: Path | None) -> Iterator[Any]:
    yield sys.stdout
    if output is not None:
        with output.open("a") as file:
            yield file


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description="Faults at random moments, and what they broke.")
    parser.add_argument("--seed", type=int, help="of all that is random; by default another one each time")
    parser.add_argument("--rounds", type=int, help="in all; by default as many of each kind as --list says")
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME), help="only this kind; may be repeated")
    parser.add_argument("--first", type=int, default=0, help="number of the first round of each kind")
    parser.add_argument("--list", action="store_true", help="the kinds, and how often each is played")
    parser.add_argument("--output", type=Path, help="append the lines to this file too")
    options = parser.parse_args(arguments)
    if options.list:
        for kind in ROUNDS:
            sys.stdout.write(f"{kind.times:4} {kind.name:28} {kind.about}\n")
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    kinds = [kind for kind in ROUNDS if not options.only or kind.name in options.only]
    try:
        found = uvloop.run(run(schedule(kinds, options.rounds, options.first), seed, options.output))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.stderr.write("ended before its time\n")
        return 130
    if found:
        sys.stderr.write(f"{found} rounds found something\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
