"""One session a node, the newest; and what its listener hears, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloudhub.sessions.registry import SessionRegistry
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import Message


@dataclass(eq=False)
class Session:
    info: SessionInfo


class Heard:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def session_opened(self, session: SessionInfo) -> None:
        self.calls.append(("opened", session.serial))

    def session_closed(self, session: SessionInfo) -> None:
        self.calls.append(("closed", session.serial))

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        raise NotImplementedError


def registry(heard: Heard, limit: int = 3) -> SessionRegistry[Session]:
    return SessionRegistry(node_limit=limit, listener=lambda: heard)


def session(of: SessionRegistry[Session], node: str) -> Session:
    return Session(SessionInfo(node=node, serial=of.next_serial(), features=frozenset(), info=None))


def test_a_session_is_found_from_opening_to_ending() -> None:
    heard = Heard()
    book = registry(heard)
    first = session(book, "a")
    assert book.open(first) is None
    assert (book.get("a"), list(book.nodes()), len(book)) == (first, ["a"], 1)
    book.ending(first)
    assert (book.get("a"), list(book.nodes()), len(book)) == (None, [], 0)
    assert heard.calls == [("opened", 1)]
    book.gone(first)
    assert heard.calls == [("opened", 1), ("closed", 1)]


def test_the_newest_session_wins_and_of_the_old_one_nothing_more_is_heard() -> None:
    heard = Heard()
    book = registry(heard)
    old, new = session(book, "a"), session(book, "a")
    book.open(old)
    assert book.open(new) is old
    book.gone(old)
    assert book.get("a") is new
    assert heard.calls == [("opened", 1), ("opened", 2)]


def test_a_session_that_still_hands_over_messages_is_replaced_too() -> None:
    heard = Heard()
    book = registry(heard)
    old, new = session(book, "a"), session(book, "a")
    book.open(old)
    book.ending(old)
    assert book.last("a") is old
    assert book.open(new) is old
    book.gone(old)
    assert heard.calls == [("opened", 1), ("opened", 2)]


def test_a_node_that_is_connected_needs_no_room() -> None:
    book = registry(Heard(), limit=1)
    book.open(session(book, "a"))
    assert book.has_room("a")
    assert not book.has_room("b")


def test_a_listener_that_raises_breaks_no_bookkeeping() -> None:
    class Broken(Heard):
        def session_opened(self, session: SessionInfo) -> None:
            raise ValueError("no")

    book = registry(Broken())
    first = session(book, "a")
    book.open(first)
    assert book.get("a") is first


class RegistryMachine(RuleBasedStateMachine):
    """In any order of events: each opened session is either replaced or closed once, and at most one is open a node."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = Heard()
        self.book = registry(self.heard, limit=2)
        self.stages: dict[int, tuple[Session, str]] = {}
        self.newest: dict[str, int] = {}

    @rule(node=st.sampled_from("abc"))
    def open(self, node: str) -> None:
        if self.book.has_room(node):
            opened = session(self.book, node)
            self.book.open(opened)
            self.stages[opened.info.serial] = (opened, "open")
            self.newest[node] = opened.info.serial

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self._step(data, "open", "ending", self.book.ending)

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self._step(data, "ending", "gone", self.book.gone)

    def _step(self, data: st.DataObject, before: str, after: str, do: object) -> None:
        candidates = [serial for serial, (_, stage) in self.stages.items() if stage == before]
        if candidates and callable(do):
            serial = data.draw(st.sampled_from(candidates))
            do(self.stages[serial][0])
            self.stages[serial] = (self.stages[serial][0], after)

    @invariant()
    def the_open_ones_are_the_newest(self) -> None:
        open_now = {
            node: self.stages[serial][0] for node, serial in self.newest.items() if self.stages[serial][1] == "open"
        }
        assert {node: self.book.get(node) for node in open_now} == open_now
        assert set(self.book.nodes()) == set(open_now)
        assert len(self.book) <= 2

    @invariant()
    def closed_is_heard_once_for_those_that_nothing_replaced(self) -> None:
        closed = [serial for what, serial in self.heard.calls if what == "closed"]
        assert len(closed) == len(set(closed))
        for node, serial in self.newest.items():
            assert (serial in closed) == (self.stages[serial][1] == "gone"), node


RegistryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRegistryMachine = RegistryMachine.TestCase
