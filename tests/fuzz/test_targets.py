"""A short run of every target, the same one each time; ``make fuzz`` goes on from here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest
import structlog

from tests.fuzz import all_targets
from tests.fuzz.mutation import one_wrong_each
from tests.fuzz.run import run_target
from tests.fuzz.target import Target

EXAMPLES = 500
HEALS = ("journal", "api-list", "api-watch")
"""Whatever they are given, they go on, and raise nothing."""
SEVERAL = ("hubs-certificates", "container-runtime", "registry-http")
"""One answer to several questions: each answer is taken by one of them, none by all."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Each refusal is a line in the log; of a failure here the input is what matters."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_what_no_honest_peer_sends_is_taken_or_refused_in_clear_words(target: Target) -> None:
    runs = run_target(target, examples=max(10, EXAMPLES // target.cost), number=1)
    assert runs.taken > 0 or target.name in SEVERAL
    assert runs.refused > 0 or not target.errors or target.name in HEALS


NAMES_ITS_PLACE = ("cloudcore.yaml", "edgecore.yaml", "job-spec")
"""What people write: who is told that it is wrong must be told where."""


@pytest.mark.parametrize("name", NAMES_ITS_PLACE)
def test_what_people_write_wrongly_is_refused_by_its_name(name: str) -> None:
    target = next(target for target in all_targets() if target.name == name)
    silent: list[str] = []
    with target.open() as feed:
        for data, path in one_wrong_each(Random(1), target.samples, most=150):
            try:
                feed(data)
            except target.errors as error:
                if not any(key in str(error) for key in path):
                    silent.append(f"{'.'.join(path)}: {error}")
    assert silent == []
