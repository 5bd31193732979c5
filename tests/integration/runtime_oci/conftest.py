"""One registry with a password for all tests of this folder, and an empty store for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgehub.runtime.oci import BuiltinStore
from shared.wire import Credential
from tests.parts import Registry, RegistryProxy

USERNAME = "tiger"
PASSWORD = "pass-1234:with/signs"


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with Registry(username=USERNAME, password=PASSWORD) as one:
        yield one


@pytest.fixture
def credential(registry: Registry) -> Credential:
    return Credential(registry=registry.address, username=USERNAME, password=PASSWORD)


@pytest.fixture
async def proxy(registry: Registry) -> AsyncIterator[RegistryProxy]:
    async with RegistryProxy(registry.url) as one:
        yield one


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[BuiltinStore]:
    one = BuiltinStore(root)
    yield one
    await one.close()
