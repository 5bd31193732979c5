"""Reports that are broken, hostile, or come while the store is away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.records import Commit
from cloudhub.taskmanager import reports
from shared.wire import Operation, Route, new_message
from tests.integration.taskmanager.world import STOCK, World


@pytest.mark.parametrize(
    "content",
    [
        None,
        "text",
        [],
        {},
        {"action": "Pull"},
        {"action": "Reboot", "succ": True},
        {"action": "Pull", "succ": "perhaps"},
        {"action": "Pull", "succ": True, "extend": "{not json"},
        {"action": "Pull", "succ": True, "extend": '[{"image": "i", "status": "Maybe"}]'},
        {"action": "Pull", "succ": True, "extend": '{"image": "i"}'},
        {"action": "Pull", "succ": True, "task": {"job_uid": "u", "attempt": 0}},
        {"action": "Pull", "succ": True, "task": "u"},
        {"action": "x" * 1000, "succ": True},
        {"action": "Pull", "succ": True, "extend": "x" * 5000},
    ],
)
async def test_malformed_reports_are_counted_and_change_nothing(world: World, content: Any) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    message = new_message(
        source="websocket",
        group="hub",
        resource="operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/a",
        operation=Operation.REPORT,
        content=content,
    )
    await world.manager.messages_received(world.sessions.live["a"], [message])
    assert world.metrics.refusals_total.value("malformed") == 1
    assert await world.stored_state("a") == "Checking"


@pytest.mark.parametrize("resource", ["", "node", "operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/a/b", "//"])
async def test_a_report_for_no_task_is_malformed(world: World, resource: str) -> None:
    world.sessions.connect("a")
    message = new_message(source="websocket", group="hub", resource="x", operation=Operation.REPORT, content={})
    message = message.model_copy(update={"route": Route(operation=Operation.REPORT, resource=resource)})
    await world.manager.messages_received(world.sessions.live["a"], [message])
    assert world.metrics.refusals_total.value("malformed") == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_REPORT = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["Check", "Pull"]) | _JSON,
        "succ": st.booleans() | _JSON,
        "reason": _JSON,
        "extend": _JSON,
        "task": _JSON | st.fixed_dictionaries({"job_uid": st.text(max_size=5), "attempt": st.integers()}),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=_REPORT | _JSON)
async def test_no_content_of_a_report_does_harm(world: World, content: Any) -> None:
    if "other" not in world.sessions.live:
        world.nodes.add("other", "a")
        world.sessions.connect("other", "a")
        world.job(nodes=["a"])
        await world.until(lambda: world.asked("a"))
    message = new_message(
        source="websocket",
        group="hub",
        resource="operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/other",
        operation=Operation.REPORT,
        content=content,
    )
    await world.manager.messages_received(world.sessions.live["other"], [message])
    assert await world.stored_state("a") == "Checking"


async def test_reports_that_arrive_together_are_stored_together(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    together = [
        new_message(
            source="websocket",
            group="hub",
            resource=f"operations.kubeedge.io/v1alpha2/imageprepulljob/{asked.job}/node/a",
            operation=Operation.REPORT,
            content={"action": action, "succ": True, "task": {"job_uid": asked.uid, "attempt": asked.attempt}}
            | ({"extend": json.dumps([{"image": image, "status": "True"} for image in asked.images])} if last else {}),
        )
        for action, last in (("Check", False), ("Pull", True))
    ]
    commits: list[list[tuple[str, str | None]]] = []
    original = world.store.on_commit

    def on_commit(commit: Commit) -> None:
        commits.append([(str(outcome.change.event), outcome.after) for outcome in commit.outcomes])
        original(commit)

    world.store.on_commit = on_commit
    await world.manager.messages_received(world.sessions.live["a"], together)
    assert commits[0] == [("CheckSucceeded", "Pulling"), ("PullSucceeded", "Successful")]
    assert world.sessions.node("a").acknowledged == [message.header.msg_id for message in together]
    await world.until_state("Successful")


async def test_other_messages_are_counted_and_ignored(world: World) -> None:
    world.sessions.connect("a")
    message = new_message(source="twin", group="resource", resource="membership/detail", operation="get")
    await world.manager.messages_received(world.sessions.live["a"], [message])
    assert world.metrics.messages_ignored_total.value("get") == 1


async def test_an_edgecore_gets_no_acknowledgement(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK, behaviour=world.sessions.obey)
    world.job(nodes=["a"])
    await world.until_state("Successful")
    assert world.sessions.node("a").acknowledged == []


async def test_a_lost_report_of_the_check_is_not_needed(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_state("Successful")


async def test_a_node_about_to_pull_for_a_task_that_is_over_is_told_to_stop(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    world.sessions.disconnect("a")
    world.jobs.delete("job")
    await world.until_idle()
    world.sessions.connect("a")
    assert world.sessions.node("a").cancelled == []
    await world.sessions.report("a", "job", action="Check", uid=uid, attempt=1)
    (cancel,) = world.sessions.node("a").cancelled
    assert (cancel["job_uid"], cancel["attempt"]) == (uid, 1)
    assert len(world.sessions.node("a").acknowledged) == 1


class _Trouble:
    """The store as it is on a full disk."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._over = asyncio.Event()
        self._apply, self._working = world.store.apply, world.store.working
        world.store.apply = self._fail  # type: ignore[method-assign,assignment]
        world.store.working = self._over.wait  # type: ignore[method-assign,assignment]

    async def _fail(self, changes: object) -> object:
        if changes:
            raise StoreUnavailable("database or disk is full")
        return []

    def end(self) -> None:
        self._world.store.apply = self._apply  # type: ignore[method-assign]
        self._world.store.working = self._working  # type: ignore[method-assign]
        self._over.set()


async def test_reports_are_held_while_the_store_is_away_and_acknowledged_after(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], concurrency=1)
    await world.until(lambda: world.asked("a"))
    trouble = _Trouble(world)
    (asked,) = world.asked("a")
    # The session goes on being read: none of these waits for the disk.
    async with asyncio.timeout(5):
        await world.sessions.check("a", asked)
        await world.sessions.pull("a", asked)
        await world.sessions.pull("a", asked)
    await world.until_idle()
    assert world.sessions.node("a").acknowledged == []
    assert world.asked("b") == []
    trouble.end()
    await world.until(lambda: world.asked("b"))
    await world.until(lambda: len(world.sessions.node("a").acknowledged) == 2)
    await world.sessions.pull("b", world.asked("b")[0])
    await world.until_state("Successful")


async def test_what_a_node_can_make_the_hub_hold_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_HELD", 3)
    world.sessions.connect("a")
    trouble = _Trouble(world)
    for number in range(10):
        await world.sessions.report("a", "job", action="Pull", uid=f"u{number}", attempt=1)
    assert world.metrics.refusals_total.value("store_unavailable") == 7
    trouble.end()
    await world.until(lambda: len(world.sessions.node("a").acknowledged) == 3)


async def test_what_is_held_of_a_node_is_bounded_in_text_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_HELD_TEXT", 10_000)
    world.sessions.connect("a")
    trouble = _Trouble(world)
    for number in range(5):
        await world.sessions.report(
            "a", "job", action="Pull", succ=False, uid=f"u{number}", attempt=1, reason="x" * 4000
        )
    # In the place of one that is held.
    await world.sessions.report("a", "job", action="Pull", succ=False, uid="u0", attempt=1, reason="y" * 4000)
    assert world.metrics.refusals_total.value("store_unavailable") == 3
    trouble.end()
    await world.until(lambda: len(world.sessions.node("a").acknowledged) == 2)
