"""A listening socket whose connections begin TLS only when it is their turn.

asyncio's own servers begin a TLS handshake with whatever connects, as many as come, and tell nobody before it has
succeeded. Here `Admission` decides who begins, each turn has a deadline, and what each connection is served by is the
caller's: a `Guest`. Without TLS, turns are for what the guest itself has to prove or to do.

Guarantees: a turn ends when the guest says that it is settled, or when its time is over, and then the link is cut. When
the process runs out of descriptors, accepting pauses until `look_again` instead of spinning. After `stop` no socket and
no task of this is left; guests that are settled are the caller's to end.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from cloudhub.listen.admission import Admission, Ruling, address_group

ACCEPT_BATCH: Final = 64
"""Sockets accepted in one turn of the loop."""
START_BATCH: Final = 16
"""Handshakes begun in one turn of the loop."""
LEAST_AT_WORK: Final = 32
LONG_TURN: Final = 0.05
WIDEN_SECONDS: Final = 0.02
"""Handshakes that are under way together often take their steps together, in one turn of the loop, at 1 to 2 ms each;
everything else waits for it, again and again while a fleet comes back. After a turn of more than `LONG_TURN` seconds
only half as many are under way at a time, down to `LEAST_AT_WORK`. With links that are slow or silent, whose steps are
few, turns are short, and each `WIDEN_SECONDS` `START_BATCH` more may begin, up to the limits."""
BACKLOG: Final = 4096

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AcceptLimits:
    """Bounds on peers without a name. Times in seconds."""

    turn: float = 20.0
    """From the moment that a connection may begin TLS until it must be settled."""
    running: int = 128
    """Turns at a time. A handshake costs 1 to 2 ms of processor time; many more at once only make all of them late."""
    running_per_address: int = 96
    """Less than the above, so that one silent address cannot take all turns."""
    waiting: int = 32768
    """Sockets that wait for their turn: a whole fleet that comes back, so a multiple of the node limit."""
    waiting_per_address: int = 16384
    """A fleet behind one NAT is one address."""
    shutdown: float = 5.0
    """For the end of TLS."""


class Guest(Protocol):
    """One connection, as the acceptor sees it."""

    @property
    def protocol(self) -> asyncio.BaseProtocol: ...
    async def settled(self) -> None:
        """Returns when this connection needs no turn any longer."""
        ...

    def abandon(self) -> None:
        """Its handshake failed, or its turn is over: cut the link, if there is one. No more is asked of it."""
        ...


class Acceptor:
    """``welcome(address)`` makes the guest of a connection; ``refused(reason, address, detail)`` hears of those that
    got nowhere, with reason ``tls``, ``timeout`` or ``too many``."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None,
        limits: AcceptLimits,
        welcome: Callable[[str], Guest],
        refused: Callable[[str, str, str], None],
    ) -> None:
        self._host, self._requested_port = host, port
        self._ssl_context = ssl_context
        self._limits = limits
        self._welcome = welcome
        self._refused = refused
        self._admission: Admission[socket.socket] = Admission(
            running=limits.running,
            running_per_address=limits.running_per_address,
            waiting=limits.waiting,
            waiting_per_address=limits.waiting_per_address,
        )
        self._starting: deque[tuple[socket.socket, str]] = deque()
        """Whose turn it is, and who have not begun."""
        self._start_due = False
        self._widening = False
        self._at_work = 0
        """Those that have begun."""
        self._most_at_work = limits.running
        self._turns: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None
        self._reading = False

    @property
    def port(self) -> int:
        if self._listening is None:
            raise RuntimeError(f"not listening on {self._host}")
        return int(self._listening.getsockname()[1])

    @property
    def running(self) -> int:
        return self._admission.running

    @property
    def at_work(self) -> int:
        """Of those whose turn it is, the ones that have begun."""
        return self._at_work

    @property
    def waiting(self) -> int:
        return self._admission.waiting

    def start(self) -> None:
        """Raises OSError that names address and port."""
        self._listening = listen(self._host, self._requested_port)
        self.look_again()

    def look_again(self) -> None:
        """Accepts again, if accepting was given up for want of descriptors. To be called from time to time."""
        if self._listening is not None and not self._reading:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._listening, self._on_acceptable)

    async def stop(self) -> None:
        if self._listening is None:
            return
        self._give_up()
        self._listening.close()
        self._listening = None
        for waiting in (*self._admission.clear(), *(peer for peer, _ in self._starting)):
            waiting.close()
        self._starting.clear()
        # A task that is cancelled before its first step never comes to close its socket.
        await asyncio.sleep(0)
        turns = tuple(self._turns)
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)

    def _give_up(self) -> None:
        if self._listening is not None and self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._listening)

    def _on_acceptable(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if self._listening is None:
                return
            try:
                peer, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                # Out of descriptors or memory: the socket stays acceptable, so look again later, not at once.
                log.error("cannot accept connections", port=self.port, error=error.strerror or str(error))
                self._give_up()
                return
            self._arrived(peer, address_group(str(address[0])))

    def _arrived(self, peer: socket.socket, address: str) -> None:
        peer.setblocking(False)
        ruling = self._admission.arrive(address, peer)
        if ruling is Ruling.REFUSE and (displaced := self._admission.make_room(address)) is not None:
            self._turn_away(displaced[1], displaced[0])
            ruling = self._admission.arrive(address, peer)
        if ruling is Ruling.START:
            self._begin(peer, address)
        elif ruling is Ruling.REFUSE:
            self._turn_away(peer, address)

    def _turn_away(self, peer: socket.socket, address: str) -> None:
        peer.close()
        self._refused("too many", address, "too many connections wait already")

    def _begin(self, peer: socket.socket, address: str) -> None:
        self._starting.append((peer, address))
        self._start_soon()

    def _start_soon(self) -> None:
        if not self._starting:
            return
        loop = asyncio.get_running_loop()
        if self._at_work < self._most_at_work:
            if not self._start_due:
                self._start_due = True
                loop.call_soon(self._start_some)
        elif not self._widening and self._most_at_work < self._limits.running:
            self._widening = True
            loop.call_later(WIDEN_SECONDS, self._widen, time.monotonic() + WIDEN_SECONDS)

    def _widen(self, due: float) -> None:
        self._widening = False
        if time.monotonic() - due <= LONG_TURN:
            self._most_at_work = min(self._limits.running, self._most_at_work + START_BATCH)
        self._start_soon()

    def _start_some(self) -> None:
        loop = asyncio.get_running_loop()
        self._start_due = False
        for _ in range(min(START_BATCH, self._most_at_work - self._at_work, len(self._starting))):
            peer, address = self._starting.popleft()
            self._at_work += 1
            turn = loop.create_task(self._turn(peer, address), name=f"handshake-{address}")
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
        # Not the loop's own time, which stands still within a turn.
        loop.call_soon(self._pace, time.monotonic())
        self._start_soon()

    def _pace(self, begun: float) -> None:
        """One turn of the loop later."""
        if time.monotonic() - begun > LONG_TURN:
            self._most_at_work = min(self._limits.running, max(LEAST_AT_WORK, self._most_at_work // 2))

    async def _turn(self, peer: socket.socket, address: str) -> None:
        guest = self._welcome(address)
        settled = False
        try:
            async with asyncio.timeout(self._limits.turn):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: guest.protocol,
                    peer,
                    ssl=self._ssl_context,
                    ssl_handshake_timeout=self._limits.turn if self._ssl_context else None,
                    ssl_shutdown_timeout=self._limits.shutdown if self._ssl_context else None,
                )
                await guest.settled()
            settled = True
        except TimeoutError:
            self._refused("timeout", address, f"not done within {self._limits.turn:g} seconds")
        except OSError as error:
            # OpenSSL's reasons among them: foreign CA, expired certificate, no certificate, no TLS at all.
            detail = getattr(error, "verify_message", "") or error.strerror or str(error) or type(error).__name__
            self._refused("tls", address, detail[:200])
        except Exception:
            log.exception("connection failed", address=address)
        finally:
            if not settled:
                guest.abandon()
            self._leave(address)

    def _leave(self, address: str) -> None:
        self._at_work -= 1
        for next_address, peer in self._admission.leave(address):
            self._begin(peer, next_address)
        self._start_soon()


def listen(host: str, port: int) -> socket.socket:
    """One listening socket; ``::`` takes IPv4 too. Raises OSError that names address and port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6()
        )
    except OSError as error:
        # create_server adds the address to the system's words, in Python's way.
        problem = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {problem}") from error
    listening.setblocking(False)
    return listening
