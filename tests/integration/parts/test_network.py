"""What a namespace's wire does to real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.processes import command
from tests.parts.network import Namespace, Network
from tests.parts.process import PartError, run

_ASK = """
import socket, sys, time
begun = time.monotonic()
try:
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    peer.sendall(b"ping")
    peer.settimeout(float(sys.argv[3]))
    print(peer.recv(4).decode(), time.monotonic() - begun)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def namespace(network: Network) -> Namespace:
    return network.namespace()


@pytest.fixture(autouse=True)
def whole(namespace: Namespace) -> Iterator[None]:
    yield
    namespace.wire.mend()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        writer.write(b"pong" if await reader.read(4) == b"ping" else b"what")
        await writer.drain()


async def _ask(namespace: Namespace, address: str, *, patience: float = 30) -> str:
    async with await asyncio.start_server(_answer, address, 0) as server:
        port = server.sockets[0].getsockname()[1]
        args = namespace.command(["python3", "-c", _ASK, address, str(port), str(patience)])
        return (await command(*args)).strip()


async def test_both_addresses_are_reached_and_no_other_is(namespace: Namespace, network: Network) -> None:
    assert (await _ask(namespace, network.hub)).startswith("pong")
    assert (await _ask(namespace, network.registry)).startswith("pong")
    assert await command(*namespace.command(["python3", "-c", _ASK, "192.0.2.1", "80", "5"])) == "OSError\n"


async def test_a_cut_wire_says_nothing_to_either_end_and_leaves_the_registry_alone(
    namespace: Namespace, network: Network
) -> None:
    namespace.wire.cut()
    assert await _ask(namespace, network.hub, patience=0.5) == "TimeoutError"
    assert (await _ask(namespace, network.registry)).startswith("pong")
    assert namespace.wire.lost > 0
    namespace.wire.mend()
    assert (await _ask(namespace, network.hub)).startswith("pong")


@pytest.mark.parametrize("way", ["to_hub", "from_hub"])
async def test_half_a_connection_is_none(namespace: Namespace, network: Network, way: str) -> None:
    setattr(namespace.wire, way, False)
    assert await _ask(namespace, network.hub, patience=0.5) == "TimeoutError"


async def test_a_delay_is_there_in_each_direction(namespace: Namespace, network: Network) -> None:
    namespace.wire.delay = 0.1
    word, seconds = (await _ask(namespace, network.hub)).split()
    assert word == "pong"
    # Of the connection's first packets and of the question and its answer: two round trips at the least.
    assert float(seconds) >= 0.4


async def test_calls_of_the_hub_are_counted_and_those_of_the_registry_are_not(
    namespace: Namespace, network: Network
) -> None:
    before = namespace.wire.calls
    await _ask(namespace, network.hub)
    assert namespace.wire.calls == before + 1
    await _ask(namespace, network.registry)
    assert namespace.wire.calls == before + 1


async def test_a_node_knows_of_an_unplugged_cable(namespace: Namespace, network: Network) -> None:
    namespace.unplug()
    assert await _ask(namespace, network.hub) == "OSError"
    namespace.plug()
    assert (await _ask(namespace, network.hub)).startswith("pong")


def test_nothing_is_left_behind() -> None:
    with Network() as network:
        namespace = network.namespace()
        assert namespace.name in run(["ip", "netns", "list"])
        hub = network.hub
        assert f"{hub}/32" in run(["ip", "address", "show", "lo"])
    assert namespace.name not in run(["ip", "netns", "list"])
    assert f"{hub}/32" not in run(["ip", "address", "show", "lo"])
    assert namespace.address not in run(["ip", "route"])


def test_two_networks_have_addresses_of_their_own() -> None:
    with Network() as one, Network() as other:
        assert one.hub != other.hub
        with pytest.raises(PartError, match="unreachable"):
            run(["ip", "-n", one.namespace().name, "route", "get", other.hub])
