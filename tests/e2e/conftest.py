"""Real parts, started once for all of these tests: containerd, a private registry, the hub, one node on containerd and
three with the built-in image store. Tests make images and jobs of their own, so that they need no clean start."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.leaks import WRITTEN
from tests.e2e.processes import Cloud, Node
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

USER, PASSWORD = "tiger", "pass1234"
WRITTEN.know(PASSWORD, "the registry's password")


@pytest.fixture(autouse=True)
def no_secret_left() -> Iterator[None]:
    """Fails the test after which a password, a token or a key stands anywhere but where it must."""
    yield
    leaks = WRITTEN.leaks()
    assert not leaks, "\n".join(["secrets are where they must not be:", *leaks])


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    with Registry(username=USER, password=PASSWORD) as registry:
        yield registry


@pytest.fixture(scope="session")
def open_registry() -> Iterator[Registry]:
    """One that asks for no password."""
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def containerd(registry: Registry, open_registry: Registry) -> Iterator[Containerd]:
    with Containerd() as containerd:
        WRITTEN.folders.add(containerd.root)
        containerd.trust(registry.address)
        containerd.trust(open_registry.address)
        yield containerd


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cloud() -> AsyncIterator[Cloud]:
    # Not pytest's tmp_path: agents have unix sockets in here, whose paths are short.
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cloud = Cloud(Path(folder))
        await cloud.start()
        yield cloud
        assert await cloud.program.stop() == 0, cloud.program.tail()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edge(cloud: Cloud, containerd: Containerd) -> AsyncIterator[Node]:
    """The guide's node, on containerd."""
    node = Node(cloud, "edge.kubeedge", runtime=containerd.endpoint)
    await node.start()
    yield node
    assert await node.program.stop() == 0, node.program.tail()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nodes(cloud: Cloud) -> AsyncIterator[list[Node]]:
    """edge-1 to edge-3, with the built-in image store."""
    nodes = [Node(cloud, f"edge-{number}") for number in (1, 2, 3)]
    for node in nodes:
        await node.start(wait=False)
    for node in nodes:
        await node.until_ready()
    yield nodes
    for node in nodes:
        assert await node.program.stop() == 0, node.program.tail()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def secret(cloud: Cloud, registry: Registry) -> str:
    """The guide's Secret with the registry's real address."""
    await cloud.kubectl(
        "create", "secret", "docker-registry", "registry-secret", f"--docker-server={registry.address}",
        f"--docker-username={USER}", f"--docker-password={PASSWORD}",
    )  # fmt: skip
    return "default/registry-secret"
