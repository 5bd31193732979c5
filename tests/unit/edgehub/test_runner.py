"""One task: checks, pulls, retries by kind of error, deadline. The runtime is scripted, the waits are not waited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edgehub.runtime.base import ImageNotFound, InvalidImage, NoSpace, PullDenied, TransientPullError
from edgehub.tasks.live import ImageState, LiveTask
from edgehub.tasks.model import Task, TaskState
from edgehub.tasks.prechecks import CpuTimes, Limits, PreChecks, Space
from edgehub.tasks.pulls import Puller
from edgehub.tasks.runner import Runner
from edgehub.tasks.secrets import Credentials
from shared.wire import Credential, Operation, Report
from tests.unit.edgehub.scripted import ScriptedRuntime, dispatch, task, until


class Machine:
    def __init__(self) -> None:
        self.disk_used = 10.0

    def cpu(self) -> CpuTimes:
        return CpuTimes(busy=1, total=2)

    def memory(self) -> Space:
        return Space(percent_used=10, available=1, total=1)

    def disk(self, _path: object) -> Space:
        return Space(percent_used=self.disk_used, available=1, total=1)


class Bench:
    """A runner on a scripted runtime; `slept` has each wait, and a wait takes no time."""

    def __init__(self, *, parallel_tasks: int = 2, parallel_pulls: int = 2) -> None:
        self.runtime = ScriptedRuntime()
        self.machine = Machine()
        self.slept: list[float] = []
        self.on_sleep: Callable[[], None] = lambda: None
        self.put: list[tuple[str, bool, TaskState]] = []
        puller = Puller(
            runtime=self.runtime,
            credentials=Credentials(query_timeout=60),
            parallel=parallel_pulls,
            sleep=self._sleep,
            uniform=lambda _low, high: high,
        )
        prechecks = PreChecks(
            limits=Limits(), filesystem=self.runtime.filesystem, machine=self.machine, sleep=self._sleep
        )
        self.runner = Runner(
            prechecks=prechecks,
            puller=puller,
            put=self._put,
            parallel=parallel_tasks,
            sleep=self._sleep,
            uniform=lambda _low, high: high,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.on_sleep()
        await asyncio.sleep(0)

    async def _put(self, _task: Task, report: Report, state: TaskState) -> None:
        self.put.append((report.action, report.succ, state))

    def live(self, *images: str, seconds: float = 60.0, **options: Any) -> LiveTask:
        operation = options.pop("operation", Operation.CHECK)
        credentials = options.get("credentials") or {}
        asked = task(*images, operation=operation, **options)
        deadline = asyncio.get_running_loop().time() + seconds
        return LiveTask(task=asked, deadline=deadline, credentials=credentials)

    def run(self, live: LiveTask) -> Awaitable[Report]:
        return self.runner.run(live)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_checks_are_reported_then_the_images_are_pulled(bench: Bench) -> None:
    report = await bench.run(bench.live("a", "b", checks=("disk",)))
    assert bench.put == [("Check", True, TaskState.PULLING)]
    assert (report.action, report.succ, len(report.images())) == ("Pull", True, 2)
    assert sorted(image for image, _ in bench.runtime.pulls) == ["a", "b"]


async def test_an_image_that_is_here_is_not_pulled(bench: Bench) -> None:
    bench.runtime.present["a"] = await bench.runtime.pull("a", None)
    bench.runtime.pulls.clear()
    report = await bench.run(bench.live("a"))
    assert report.succ
    assert bench.runtime.pulls == []


async def test_failed_checks_end_the_task_before_any_pull(bench: Bench) -> None:
    bench.machine.disk_used = 91
    report = await bench.run(bench.live("a", checks=("disk",)))
    assert (report.action, report.succ) == ("Check", False)
    assert "disk: / is 91 % used" in report.reason
    assert bench.put == []
    assert bench.runtime.pulls == []


async def test_a_pull_dispatch_skips_the_checks(bench: Bench) -> None:
    bench.machine.disk_used = 91
    report = await bench.run(bench.live("a", checks=("disk",), operation=Operation.PULL))
    assert (report.action, report.succ, bench.put) == ("Pull", True, [])


async def test_checks_that_went_well_before_a_restart_are_not_repeated(bench: Bench) -> None:
    bench.machine.disk_used = 91
    live = bench.live("a", checks=("disk",))
    live.checked = True
    report = await bench.run(live)
    assert (report.action, report.succ, bench.put) == ("Pull", True, [])


async def test_an_image_whose_pull_ended_without_a_result_is_no_success(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pull(*_args: object, **_options: object) -> None:
        # As a TaskGroup that ends in an error does before Python 3.13: its task counts as cancelled from then on.
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        raise TransientPullError("broken off")

    monkeypatch.setattr(bench.runtime, "pull", pull)
    report = await bench.run(bench.live("a", retries=1))
    assert not report.succ
    (image,) = report.images()
    assert (image.ok, image.reason) == (False, "internal error of the agent: its pull ended without a result")


@pytest.mark.parametrize("error", [PullDenied("no"), ImageNotFound("no"), InvalidImage("no"), NoSpace("no")])
async def test_what_somebody_must_mend_is_not_tried_again(bench: Bench, error: Any) -> None:
    bench.runtime.errors["a"] = [error]
    report = await bench.run(bench.live("a", retries=5))
    assert not report.succ
    assert len(bench.runtime.pulls) == 1
    assert bench.slept == []


async def test_only_the_failed_image_is_tried_again(bench: Bench) -> None:
    bench.runtime.errors["b"] = [TransientPullError("reset"), TransientPullError("reset")]
    report = await bench.run(bench.live("a", "b", retries=2))
    assert report.succ
    assert [image for image, _ in bench.runtime.pulls].count("a") == 1
    assert [image for image, _ in bench.runtime.pulls].count("b") == 3
    assert bench.slept == [2.0, 4.0]


async def test_retry_times_bounds_the_tries(bench: Bench) -> None:
    bench.runtime.errors["a"] = [TransientPullError(f"reset {n}") for n in range(9)]
    report = await bench.run(bench.live("a", retries=2))
    assert len(bench.runtime.pulls) == 3
    assert report.images()[0].reason == "reset 2"


async def test_each_image_has_its_own_result(bench: Bench) -> None:
    bench.runtime.errors["b"] = [ImageNotFound("no such tag")]
    report = await bench.run(bench.live("a", "b", "c"))
    assert [(result.image, result.ok) for result in report.images()] == [("a", True), ("b", False), ("c", True)]
    assert report.reason == "1 of 3 images failed: b: no such tag"


async def test_a_runtime_that_is_away_is_waited_for_and_costs_no_retry(bench: Bench) -> None:
    bench.runtime.away = True

    def heal() -> None:
        bench.runtime.away = len(bench.slept) < 4

    bench.on_sleep = heal
    report = await bench.run(bench.live("a", retries=0, checks=("disk",)))
    assert report.succ
    assert len(bench.slept) == 4


async def test_a_runtime_that_stays_away_is_told_before_the_time_is_up(bench: Bench) -> None:
    bench.runtime.away = True
    live = bench.live("a", seconds=100)
    bench.on_sleep = lambda: live.prolong(live.deadline - bench.slept[-1])
    report = await bench.run(live)
    assert (report.action, report.succ) == ("Pull", False)
    assert report.images()[0].reason == "containerd does not answer"
    assert sum(bench.slept) < 100


async def test_a_runtime_away_during_the_checks_is_the_checks_reason(bench: Bench) -> None:
    bench.runtime.away = True
    live = bench.live("a", seconds=100, checks=("disk",))
    bench.on_sleep = lambda: live.prolong(live.deadline - bench.slept[-1])
    report = await bench.run(live)
    assert (report.action, report.succ, report.reason) == ("Check", False, "containerd does not answer")


async def test_the_credential_of_each_image_goes_to_that_image_alone(bench: Bench) -> None:
    secret = Credential(registry="r", username="u", password="p")
    await bench.run(bench.live("r/a", "other/b", credentials={"r/a": secret}))
    assert dict(bench.runtime.pulls) == {"r/a": secret, "other/b": None}


async def test_fresh_credentials_are_used_for_the_next_try(bench: Bench) -> None:
    old, new = (Credential(registry="r", username="u", password=text) for text in ("old", "new"))
    bench.runtime.errors["a"] = [TransientPullError("reset")]
    live = bench.live("a", retries=1, credentials={"a": old})

    def refresh() -> None:
        live.credentials = {"a": new}

    bench.on_sleep = refresh
    await bench.run(live)
    assert bench.runtime.pulls == [("a", old), ("a", new)]


async def test_a_denied_pull_names_the_secret_that_had_nothing_for_it(bench: Bench) -> None:
    bench.runtime.errors["a"] = [PullDenied("the registry refused")]
    report = await bench.run(bench.live("a", secret="default/my-secret"))
    assert "default/my-secret" in report.images()[0].reason


async def test_the_deadline_stops_the_pull_and_says_how_far_it_was(bench: Bench) -> None:
    bench.runtime.held["b"] = asyncio.Event()
    live = bench.live("a", "b", seconds=60)
    running = asyncio.ensure_future(bench.run(live))
    await until(lambda: "b" in bench.runtime.pulling and live.images["a"].state is ImageState.SUCCESSFUL)
    live.prolong(asyncio.get_running_loop().time())
    report = await running
    assert bench.runtime.pulling == set()
    assert [result.ok for result in report.images()] == [True, False]
    assert report.images()[1].reason == "time is up: 0.0 of 0.0 MiB were here"


async def test_time_spent_behind_other_tasks_counts(bench: Bench) -> None:
    bench = Bench(parallel_tasks=1)
    bench.runtime.held["a"] = asyncio.Event()
    first = asyncio.ensure_future(bench.run(bench.live("a", uid="1")))
    await bench.runtime.started.wait()
    report = await bench.run(bench.live("b", uid="2", seconds=0))
    assert (report.action, report.succ, report.reason) == ("Check", False, "time is up: waited behind other tasks")
    bench.runtime.held["a"].set()
    assert (await first).succ


async def test_a_later_deadline_holds_from_when_it_is_told(bench: Bench) -> None:
    bench.runtime.held["a"] = asyncio.Event()
    live = bench.live("a", seconds=0.02)
    running = asyncio.ensure_future(bench.run(live))
    await bench.runtime.started.wait()
    live.prolong(asyncio.get_running_loop().time() + 60)
    _, pending = await asyncio.wait({running}, timeout=0.1)
    assert pending == {running}
    bench.runtime.held["a"].set()
    assert (await running).succ


async def test_never_more_pulls_at_once_than_allowed_over_all_tasks(bench: Bench) -> None:
    bench = Bench(parallel_tasks=5, parallel_pulls=2)
    lives = [bench.live(*(f"{n}-{m}" for m in range(4)), uid=str(n)) for n in range(5)]
    reports = await asyncio.gather(*(bench.run(live) for live in lives))
    assert all(report.succ for report in reports)
    assert bench.runtime.most_at_once == 2


async def test_two_tasks_with_the_same_image_pull_it_once(bench: Bench) -> None:
    bench.runtime.held["a"] = asyncio.Event()
    running = [asyncio.ensure_future(bench.run(bench.live("a", uid=uid))) for uid in "12"]
    await bench.runtime.started.wait()
    bench.runtime.held["a"].set()
    assert all(report.succ for report in await asyncio.gather(*running))
    assert len(bench.runtime.pulls) == 1


async def test_cancelling_the_task_stops_its_pulls(bench: Bench) -> None:
    bench.runtime.held["a"] = asyncio.Event()
    running = asyncio.ensure_future(bench.run(bench.live("a")))
    await bench.runtime.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.runtime.pulling == set()


async def test_an_error_of_our_own_is_a_result_with_its_name(bench: Bench) -> None:
    class Broken(ScriptedRuntime):
        async def status(self, image: str) -> Any:
            raise KeyError(image)

    bench.runtime.__class__ = Broken
    report = await bench.run(bench.live("a"))
    assert report.images()[0].reason == "internal error of the agent: KeyError"


def test_credentials_are_in_no_repr() -> None:
    secret = Credential(registry="r", username="u", password="sesame")
    live = LiveTask(task=task("a"), deadline=0, credentials={"a": secret})
    assert "sesame" not in repr(live) + repr(dispatch("a", credentials={"a": secret}))


async def test_a_registry_that_asks_to_be_left_alone_is_left_alone_so_long_and_some_more(bench: Bench) -> None:
    bench.runtime.errors["a"] = [TransientPullError("429", retry_after=20), TransientPullError("reset")]
    report = await bench.run(bench.live("a", retries=2))
    assert report.succ
    assert bench.slept == [22.0, 4.0]


async def test_a_registry_that_asks_for_more_than_the_time_left_ends_the_image_with_that_reason(bench: Bench) -> None:
    bench.runtime.errors["a"] = [TransientPullError("the registry answered 429", retry_after=3600)]
    report = await bench.run(bench.live("a", seconds=100, retries=5))
    (result,) = report.images()
    assert result.reason == "the registry answered 429; it is to be left alone for 3600 s, and the task has 100 s"
    assert (bench.slept, len(bench.runtime.pulls)) == ([], 1)


@pytest.mark.parametrize("hindrance", [OSError("disk"), TransientPullError("reset")])
async def test_an_error_while_a_cancelled_pull_cleans_up_starts_no_other_pull(
    bench: Bench, hindrance: Exception
) -> None:
    class Untidy(ScriptedRuntime):
        async def pull(self, *arguments: Any, **options: Any) -> Any:
            try:
                return await super().pull(*arguments, **options)
            except asyncio.CancelledError:
                raise hindrance from None

    bench = Bench(parallel_pulls=1)
    bench.runtime.__class__ = Untidy
    bench.runtime.held["a"] = asyncio.Event()
    running = asyncio.ensure_future(bench.run(bench.live("a", "b", "c", retries=5)))
    await bench.runtime.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [image for image, _ in bench.runtime.pulls] == ["a"]


async def test_time_that_is_up_while_the_checks_are_committed_ends_the_pulls_and_keeps_the_commit(bench: Bench) -> None:
    live = bench.live("a")
    live_put = bench.put
    committing = asyncio.Event()
    committed = asyncio.Event()

    async def put(_task: Task, report: Report, state: TaskState) -> None:
        committing.set()
        await committed.wait()
        live_put.append((report.action, report.succ, state))

    bench.runner._put = put
    running = asyncio.ensure_future(bench.run(live))
    await committing.wait()
    live.prolong(asyncio.get_running_loop().time())
    await asyncio.sleep(0.01)
    committed.set()
    report = await running
    assert bench.put == [("Check", True, TaskState.PULLING)]
    assert (report.action, report.succ) == ("Pull", False)
    assert "time is up" in report.images()[0].reason
