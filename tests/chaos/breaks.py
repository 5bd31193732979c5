"""What a chaos round must notice: the product broken on purpose, one thing at a time.

    python -m tests.chaos.breaks [NAME]... [--round NAME] [--first N] [--rounds N] [--seed N] [--list]

A round in which nothing is found says something only when it would have found something had it been there. So each
`Break` is a small change of the program's text that takes away one of its promises, with the rounds that have to
notice. The runner makes a copy of the source, changes it, and plays the rounds there; of each kind it prints a JSON
line with how many of them noticed. The exit code is 1 when one of them noticed in fewer than half.

In the copy the harness waits less long for jobs that hang (`IMPATIENT`), or most breaks would take minutes a round.
That this alone makes no round find anything is what the break ``nothing`` is for, which changes no program.

A change is a text that stands exactly once in its file, and what stands there instead: when the program is rewritten,
the test beside this says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos.breaklist import BREAKS, Break, Change, Rounds

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("cloudhub", "edgehub", "shared", "tests", "pyproject.toml")
IMPATIENT: Final = (
    Change("tests/chaos/rounds.py", "HANG: Final = 90.0", "HANG: Final = 20.0"),
    Change("tests/chaos/rounds.py", "ACKNOWLEDGED: Final = 45.0", "ACKNOWLEDGED: Final = 15.0"),
    Change("tests/chaos/verdict.py", "SETTLE: Final = 60.0", "SETTLE: Final = 30.0"),
    Change("tests/chaos/edgeworld.py", "within: float = 90.0", "within: float = 30.0"),
    Change("tests/chaos/rounds.py", "timeout_seconds: int = 120", "timeout_seconds: int = 40"),
    Change("tests/chaos/edgerounds.py", "timeout_seconds: int = 120", "timeout_seconds: int = 40"),
)
"""A job that hangs is found within a minute instead of 210 s."""


def copied(to: Path, broken: Break) -> None:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, to / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / part)
    for change in (*IMPATIENT, *broken.changes):
        path = to / change.file
        path.write_text(change.applied(path.read_text()))


def play(broken: Break, rounds: Sequence[Rounds], seed: int) -> bool:
    """Prints a line for each of ``rounds``; whether all are as they should be."""
    well = True
    with tempfile.TemporaryDirectory(prefix="broken-") as folder:
        copied(Path(folder), broken)
        for kind, first, count in rounds:
            lines: list[dict[str, Any]] = []
            try:
                options = ["--seed", seed, "--only", kind, "--first", first, "--rounds", count]
                lines.extend(_played(Path(folder), options))
            finally:
                tally = _tally(broken, kind, lines)
                sys.stdout.write(json.dumps(tally) + "\n")
                sys.stdout.flush()
                well = well and as_it_should_be(broken, tally)
    return well


def _played(folder: Path, options: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Lines of the rounds that are played in this copy, as they end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *map(str, options)],
        cwd=folder,
        # Before the source that is installed: programs that the copy starts are the copy's.
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        # An interrupt is ours, and comes to it once.
        start_new_session=True,
    )
    kept: list[str] = []
    assert process.stdout is not None
    try:
        for text in process.stdout:
            line: dict[str, Any] = json.loads(text)
            kept += [line["files"]] if "files" in line else []
            yield line
    except BaseException:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.stdout.close()
        process.wait()
        for path in kept:
            shutil.rmtree(path, ignore_errors=True)


def _tally(broken: Break, kind: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    noticed = [line for line in lines if line["problems"]]
    return {
        "break": broken.name,
        "round": kind,
        "noticed": len(noticed),
        "of": len(lines),
        "seconds": round(sum(line["seconds"] for line in lines)),
        "words": {line["number"]: _words(line["problems"][0]) for line in noticed},
    }


def _words(problem: str) -> str:
    return problem.splitlines()[0][:200]


def _chosen(broken: Break, options: argparse.Namespace) -> list[Rounds]:
    rounds = broken.rounds if options.round is None else ((options.round, 0, 1),)
    return [
        (kind, first if options.first is None else options.first, count if options.rounds is None else options.rounds)
        for kind, first, count in rounds
    ]


def as_it_should_be(broken: Break, line: Mapping[str, Any]) -> bool:
    noticed, of = int(line["noticed"]), int(line["of"])
    if not broken.changes:
        return of > 0 and noticed == 0
    return of > 0 and 2 * noticed >= of


def main(arguments: Sequence[str] | None = None) -> int:
    by_name = {broken.name: broken for broken in BREAKS}
    parser = argparse.ArgumentParser(prog="tests.chaos.breaks", description="Which round notices what is broken.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    parser.add_argument("--round", help="this kind, be it of those that must notice or another")
    parser.add_argument("--first", type=int, help="number of the first round of each kind")
    parser.add_argument("--rounds", type=int, help="of each kind; by default as many as the break says")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--list", action="store_true", help="the breaks, and which rounds have to notice")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(by_name):
        parser.error(f"no break is called {', '.join(sorted(unknown))}")
    if options.list:
        sys.stdout.writelines(f"{row}\n" for row in table(BREAKS))
        return 0
    # Rounds that are interrupted are ended in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    well = [
        play(broken, _chosen(broken, options), options.seed)
        for broken in [by_name[name] for name in options.names] or BREAKS
    ]
    return int(not all(well))


def table(breaks: Iterable[Break]) -> Iterator[str]:
    """Rows as they stand in CONTRIBUTING.md; a test holds the two together."""
    yield "| break | what is taken away | who notices |"
    yield "| --- | --- | --- |"
    for broken in breaks:
        if broken.changes:
            kinds = dict.fromkeys(kind for kind, _, _ in broken.rounds)
            yield f"| {broken.name} | {broken.about} | {', '.join(kinds)} |"


if __name__ == "__main__":
    sys.exit(main())
