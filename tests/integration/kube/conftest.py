"""The embedded API server over its real socket and TLS, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cloudhub.kube import KubeClient, ensure_crd
from cloudhub.standalone.server import StandaloneAPI


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[StandaloneAPI]:
    server = StandaloneAPI(data_dir=tmp_path / "api")
    await server.start()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def client(api: StandaloneAPI, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """Has seen to it that the CRD is there."""
    client = await KubeClient.connect(kubeconfig=str(tmp_path / "kubeconfig"), qps=10_000, burst=10_000)
    await ensure_crd(client)
    yield client
    await client.close()
