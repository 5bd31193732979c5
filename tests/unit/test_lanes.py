"""The order in which workers get the tests' files."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.lanes import FromBothEnds, make_scheduler

FILES = [f"tests/{name}.py" for name in "abcdef"]
TESTS = [f"{file}::{test}" for file in FILES for test in ("test_1", "TestIt::test_2[x::y]", "test_3", "test_4")]
CONFIG: Any = SimpleNamespace(
    getvalue={"tx": ["2*popen"], "dist": "load"}.__getitem__, option=SimpleNamespace(loadscopereorder=True)
)


@dataclass(eq=False)
class Worker:
    name: str
    shutting_down: bool = False
    todo: list[int] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @property
    def gateway(self) -> Any:
        return SimpleNamespace(id=self.name)

    def send_runtest_some(self, indices: list[int]) -> None:
        self.todo += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    def run(self, scheduler: Any, tests: int) -> None:
        for _ in range(tests):
            index = self.todo.pop(0)
            self.done.append(TESTS[index])
            scheduler.mark_test_complete(self, index)

    @property
    def files(self) -> list[str]:
        """In their order, each as often as it was begun."""
        files = [test.partition("::")[0] for test in self.done]
        return [file for number, file in enumerate(files) if not number or files[number - 1] != file]


def scheduled() -> tuple[FromBothEnds, Worker, Worker]:
    scheduler, first, second = FromBothEnds(CONFIG), Worker("first"), Worker("second")
    workers: tuple[Any, Any] = (first, second)
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    return scheduler, first, second


def test_one_goes_from_the_front_and_the_other_from_the_back_until_they_meet() -> None:
    scheduler, first, second = scheduled()
    first.run(scheduler, 3)  # after which it has two at most to do, and is given the next file
    second.run(scheduler, 16)
    first.run(scheduler, 5)
    assert first.files == FILES[:2]
    assert second.files == FILES[:1:-1]
    assert sorted(first.done + second.done) == sorted(TESTS)
    assert scheduler.tests_finished


def test_a_file_stays_together_and_in_its_order() -> None:
    scheduler, first, second = scheduled()
    for _ in range(4):
        first.run(scheduler, 3)
        second.run(scheduler, 3)
    for worker in (first, second):
        assert len(worker.files) == 3
        assert worker.done == [test for file in worker.files for test in TESTS if test.startswith(file)]


def test_what_a_lost_worker_left_is_done_by_the_other() -> None:
    scheduler, first, second = scheduled()
    first.run(scheduler, 6)
    lost: Any = first
    assert scheduler.remove_node(lost) == TESTS[6]
    second.run(scheduler, len(second.todo))
    while second.todo:
        second.run(scheduler, 1)
    assert set(TESTS) - set(first.done) <= set(second.done)


def test_another_way_that_was_asked_for_is_xdists_own() -> None:
    log: Any = SimpleNamespace(loadscopesched=None)
    other: Any = SimpleNamespace(getvalue={"dist": "loadfile"}.__getitem__)
    assert make_scheduler(other, log) is None
    assert isinstance(make_scheduler(CONFIG, log), FromBothEnds)
