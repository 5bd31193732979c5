"""What waits for one node: bounded, in order, and paced for nodes that are not ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.sessions.outbox import Outbox


def outbox(max_messages: int = 10, max_bytes: int = 1000, burst: int | None = None) -> Outbox:
    return Outbox(max_messages=max_messages, max_bytes=max_bytes, burst=burst, now=0.0)


def test_frames_come_out_in_order() -> None:
    box = outbox()
    assert all(box.put(frame) for frame in (b"1", b"2", b"3"))
    assert [box.take(0.0) for _ in range(4)] == [b"1", b"2", b"3", None]


def test_a_full_outbox_takes_nothing_more_and_loses_nothing() -> None:
    box = outbox(max_messages=2)
    assert [box.put(b"1"), box.put(b"2"), box.put(b"3")] == [True, True, False]
    assert [box.take(0.0), box.take(0.0), box.take(0.0)] == [b"1", b"2", None]
    assert box.put(b"4")


def test_bytes_are_bounded_too() -> None:
    box = outbox(max_bytes=10)
    assert [box.put(b"x" * 6), box.put(b"x" * 5), box.put(b"x" * 4)] == [True, False, True]
    box.take(0.0)
    assert box.put(b"x" * 6)


def test_a_paced_outbox_lets_a_few_go_at_once_and_as_many_again_each_second() -> None:
    box = outbox(max_messages=100, burst=4)
    for number in range(20):
        box.put(str(number).encode())

    def taken(now: float) -> int:
        count = 0
        while box.take(now) is not None:
            count += 1
        return count

    assert [taken(0.0), taken(0.0), taken(0.5), taken(1.5), taken(60.0), taken(61.0)] == [4, 0, 2, 4, 4, 4]


def test_a_frame_passes_by_only_when_none_waits_and_bounds_and_pace_allow() -> None:
    box = outbox(max_bytes=10, burst=2)
    assert [box.may_pass(b"x" * 11, 0.0), box.may_pass(b"1", 0.0)] == [False, True]
    assert box.put(b"2")
    assert not box.may_pass(b"3", 0.0)
    assert [box.take(0.0), box.may_pass(b"3", 0.0), box.may_pass(b"3", 1.0)] == [b"2", False, True]


@given(st.lists(st.one_of(st.binary(max_size=300), st.none()), max_size=80), st.sampled_from([None, 3]))
def test_no_sequence_exceeds_the_bounds_or_changes_the_order(steps: list[bytes | None], burst: int | None) -> None:
    box, inside = outbox(burst=burst), list[bytes]()
    for now, step in enumerate(steps):
        if step is None:
            frame = box.take(float(now))
            assert frame == (inside.pop(0) if inside else None)
        elif box.put(step):
            inside.append(step)
        assert len(box) == len(inside) <= 10
        assert sum(map(len, inside)) <= 1000
