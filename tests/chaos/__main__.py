"""`make chaos`: one JSON line a round.

    python -m tests.chaos [--seed N] [--rounds N] [--only NAME]... [--first N] [--list] [--output FILE]

Without ``--rounds`` each kind is played as often as it says; with it, so many in all, in that proportion. What is
random in a round comes from seed, name and number (`first` is the number of the first), so ``again`` in a line plays
it again.

Standard output has the lines alone. Standard error has the plan and its seed before the first round, and after the last
one what was found, each with the options that play it again. A round ends within `ROUND_WITHIN`, whatever happens in
it; what it found, or that its world does not come up, ends neither the run nor the rounds after it. By SIGINT or
SIGTERM all processes, namespaces and small disks go, and what was found until then is listed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, Final

import structlog
import uvloop

from tests.chaos.catalogue import BY_NAME, ROUNDS
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import World, opened

ROUND_WITHIN: Final = 600.0
"""Seconds. The longest takes a minute on a machine that does nothing else; a job that hangs is found within 4."""
EXIT_OF_SIGINT: Final = 130

Planned = tuple[type[Round], int]
"""Kind and number of a round."""


@dataclass(frozen=True, slots=True)
class Game:
    """What is played, and what it found so far."""

    seed: int
    output: Path | None = None
    found: list[dict[str, Any]] = field(default_factory=list)
    """Lines of rounds with problems."""

    def tell(self, line: dict[str, Any]) -> None:
        if line["problems"]:
            self.found.append(line)
        for file in _outputs(self.output):
            file.write(json.dumps(line) + "\n")
            file.flush()


def schedule(kinds: Sequence[type[Round]], rounds: int | None, first: int) -> list[Planned]:
    """In the order of the kinds. Of few rounds, each kind has one before any has two."""
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
        async with asyncio.timeout(ROUND_WITHIN):
            await kind().play(scene)
            problems = await scene.finish()
    except Exception as error:
        problems = [f"the round broke off: {_words(error)}", *world.problems]
    if (task := asyncio.current_task()) is not None and task.cancelling():
        # Python 3.11's `asyncio.wait_for` loses an interrupt that comes together with what it waited for.
        raise asyncio.CancelledError
    more = {**world.counts, **({"requests hit": world.proxy.hits} if world.plan.proxied else {})}
    nodes = sum(len(job.nodes) for job in scene.jobs)
    return _line(kind, number, seed, begun=begun, nodes=nodes, more=more, problems=problems)


def _line(
    kind: type[Round],
    number: int,
    seed: int,
    *,
    begun: float,
    problems: Sequence[str],
    nodes: int = 0,
    more: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    return {
        "round": kind.name,
        "number": number,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        "load": round(os.getloadavg()[0], 1),
        "nodes": nodes,
        **more,
        "problems": list(problems),
        "again": f"--seed {seed} --only {kind.name} --first {number} --rounds 1",
    }


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def run(planned: Sequence[Planned], game: Game) -> None:
    mine = asyncio.current_task()
    assert mine is not None
    # As by Ctrl-C: the hub and the others are processes that would stay.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, mine.cancel)
    for _, group in groupby(planned, key=lambda entry: (entry[0].world, entry[0].plan)):
        rest = list(group)
        while rest:
            # A world in which something went wrong is left: what comes next is not to be blamed for it.
            rest = await _play_in_one_world(rest, game)


async def _play_in_one_world(planned: list[Planned], game: Game) -> list[Planned]:
    """What is left to play, in another world."""
    begun = time.monotonic()
    keep: dict[str, Path] = {}
    rest = list(planned)
    kind, number = planned[0]
    try:
        async with opened(kind.world, kind.plan, keep=keep) as world:
            while rest and len(planned) - len(rest) < kind.world.most_rounds:
                kind, number = rest.pop(0)
                line = await play(world, kind, game.seed, number)
                if line["problems"]:
                    keep["folder"] = world.folder
                    line["files"] = str(world.folder)
                game.tell(line)
                if line["problems"]:
                    break
    except Exception as error:
        # Before the first round, or after the last: the one beside it stands for it.
        problem = (
            f"the world did not come up: {_words(error)}"
            if rest == planned
            else f"the world did not end: {_words(error)}"
        )
        game.tell(_line(kind, number, game.seed, begun=begun, problems=[problem]))
        rest = rest[1:] if rest == planned else rest
    return rest


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
    planned = schedule(kinds, options.rounds, options.first)
    _tell_plan(planned, seed)
    game = Game(seed=seed, output=options.output)
    code = 0
    try:
        uvloop.run(run(planned, game))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.stderr.write("ended before its time\n")
        code = EXIT_OF_SIGINT
    _tell_found(game)
    return code or int(bool(game.found))


def _tell_plan(planned: Sequence[Planned], seed: int) -> None:
    counts = Counter(kind.name for kind, _ in planned)
    kinds = ", ".join(f"{count} {name}" for name, count in counts.items())
    sys.stderr.write(f"{len(planned)} rounds of seed {seed}: {kinds}\n")
    sys.stderr.flush()


def _tell_found(game: Game) -> None:
    if game.found:
        sys.stderr.write(f"{len(game.found)} rounds found something:\n")
    for line in game.found:
        first, more = line["problems"][0].splitlines()[0][:300], len(line["problems"]) - 1
        sys.stderr.write(f"  {line['again']}\n    {first}{f' (and {more} more)' if more else ''}\n")
        if "files" in line:
            sys.stderr.write(f"    files: {line['files']}\n")


if __name__ == "__main__":
    sys.exit(main())
