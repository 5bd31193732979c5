"""Handshakes: bounded, and fair between addresses."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cloudhub.listen.admission import Admission, Ruling, address_group


def admission(
    running: int = 4, per_address: int = 2, waiting: int = 100, waiting_per_address: int = 50
) -> Admission[str]:
    return Admission(
        running=running, running_per_address=per_address, waiting=waiting, waiting_per_address=waiting_per_address
    )


def test_the_first_of_an_address_start_and_the_rest_wait() -> None:
    door = admission()
    assert [door.arrive("a", str(n)) for n in range(4)] == [Ruling.START, Ruling.START, Ruling.WAIT, Ruling.WAIT]
    assert (door.running, door.waiting) == (2, 2)


def test_one_address_cannot_take_the_turns_of_another() -> None:
    door = admission()
    for n in range(40):
        door.arrive("flood", str(n))
    assert door.arrive("node", "x") is Ruling.START


def test_those_who_wait_come_in_the_order_of_their_arrival() -> None:
    door = admission()
    for n in range(5):
        door.arrive("a", str(n))
    assert [door.leave("a"), door.leave("a"), door.leave("a")] == [[("a", "2")], [("a", "3")], [("a", "4")]]


def test_addresses_take_turns_so_that_a_long_queue_delays_another_by_one_turn() -> None:
    door = admission(running=1, per_address=1)
    for n in range(30):
        door.arrive("flood", str(n))
    door.arrive("node", "x")
    started = [door.leave("flood")[0]]
    started.append(door.leave(started[-1][0])[0])
    assert ("node", "x") in started


def test_what_exceeds_the_bounds_on_waiting_is_refused() -> None:
    door = admission(running=1, per_address=1, waiting=3, waiting_per_address=2)
    assert [door.arrive("a", str(n)) for n in range(4)] == [Ruling.START, Ruling.WAIT, Ruling.WAIT, Ruling.REFUSE]
    assert [door.arrive("b", "0"), door.arrive("b", "1")] == [Ruling.WAIT, Ruling.REFUSE]


def test_when_all_places_are_taken_a_newcomer_gets_that_of_the_last_of_the_address_that_has_most() -> None:
    door = admission(running=1, per_address=1, waiting=4, waiting_per_address=4)
    for n in range(5):
        door.arrive("flood", str(n))
    assert door.arrive("node", "x") is Ruling.REFUSE
    assert door.make_room("node") == ("flood", "4")
    assert door.arrive("node", "x") is Ruling.WAIT
    assert door.waiting == 4


def test_no_address_makes_room_for_its_own_nor_for_one_that_would_then_have_as_many() -> None:
    door = admission(running=1, per_address=1, waiting=4, waiting_per_address=2)
    for address in ("a", "a", "a", "b", "b"):
        door.arrive(address, "x")
    assert door.make_room("a") is None
    assert door.make_room("b") is None
    assert door.make_room("c") == ("a", "x")
    assert door.arrive("c", "y") is Ruling.WAIT
    # Now b has most, by one: taking it away would only turn the two around.
    assert door.make_room("c") is None
    assert admission().make_room("a") is None


def test_nobody_overtakes_those_of_his_own_address() -> None:
    door = admission(running=2, per_address=2)
    door.arrive("a", "0")
    door.arrive("b", "0")
    door.arrive("a", "1")
    assert door.arrive("a", "2") is Ruling.WAIT
    assert door.leave("b") == [("a", "1")]


def test_clear_gives_back_all_who_wait() -> None:
    door = admission(running=1, per_address=1)
    for n in range(3):
        door.arrive("a", str(n))
    assert door.clear() == ["1", "2"]
    assert (door.running, door.waiting) == (1, 0)
    assert door.leave("a") == []


class AdmissionMachine(RuleBasedStateMachine):
    """Whatever comes and goes: the bounds hold, nobody is lost, and no turn is idle while somebody may take it."""

    def __init__(self) -> None:
        super().__init__()
        self.door = admission(running=3, per_address=2, waiting=6, waiting_per_address=4)
        self.running: Counter[str] = Counter()
        self.waiting: list[tuple[str, str]] = []
        self.serial = 0

    @rule(address=st.sampled_from("abc"))
    def arrive(self, address: str) -> None:
        self.serial += 1
        ruling = self.door.arrive(address, str(self.serial))
        if ruling is Ruling.START:
            self.running[address] += 1
        elif ruling is Ruling.WAIT:
            self.waiting.append((address, str(self.serial)))
        else:
            alike = sum(waiting[0] == address for waiting in self.waiting)
            assert len(self.waiting) >= 6 or alike >= 4
            displaced = self.door.make_room(address)
            if displaced is not None:
                assert displaced == [waiting for waiting in self.waiting if waiting[0] == displaced[0]][-1]
                self.waiting.remove(displaced)
                assert self.door.arrive(address, str(self.serial)) is Ruling.WAIT
                self.waiting.append((address, str(self.serial)))

    @rule(address=st.sampled_from("abc"))
    def leave(self, address: str) -> None:
        if not self.running[address]:
            return
        self.running[address] -= 1
        for started in self.door.leave(address):
            self.waiting.remove(started)
            self.running[started[0]] += 1

    @invariant()
    def bounds_hold(self) -> None:
        assert self.door.running == self.running.total() <= 3
        assert self.door.waiting == len(self.waiting) <= 6
        assert all(count <= 2 for count in self.running.values())

    @invariant()
    def no_turn_is_idle(self) -> None:
        if self.running.total() < 3:
            assert all(self.running[address] >= 2 for address, _ in self.waiting)


AdmissionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAdmissionMachine = AdmissionMachine.TestCase


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "not an address", False),
    ],
)
def test_addresses_of_one_customer_count_as_one(one: str, other: str, same: bool) -> None:
    assert (address_group(one) == address_group(other)) is same
