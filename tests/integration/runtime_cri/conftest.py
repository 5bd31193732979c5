"""One containerd and two registries, one open and one with a password, for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from edgehub.runtime.cri.runtime import CRIRuntime
from shared.wire import Credential
from tests.parts import Containerd, Registry, RegistryProxy

USERNAME = "tiger"
PASSWORD = "pass-1234:with/signs"


@pytest.fixture(scope="session")
def public_registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry() -> Iterator[Registry]:
    with Registry(username=USERNAME, password=PASSWORD) as registry:
        yield registry


@pytest.fixture(scope="session")
def shared_containerd(public_registry: Registry, private_registry: Registry) -> Iterator[Containerd]:
    with Containerd() as containerd:
        containerd.trust(public_registry.address)
        containerd.trust(private_registry.address)
        yield containerd


@pytest.fixture
def containerd(shared_containerd: Containerd) -> Iterator[Containerd]:
    """Running, whatever the test before did to it, and empty at the end."""
    if not shared_containerd.process.running:
        shared_containerd.start()
    yield shared_containerd
    if shared_containerd.process.running:
        shared_containerd.remove_images()


@pytest_asyncio.fixture
async def runtime(containerd: Containerd) -> AsyncIterator[CRIRuntime]:
    runtime = CRIRuntime(socket=containerd.socket)
    yield runtime
    await runtime.close()


@pytest_asyncio.fixture
async def proxy(public_registry: Registry, containerd: Containerd) -> AsyncIterator[RegistryProxy]:
    """In front of the open registry, which containerd may pull from under the proxy's name too."""
    async with RegistryProxy(public_registry.url) as proxy:
        containerd.trust(proxy.address)
        yield proxy


@pytest.fixture
def credential(private_registry: Registry) -> Credential:
    return Credential(registry=private_registry.address, username=USERNAME, password=PASSWORD)
