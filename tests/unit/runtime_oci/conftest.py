from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edgehub.runtime.oci import BuiltinStore, StoreSettings
from edgehub.runtime.oci.platforms import Platform
from tests.unit.runtime_oci.registry import BadRegistry

PATIENT = StoreSettings(idle_timeout=60.0)
"""For tests that wait for something else than a timeout, on a busy machine too."""
HASTY = StoreSettings(idle_timeout=0.3, request_timeout=0.6)
"""For tests of timeouts."""

MakeStore = Callable[..., BuiltinStore]


async def no_sleep(_: float) -> None:
    return


@pytest.fixture
async def registry() -> AsyncIterator[BadRegistry]:
    async with BadRegistry() as one:
        yield one


@pytest.fixture
async def elsewhere() -> AsyncIterator[BadRegistry]:
    """Another origin: a token server, or a storage behind the registry."""
    async with BadRegistry() as one:
        yield one


@pytest.fixture
async def make_store(tmp_path: Path) -> AsyncIterator[MakeStore]:
    made: list[BuiltinStore] = []

    def make(
        folder: str = "images",
        *,
        settings: StoreSettings = PATIENT,
        free_bytes: Callable[[], int] | None = None,
        platform: Platform | None = None,
    ) -> BuiltinStore:
        platform = platform or Platform("linux", "amd64")
        made.append(
            BuiltinStore(tmp_path / folder, settings=settings, platform=platform, free_bytes=free_bytes, sleep=no_sleep)
        )
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def store(make_store: MakeStore) -> BuiltinStore:
    return make_store()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of `store`."""
    return tmp_path / "images"
