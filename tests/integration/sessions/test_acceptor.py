"""The acceptor by itself: handshakes do not begin in a crowd, and none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

import pytest

from cloudhub.listen import acceptor as listening
from cloudhub.listen.acceptor import AcceptLimits, Acceptor
from tests.e2e.processes import eventually
from tests.integration.certificates import mtls_context, new_ca

PEERS = 90
A_FEW = 32
"""A handshake takes 1 to 2 ms: they keep the loop for some 50 ms."""


class _Guest(asyncio.Protocol):
    """Never done."""

    @property
    def protocol(self) -> asyncio.BaseProtocol:
        return self

    async def settled(self) -> None:
        await asyncio.Event().wait()

    def abandon(self) -> None:
        return


class _Begun:
    """Counts what began in each turn of the loop."""

    def __init__(self) -> None:
        self.in_turn: Counter[int] = Counter()
        self.some, self.all = asyncio.Event(), asyncio.Event()
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self.number += 1
        self._next = self._loop.call_soon(self._pass)

    def welcome(self, _address: str) -> _Guest:
        self.in_turn[self.number] += 1
        self.some.set()
        if self.in_turn.total() == PEERS:
            self.all.set()
        return _Guest()

    def end(self) -> None:
        self._next.cancel()


def _acceptor(begun: _Begun) -> Acceptor:
    return Acceptor(
        host="127.0.0.1",
        port=0,
        ssl_context=mtls_context(new_ca()),
        limits=AcceptLimits(),
        welcome=begun.welcome,
        refused=lambda reason, address, detail: None,
    )


def _knock(acceptor: Acceptor, peers: contextlib.ExitStack) -> list[socket.socket]:
    address = ("127.0.0.1", acceptor.port)
    return [peers.enter_context(socket.create_connection(address)) for _ in range(PEERS)]


async def test_of_many_that_come_at_once_only_a_few_begin_in_one_turn_of_the_loop() -> None:
    begun = _Begun()
    acceptor = _acceptor(begun)
    acceptor.start()
    with contextlib.ExitStack() as peers:
        _knock(acceptor, peers)
        async with asyncio.timeout(60):
            await begun.all.wait()
        assert max(begun.in_turn.values()) <= A_FEW
        assert acceptor.running == PEERS
        await acceptor.stop()
    begun.end()


async def test_while_turns_are_long_few_are_under_way_and_then_silent_ones_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "LONG_TURN", -1.0)  # every turn is
    begun = _Begun()
    acceptor = _acceptor(begun)
    acceptor.start()
    with contextlib.ExitStack() as peers:
        knocking = _knock(acceptor, peers)
        for peer in knocking[: PEERS // 2]:
            # Some go, others take their place: with each of them it is looked anew at how many may be under way.
            peer.close()

        async def all_but_some_have_begun() -> bool:
            return begun.in_turn.total() == PEERS // 2 + listening.LEAST_AT_WORK and acceptor.running == PEERS // 2

        await eventually("all but some have begun", all_but_some_have_begun)
        assert acceptor.at_work == listening.LEAST_AT_WORK
        monkeypatch.setattr(listening, "LONG_TURN", 3600.0)
        async with asyncio.timeout(60):
            await begun.all.wait()
        assert acceptor.at_work == acceptor.running == PEERS // 2
        await acceptor.stop()
    begun.end()


async def test_a_stop_closes_those_too_whose_handshake_was_to_begin_in_the_next_turn() -> None:
    begun = _Begun()
    acceptor = _acceptor(begun)
    acceptor.start()
    with contextlib.ExitStack() as peers:
        knocking = _knock(acceptor, peers)
        async with asyncio.timeout(60):
            await begun.some.wait()
        await acceptor.stop()
        assert begun.in_turn.total() < PEERS
        for peer in knocking:
            peer.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert peer.recv(1) == b""
    begun.end()
