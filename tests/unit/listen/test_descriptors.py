"""How many may wait, by the descriptors that there are."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.descriptors import LEAST_WAITING, RESERVE, bounded


@pytest.mark.parametrize(
    ("descriptors", "sessions", "waiting"),
    [
        (1 << 20, 10_000, AcceptLimits().waiting),
        (20_000, 1000, (20_000 - RESERVE - 1000) // 2 - AcceptLimits().running),
        (1024, 1000, LEAST_WAITING),
    ],
)
def test_what_may_wait_fits_beside_the_sessions(descriptors: int, sessions: int, waiting: int) -> None:
    found = bounded(AcceptLimits(), descriptors=descriptors, sessions=sessions, servers=2)
    assert found.waiting == waiting
    assert found.waiting_per_address == min(waiting, AcceptLimits().waiting_per_address)
    if waiting > LEAST_WAITING:
        assert 2 * (found.waiting + found.running) + sessions + RESERVE <= descriptors


def test_the_process_takes_all_that_the_system_allows() -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 5000)
    code = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard}))\n"
        "from cloudhub.listen.descriptors import raise_limit\n"
        "print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(hard), str(hard)]
