"""Runs a target with hypothesis: its samples first, which must be taken, then what was made of them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutation import inputs
from tests.fuzz.target import Target, bounded_memory, check


@dataclass(slots=True)
class Runs:
    taken: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        return self.taken + self.refused


def run_target(target: Target, *, examples: int, number: int | None = None) -> Runs:
    """``number``: a seed; without it every run is the same. What is found comes out as its own error, with the smallest
    input that hypothesis knows of."""
    runs = Runs()
    with target.open() as feed, bounded_memory(target):
        for sample in target.samples:
            _count(runs, check(target, feed, sample))

        def one(data: bytes) -> None:
            _count(runs, check(target, feed, data))

        test = given(data=inputs(target))(one)
        test = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=number is None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(test)
        if number is not None:
            test = seed(number)(test)
        test()
    return runs


def _count(runs: Runs, taken: bool) -> None:
    if taken:
        runs.taken += 1
    else:
        runs.refused += 1
