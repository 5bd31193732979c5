"""Who may begin a handshake now: bounds on connections that have not proved who they are.

A TLS handshake costs a millisecond or two of processor time and some memory, and its peer is nobody yet. When a hub
comes back, all its nodes return at once; an attacker opens connections and says nothing. Both meet the same rule: only
so many handshakes run at a time, and fewer of one address. Those that come then wait their turn as bare sockets, and
the addresses take turns, so that one address with thousands waiting delays another by one turn, not by thousands.

Nodes behind one NAT share an address, which is why an address over its share waits instead of being refused; only what
exceeds the bounds on waiting is refused, and when all places are taken, a newcomer gets that of the last one of the
address that has most (`Admission.make_room`). Without clock and sockets: ``item`` is whatever the caller lets wait.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from enum import Enum, auto
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T")

ADDRESSES_LOOKED_AT: Final = 256


class Ruling(Enum):
    START = auto()
    WAIT = auto()
    REFUSE = auto()


class Admission(Generic[T]):
    """Bounds: ``running`` handshakes at a time, ``running_per_address`` of one address; ``waiting`` overall, and
    ``waiting_per_address``."""

    def __init__(self, *, running: int, running_per_address: int, waiting: int, waiting_per_address: int) -> None:
        self._max_running = running
        self._max_running_per_address = running_per_address
        self._max_waiting = waiting
        self._max_waiting_per_address = waiting_per_address
        self._running: dict[str, int] = {}
        self._total_running = 0
        # In the order in which the addresses get their next turn.
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()
        self._total_waiting = 0

    @property
    def running(self) -> int:
        return self._total_running

    @property
    def waiting(self) -> int:
        return self._total_waiting

    def arrive(self, address: str, item: T) -> Ruling:
        """What becomes of a new connection. After START the caller owes one `leave`."""
        if address not in self._queues and self._has_room(address):
            self._start(address)
            return Ruling.START
        queue = self._queues.get(address)
        if self._total_waiting >= self._max_waiting or (queue and len(queue) >= self._max_waiting_per_address):
            return Ruling.REFUSE
        self._queues.setdefault(address, deque()).append(item)
        self._total_waiting += 1
        return Ruling.WAIT

    def make_room(self, address: str) -> tuple[str, T] | None:
        """For a refused newcomer of ``address``: takes out the last of whoever has most waiting, if that is more than
        ``address`` would have. To be closed by the caller, who then lets the newcomer arrive again."""
        mine = len(self._queues.get(address, ()))
        # Not all: they may be many thousands, and then none has many.
        looked_at = islice(self._queues.items(), ADDRESSES_LOOKED_AT)
        longest, queue = max(looked_at, key=lambda entry: len(entry[1]), default=("", deque[T]()))
        if len(queue) <= mine + 1 or mine >= self._max_waiting_per_address:
            return None
        self._total_waiting -= 1
        # The last one: those before it have waited for their turn. There is another, so the queue does not end here.
        return longest, queue.pop()

    def leave(self, address: str) -> list[tuple[str, T]]:
        """A handshake that was started has ended. Returns those whose turn it is now; each is started by this."""
        count = self._running[address] - 1
        if count:
            self._running[address] = count
        else:
            del self._running[address]
        self._total_running -= 1
        started = []
        while (turn := self._next_turn()) is not None:
            started.append(turn)
        return started

    def clear(self) -> list[T]:
        """Takes out all that wait."""
        items = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._total_waiting = 0
        return items

    def _next_turn(self) -> tuple[str, T] | None:
        if self._total_running >= self._max_running:
            return None
        address = next(filter(self._has_room, self._queues), None)
        if address is None:
            return None
        queue = self._queues[address]
        item = queue.popleft()
        self._total_waiting -= 1
        if queue:
            self._queues.move_to_end(address)
        else:
            del self._queues[address]
        self._start(address)
        return address, item

    def _has_room(self, address: str) -> bool:
        return self._total_running < self._max_running and self._running.get(address, 0) < self._max_running_per_address

    def _start(self, address: str) -> None:
        self._running[address] = self._running.get(address, 0) + 1
        self._total_running += 1


def address_group(host: str) -> str:
    """What counts as one address: IPv4 as it is (also when mapped into IPv6), IPv6 by its /64, which is what one
    customer has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
