"""Ports for servers that tests start, on a machine where other tests run at the same time."""

from __future__ import annotations

import random
import subprocess
import sys

from tests.parts.registry import free_port

ASK = "import random; random.seed({seed}); from tests.parts.registry import free_port; print(free_port())"


def asked_by_another_process(seed: int) -> int:
    return int(subprocess.run([sys.executable, "-c", ASK.format(seed=seed)], check=True, capture_output=True).stdout)


def test_a_port_is_given_to_one_process_only_also_while_nobody_listens_there() -> None:
    seed = random.randrange(1 << 30)  # other runs of this test are none of its business
    state = random.getstate()
    try:
        random.seed(seed)
        mine = free_port()
    finally:
        random.setstate(state)
    assert asked_by_another_process(seed) != mine
    # Who has ended needs it no more.
    assert asked_by_another_process(seed + 1) == asked_by_another_process(seed + 1)
