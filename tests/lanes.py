"""How pytest-xdist's workers share the tests: a file at a time, from both ends of the list.

Problem: half of the gate's time goes to tests that start processes and wait for them, which stand first in the list
(`bench`, `chaos`, `e2e`); the other half to tests that compute. Shared out evenly, one worker would measure while the
other kills hubs; and parts that a folder starts once (containerd, a registry, a hub) would be started by each worker.

So the first worker goes through the files from the front, all others from the back, until they meet. Neighbours stay
together, and so do what they share; a file's tests run in one process, in the order that they stand in. What no order
can keep apart, since it runs at the same moment, must not be of the machine alone: ports are claimed
(`tests.parts.registry.free_port`), folders, network addresses and namespaces have names of their own.

It holds for ``pytest -n 2``, which `make test` calls; another ``--dist`` than xdist's default is left to xdist, and
without ``-n`` nothing of this is used.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling
from xdist.workermanage import WorkerController


class FromBothEnds(LoadScopeScheduling):
    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # xdist's: the files with the most tests first

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return FromBothEnds(config, log) if config.getvalue("dist") == "load" else None
