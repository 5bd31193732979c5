"""Network namespaces for nodes, each on a wire that a test cuts, slows, or lets pass one way only.

The problem: loopback never breaks as networks do. A process that is killed says goodbye (its kernel does), while a
cable that is cut says nothing to either end, and a router that has lost its mind passes packets one way only. A
`Namespace` has an interface of its own, joined to this machine by two TUN devices and a thread that carries the packets
between them; so each fault is exactly what was asked for, with nothing of the kernel's traffic control or filters.

Two addresses of this machine can be reached from all namespaces: `Network.hub`, whose packets are subject to the
faults, and `Network.registry`, whose packets always pass. All are of 198.18.0.0/15, which is for tests of networks
(RFC 2544), and leave this machine never. Needs root.
"""

from __future__ import annotations

import atexit
import fcntl
import heapq
import os
import random
import secrets
import select
import stat
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.parts.process import PartError, run

_TUN: Final = Path("/dev/net/tun")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_WITHOUT_HEADER: Final = 0x0001 | 0x1000
_PACKET: Final = 65_536
_PROTOCOL, _TCP = 9, 6
_SOURCE, _DESTINATION = slice(12, 16), slice(16, 20)
"""Of an IPv4 packet."""
_TRIES: Final = 50


class Network:
    """`hub` and `registry` are addresses of this machine for as long as the context lasts."""

    def __init__(self) -> None:
        self._prefix = ""
        self._stack = ExitStack()
        self._count = 0

    @property
    def hub(self) -> str:
        """Listen here with what nodes are to be cut off from."""
        return f"{self._prefix}.1"

    @property
    def registry(self) -> str:
        """Listen here with what nodes always reach."""
        return f"{self._prefix}.2"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise PartError("network namespaces need root: run these tests as root")
        atexit.register(self.close)
        try:
            self._claim()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        atexit.unregister(self.close)
        self._stack.close()

    def namespace(self) -> Namespace:
        """One more, with its wire whole."""
        self._count += 1
        return self._stack.enter_context(Namespace(self, address=f"{self._prefix}.{9 + self._count}"))

    def _claim(self) -> None:
        """Others on this machine may do the same: who could add the address has the block."""
        for _ in range(_TRIES):
            self._prefix = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
            try:
                self._add(self.hub)
            except PartError as error:
                if "File exists" in str(error) or "already assigned" in str(error):
                    continue
                raise
            self._add(self.registry)
            return
        raise PartError(f"no free block of 198.18.0.0/15 in {_TRIES} tries")

    def _add(self, address: str) -> None:
        ip("address", "add", f"{address}/32", "dev", "lo")
        self._stack.callback(ip, "address", "del", f"{address}/32", "dev", "lo")


class Namespace:
    """Where a node runs. `wire` is its only way to anywhere."""

    def __init__(self, network: Network, *, address: str) -> None:
        self.address = address
        self.name = f"edge-{secrets.token_hex(4)}"
        self._network = network
        self._stack = ExitStack()
        self._device = f"w{secrets.token_hex(5)}"
        self.wire: Wire

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """``command``, to be run in here."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def unplug(self) -> None:
        """The interface goes down, and the node knows it."""
        self._in("link", "set", self._device, "down")

    def plug(self) -> None:
        self._in("link", "set", self._device, "up")
        self._add_routes()

    def _build(self) -> None:
        ip("netns", "add", self.name)
        self._stack.callback(ip, "netns", "del", self.name)
        here, there = _open_tun(f"h{self._device[1:]}"), _open_tun(self._device)
        self.wire = Wire(here=here, there=there, hub=self._network.hub)
        self._stack.callback(self.wire.close)
        ip("link", "set", f"h{self._device[1:]}", "up")
        ip("route", "add", f"{self.address}/32", "dev", f"h{self._device[1:]}", "src", self._network.hub)
        ip("link", "set", self._device, "netns", self.name)
        self._in("link", "set", "lo", "up")
        self._in("address", "add", f"{self.address}/32", "dev", self._device)
        self.plug()

    def _add_routes(self) -> None:
        for address in (self._network.hub, self._network.registry):
            self._in("route", "replace", f"{address}/32", "dev", self._device, "src", self.address)

    def _in(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)


class Wire:
    """Carries packets between two TUN devices, in a thread. Set its attributes at any time; those that are on their way
    are delivered. No end hears of what is lost."""

    def __init__(self, *, here: int, there: int, hub: str) -> None:
        self.to_hub = True
        """Whether packets from the node to the hub arrive."""
        self.from_hub = True
        """Whether packets from the hub to the node arrive."""
        self.delay = 0.0
        """Seconds on the way, each way, of what goes to or comes from the hub."""
        self.lost = 0
        """Packets that did not arrive by what was set."""
        self.calls = 0
        """How often the node asked the hub's address for a TCP connection; once more when it was not answered."""
        self._here, self._there = here, there
        self._hub = IPv4Address(hub).packed
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Nothing passes between node and hub, and neither is told."""
        self.to_hub = self.from_hub = False

    def mend(self) -> None:
        self.to_hub = self.from_hub = True
        self.delay = 0.0

    def close(self) -> None:
        os.close(self._wake)
        self._thread.join()
        for descriptor in (self._here, self._there, self._woken):
            os.close(descriptor)

    def _carry(self) -> None:
        while True:
            first = self._on_the_way[0][0] - time.monotonic() if self._on_the_way else None
            ready, _, _ = select.select([self._here, self._there, self._woken], [], [], first and max(first, 0.0))
            if self._woken in ready:
                return
            if self._here in ready:
                self._take(self._here, self._there)
            if self._there in ready:
                self._take(self._there, self._here)
            while self._on_the_way and self._on_the_way[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(self._on_the_way)
                _put(target, packet)

    def _take(self, source: int, target: int) -> None:
        packet = os.read(source, _PACKET)
        passes, delay = True, 0.0
        if packet[_SOURCE] == self._hub:
            passes, delay = self.from_hub, self.delay
        elif packet[_DESTINATION] == self._hub:
            passes, delay = self.to_hub, self.delay
            self.calls += _is_call(packet)
        if not passes:
            self.lost += 1
        elif delay:
            self._count += 1
            heapq.heappush(self._on_the_way, (time.monotonic() + delay, self._count, target, packet))
        else:
            _put(target, packet)


def _is_call(packet: bytes) -> bool:
    """Whether it is the first of a TCP connection: SYN without ACK."""
    flags = (packet[0] & 0x0F) * 4 + 13
    return packet[_PROTOCOL] == _TCP and len(packet) > flags and packet[flags] & 0x12 == 0x02


def _put(target: int, packet: bytes) -> None:
    try:
        os.write(target, packet)
    except OSError:
        return  # that interface is down: so is what was sent to it


def _open_tun(name: str) -> int:
    if not _TUN.exists():
        _TUN.parent.mkdir(exist_ok=True)
        os.mknod(_TUN, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
    try:
        file = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_WITHOUT_HEADER))
    except OSError as error:
        raise PartError(f"no TUN device can be made from {_TUN}: {error.strerror}") from error
    return file


def ip(*arguments: str) -> None:
    run(["ip", *arguments])
