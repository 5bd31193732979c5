from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgehub.runtime.cri.runtime import CRIRuntime
from tests.unit.runtime_cri.fake import FakeRuntime, serving


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path short enough for a unix socket, which pytest's own folders need not be."""
    folder = Path(tempfile.mkdtemp(prefix="cri-", dir="/tmp"))
    yield folder / "s"
    shutil.rmtree(folder)


@pytest_asyncio.fixture
async def fake(socket: Path) -> AsyncIterator[FakeRuntime]:
    fake = FakeRuntime()
    async with serving(fake, socket):
        yield fake


@pytest_asyncio.fixture
async def runtime(socket: Path) -> AsyncIterator[CRIRuntime]:
    runtime = CRIRuntime(socket=socket)
    yield runtime
    await runtime.close()
