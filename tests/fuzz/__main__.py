"""``make fuzz``: every target for longer, from another seed each time, and what was run.

    make fuzz ARGS="--examples 20000 --target message --target manifest --seed 7"
    make fuzz ARGS="--minutes 5"              at least so many minutes a target
    make fuzz ARGS="--coverage --minutes 5"   with atheris, which follows the branches that it meets

Printed are the inputs of each target, how many were taken and refused, and by how much memory grew over them; and of
what is found the error, the seed and a small input that brings it back.
"""

from __future__ import annotations

import argparse
import logging
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog

from tests.fuzz import all_targets
from tests.fuzz.run import Broken, run_target
from tests.fuzz.target import Target, check


def main() -> int:
    options = _options()
    # Each refusal is a line in the log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    chosen = [target for target in all_targets() if not options.target or target.name in options.target]
    unknown = set(options.target or ()) - {target.name for target in chosen}
    if unknown:
        sys.exit(f"no such target: {', '.join(sorted(unknown))}")
    if options.coverage:
        return _with_coverage(chosen, options.minutes or 1.0)
    found = [_run(target, options) for target in chosen]
    _say(f"{sum(found)} of {len(found)} targets broke their promise")
    return 1 if any(found) else 0


def _run(target: Target, options: argparse.Namespace) -> bool:
    if options.input is not None:
        with target.open() as feed:
            _say(f"{target.name}: {'taken' if check(target, feed, options.input.read_bytes()) else 'refused'}")
        return False
    started = time.monotonic()
    try:
        runs = run_target(
            target,
            examples=max(20, options.examples // target.cost),
            seconds=max(1.0, 60 * options.minutes),
            number=options.seed,
        )
    except Broken as broken:
        traceback.print_exception(broken.__cause__)
        found = Path(tempfile.gettempdir(), f"fuzz-{target.name}-{options.seed}")
        found.write_bytes(broken.data)
        _say(f"{target.name}: BROKEN, seed {options.seed}, by {broken}; --input {found} feeds it again")
        return True
    seconds = time.monotonic() - started
    _say(
        f"{target.name:20} {runs.total:9,} runs  {runs.taken:9,} taken  {runs.refused:9,} refused  {seconds:7.1f} s"
        f"  {runs.grown_kib / 1024:+6.1f} MiB"
    )
    return False


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _with_coverage(targets: list[Target], minutes: float) -> int:
    """Each in a process of its own: atheris never returns."""
    worst = 0
    for target in targets:
        command = [sys.executable, "-m", "tests.fuzz.coverage_guided", target.name, str(int(60 * minutes))]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Feed every way in with bad input.")
    parser.add_argument("--target", action="append", help="one of them (repeatable); all otherwise")
    parser.add_argument("--examples", type=int, default=5000, help="inputs of a pure parser; dearer targets get fewer")
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long a target")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--input", type=Path, help="feed the target this file, once")
    parser.add_argument("--coverage", action="store_true", help="with atheris (pip install atheris)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
