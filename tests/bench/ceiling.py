"""What the transport alone can do: a bare websockets server on uvloop with mutual TLS and JSON, which stores nothing.

It sends each node one dispatch and reads its two reports, the same messages as the hub's, so that the hub's figures can
be told as a share of these, on any machine. It checks nothing beyond what TLS does. Told what to do by
`tests.bench.lines`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.server import Server, ServerConnection, serve

from cloudhub.pki.ca import utc_now
from cloudhub.pki.contexts import server_context
from shared import wire
from tests.bench import lines
from tests.bench.identities import load_ca


class Ceiling:
    def __init__(self, folder: Path) -> None:
        ca = load_ca(folder)
        identity = ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
        self._context = server_context(ca, identity, client_certificates=ssl.CERT_REQUIRED)
        self._server: Server
        self._sessions: dict[str, ServerConnection] = {}
        self._waited_for = 0
        self._all_reported = asyncio.Event()

    async def listen(self) -> dict[str, Any]:
        self._server = await serve(
            self._session, "127.0.0.1", 0, ssl=self._context, compression=None, ping_interval=None, open_timeout=None,
            backlog=4096,
        )  # fmt: skip
        return {"port": next(iter(self._server.sockets)).getsockname()[1]}

    async def _session(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self._sessions[connection.request.headers[wire.HEADER_NODE_ID]] = connection
        async for frame in connection:
            message = json.loads(frame)
            if message["route"]["operation"] == wire.Operation.REPORT and message["content"]["action"] == "Pull":
                self._waited_for -= 1
                if not self._waited_for:
                    self._all_reported.set()

    async def run(self, *, job: str, image: str) -> dict[str, Any]:
        """One job on all nodes."""
        self._all_reported.clear()
        self._waited_for = len(self._sessions)
        begun, used = time.monotonic(), time.process_time()
        template = {"images": [image], "checkItems": ["disk"]}
        extras = {"job_uid": "5b6d6b3c-3d1f-4c58-9a2c-5a4f6a0b7f6e", "attempt": 1, "timeout_seconds": 300}
        for number, (node, connection) in enumerate(self._sessions.items()):
            document = {
                "header": {"msg_id": f"{number:032x}", "timestamp": time.time_ns() // 1_000_000},
                "route": {
                    "source": "taskmanager",
                    "group": "taskmanager",
                    "operation": "Check",
                    "resource": wire.task_resource(job, node),
                },
                "content": {"imagePrePullTemplate": template, "task": extras},
            }
            await connection.send(json.dumps(document))
        await self._all_reported.wait()
        return {"seconds": time.monotonic() - begun, "cpu": time.process_time() - used}


async def main(folder: Path) -> None:
    ceiling = Ceiling(folder)
    await lines.serve({"listen": ceiling.listen, "run": ceiling.run})


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
