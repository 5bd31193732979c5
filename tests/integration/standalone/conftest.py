"""A running embedded API server, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cloudhub.standalone.server import StandaloneAPI
from tests.integration.standalone.rest import CRDS, Rest, connected, job_crd


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[StandaloneAPI]:
    async with StandaloneAPI(data_dir=tmp_path / "data") as running:
        yield running


@pytest_asyncio.fixture
async def rest(api: StandaloneAPI) -> AsyncIterator[Rest]:
    async with connected(api) as client:
        yield client


@pytest_asyncio.fixture
async def jobs(rest: Rest) -> Rest:
    """The client, with the ImagePrePullJob definition installed."""
    answer = await rest.post(CRDS, job_crd())
    assert answer.code == 201, answer.body
    return rest
