"""Leases for the Nodes that `cloudhub.kube.registrar` made, in a cluster that expects them.

A cluster's node lifecycle controller calls a Node Unknown about 40 s after its Lease was last renewed, whatever its
Ready condition says. So while a node's session lives, its Lease is renewed for it. One loop spreads all nodes evenly
over the interval; there is no timer a node. The embedded API server has no such controller: there this is not run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import structlog

from cloudhub.kube.client import MERGE_PATCH, METADATA_ONLY, KubeClient
from cloudhub.taskmanager.ports import KubeError, NotFound

log = structlog.get_logger(__name__)

_PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LEASE_SECONDS: Final = 40
"""As kubelet's."""
_AT_ONCE: Final = 16


class LeaseKeeper:
    """Renews the Lease of each name that ``names`` gives, once in ``interval`` seconds."""

    def __init__(
        self,
        *,
        client: KubeClient,
        names: Callable[[], Sequence[str]],
        interval: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._names = names
        self._interval = interval
        self._sleep = sleep
        self._now = now
        self._failing = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.round()

    async def round(self) -> None:
        """Renews all once, spread over the interval."""
        names = self._names()
        batches = max(1, math.ceil(len(names) / _AT_ONCE))
        for start in range(0, max(1, len(names)), _AT_ONCE):
            await asyncio.gather(*(self._renew(name) for name in names[start : start + _AT_ONCE]))
            await self._sleep(self._interval / batches)

    async def _renew(self, name: str) -> None:
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._write(name, spec)
        except KubeError as error:
            if not self._failing:
                log.warning("a node's Lease cannot be renewed", node=name, reason=str(error))
            self._failing = True
        else:
            self._failing = False

    async def _write(self, name: str, spec: dict[str, Any]) -> None:
        try:
            await self._client.request(
                "PATCH",
                f"{_PATH}/{quote(name, safe='')}",
                body={"spec": spec},
                content_type=MERGE_PATCH,
                accept=METADATA_ONLY,
            )
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            await self._client.request("POST", _PATH, body=body)
