"""The hub's sessions without what lies behind them: a `SessionServer` in a process of its own, told what to do by
`tests.bench.lines`. It is asked the same as `tests.bench.ceiling`, and stores as little.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from cloudhub.metrics import Metrics
from cloudhub.pki.ca import utc_now
from cloudhub.pki.contexts import server_context
from cloudhub.sessions.server import SessionServer
from cloudhub.taskmanager.ports import SessionInfo
from shared import wire
from tests.bench import lines
from tests.bench.identities import load_ca


class Transport:
    """A `cloudhub.taskmanager.ports.SessionListener`."""

    def __init__(self, folder: Path) -> None:
        ca = load_ca(folder)
        identity = ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
        self._context = server_context(ca, identity, client_certificates=ssl.CERT_REQUIRED)
        self._server: SessionServer
        self._waited_for = 0
        self._all_reported = asyncio.Event()

    def session_opened(self, session: SessionInfo) -> None:
        pass

    def session_closed(self, session: SessionInfo) -> None:
        pass

    async def messages_received(self, session: SessionInfo, messages: Sequence[wire.Message]) -> None:
        for message in messages:
            if message.route.operation == wire.Operation.REPORT and message.content["action"] == "Pull":
                self._waited_for -= 1
                if not self._waited_for:
                    self._all_reported.set()

    async def listen(self) -> dict[str, Any]:
        # Not before: its clock begins here.
        self._server = SessionServer(
            host="127.0.0.1",
            port=0,
            ssl_context=self._context,
            metrics=Metrics(),
            listener=self,
            node_limit=100_000,
        )
        await self._server.start()
        return {"port": self._server.port}

    async def run(self, *, job: str, image: str) -> dict[str, Any]:
        """One job on all nodes."""
        self._all_reported.clear()
        nodes = tuple(self._server.connected())
        self._waited_for = len(nodes)
        begun, used = time.monotonic(), time.process_time()
        template = {"images": [image], "checkItems": ["disk"]}
        extras = {"job_uid": "5b6d6b3c-3d1f-4c58-9a2c-5a4f6a0b7f6e", "attempt": 1, "timeout_seconds": 300}
        for number, node in enumerate(nodes):
            message = wire.new_message(
                source=wire.Source.TASK_MANAGER,
                group=wire.Group.TASK_MANAGER,
                resource=wire.task_resource(job, node),
                operation=wire.Operation.CHECK,
                content={"imagePrePullTemplate": template, "task": extras},
            )
            assert self._server.send(node, message)
            if number % 200 == 199:
                # As the scheduler does: others get their turn.
                await asyncio.sleep(0)
        await self._all_reported.wait()
        return {"seconds": time.monotonic() - begun, "cpu": time.process_time() - used}


async def main(folder: Path) -> None:
    # Standard output is the master's.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    transport = Transport(folder)
    await lines.serve({"listen": transport.listen, "run": transport.run})


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
