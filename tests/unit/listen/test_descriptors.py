"""How many may wait, by the descriptors that there are."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from cloudhub import health
from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.descriptors import API_SHARE, LEAST_WAITING, RESERVE, bounded, bounded_api
from cloudhub.standalone.server import LIMITS


@pytest.mark.parametrize(
    ("descriptors", "sessions", "waiting"),
    [
        (1 << 20, 10_000, AcceptLimits().waiting),
        (20_000, 1000, (20_000 - RESERVE - 20_000 // API_SHARE - 1000) // 2 - AcceptLimits().running),
        (1024, 1000, LEAST_WAITING),
    ],
)
def test_what_may_wait_fits_beside_the_sessions(descriptors: int, sessions: int, waiting: int) -> None:
    found = bounded(AcceptLimits(), descriptors=descriptors, sessions=sessions, servers=2)
    assert found.waiting == waiting
    assert found.waiting_per_address == min(waiting, AcceptLimits().waiting_per_address)
    if waiting > LEAST_WAITING:
        api = bounded_api(LIMITS, descriptors=descriptors).waiting
        assert 2 * (found.waiting + found.running) + api + sessions + RESERVE <= descriptors


@pytest.mark.parametrize(("descriptors", "waiting"), [(1 << 20, LIMITS.waiting), (1600, 200), (256, LEAST_WAITING)])
def test_what_waits_at_the_embedded_api_is_a_share_of_them(descriptors: int, waiting: int) -> None:
    found = bounded_api(LIMITS, descriptors=descriptors)
    assert found == replace(LIMITS, waiting=waiting, waiting_per_address=min(waiting, LIMITS.waiting_per_address))


def test_the_reserve_holds_whoever_may_be_at_the_metrics_and_begin_at_the_api() -> None:
    assert health.LIMITS.running + health.LIMITS.waiting + LIMITS.running + 256 <= RESERVE


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
