"""What the hub says, put into effect, with a real journal and outbox."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edgehub.tasks.journal import Journal
from edgehub.tasks.live import Phase
from edgehub.tasks.model import TaskState, check_report
from edgehub.tasks.outbox import MAX_UNJOURNALED, RESEND_AFTER, Outbox
from edgehub.tasks.prechecks import Limits, PreChecks, ThisMachine
from edgehub.tasks.pulls import Puller
from edgehub.tasks.runner import Runner
from edgehub.tasks.secrets import Credentials
from edgehub.tasks.service import TaskService
from shared import prepull, wire
from shared.wire import Cancel, Credential, Feature, Group, Message, Operation, Source, new_message
from tests.chaos.agents import unacknowledged
from tests.unit.edgehub.scripted import (
    ALL_FEATURES,
    NODE,
    RecordingChannel,
    ScriptedRuntime,
    dispatch,
    full_disk,
    record,
    task,
    until,
)


class Node:
    """The task layer of one agent; `restart` is a new life on the same journal."""

    def __init__(self, folder: Path, *, enabled: bool = True, max_tasks: int = 10) -> None:
        self.folder = folder
        self.runtime = ScriptedRuntime()
        self.now = 0.0
        self.enabled = enabled
        self.max_tasks = max_tasks
        self.query_timeout = 60.0
        self.first_report_delay = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._build()

    def _build(self) -> None:
        self.journal = Journal(self.folder / "journal.db")
        self.outbox = Outbox(
            journal=self.journal, first_report_delay=self.first_report_delay, monotonic=lambda: self.now
        )
        prechecks = PreChecks(limits=Limits(disk=100), filesystem=self.runtime.filesystem, machine=ThisMachine())
        credentials = Credentials(query_timeout=self.query_timeout)
        puller = Puller(runtime=self.runtime, credentials=credentials, parallel=2)
        self.service = TaskService(
            node=NODE,
            journal=self.journal,
            outbox=self.outbox,
            runner=Runner(prechecks=prechecks, puller=puller, put=self.outbox.put, parallel=2),
            credentials=credentials,
            max_tasks=self.max_tasks,
            task_timeout=60,
            enabled=self.enabled,
        )

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self.service.run(), name="service"),
            asyncio.create_task(self.outbox.run(), name="outbox"),
        ]

    async def stop(self) -> None:
        for running in self._tasks:
            running.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.journal.close()

    async def restart(self) -> None:
        await self.stop()
        self.runtime.started.clear()
        self._build()
        self.start()

    def connect(self, *features: Feature) -> RecordingChannel:
        channel = RecordingChannel(*features)
        self.service.connected(channel)
        return channel

    async def ask(self, *images: str, job: str = "job", operation: Operation = Operation.CHECK, **options: Any) -> None:
        content = dispatch(*images, **options).model_dump(mode="json", exclude_none=True)
        await self.tell(job, operation, content)

    async def tell(self, job: str, operation: str, content: Any, *, node: str = NODE) -> None:
        await self.service.received(
            new_message(
                source=Source.TASK_MANAGER,
                group=Group.TASK_MANAGER,
                resource=wire.task_resource(job, node),
                operation=operation,
                content=content,
            )
        )

    async def cancel(self, *, uid: str = "uid-1", attempt: int = 1) -> None:
        content = Cancel(job_uid=uid, attempt=attempt, reason="the job was deleted").model_dump(mode="json")
        await self.tell("job", Operation.CANCEL, content)

    async def acknowledge(self, message: Message) -> None:
        await self.service.received(
            new_message(
                source=Source.TASK_MANAGER,
                group=Group.TASK_MANAGER,
                resource=message.route.resource,
                operation=Operation.ACK,
                parent=message.header.msg_id,
                content="OK",
            )
        )

    async def fill_journal(self) -> None:
        """Beyond what `full_disk` allows to be written."""
        for number in range(40):
            await self.journal.accept(task("x" * 1000, uid=f"old-{number}"))

    async def hold(self, image: str) -> None:
        """A task that pulls ``image`` and does not come to its end."""
        self.runtime.held[image] = asyncio.Event()
        await self.ask(image)
        await self.runtime.started.wait()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    node.start()
    yield node
    await node.stop()


CHECKED, PULLED = ("Check", True), ("Pull", True)


async def test_a_task_reports_its_check_and_its_pull(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: channel.reports == [CHECKED, PULLED])
    first = channel.sent[0]
    assert (first.route.source, first.route.group, first.route.operation) == (
        "websocket",
        "hub",
        "UpdateNodeActionStatus",
    )
    assert first.content["task"] == {"job_uid": "uid-1", "attempt": 1}


async def test_reports_wait_until_they_are_acknowledged(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    assert node.outbox.waiting == 2
    for message in list(channel.sent):
        await node.acknowledge(message)
    assert node.outbox.waiting == 0
    assert await node.journal.pending_reports() == []


async def test_what_was_not_acknowledged_goes_out_again_after_a_reconnect(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    await node.acknowledge(channel.sent[0])
    node.service.disconnected()
    again = node.connect(*ALL_FEATURES)
    await until(lambda: again.reports == [PULLED])
    assert again.sent[0].content == channel.sent[1].content
    assert again.sent[0].header.msg_id != channel.sent[1].header.msg_id


async def test_what_was_not_acknowledged_goes_out_again_after_a_minute(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    node.now += RESEND_AFTER
    node.outbox.remind("none of this name")
    await until(lambda: len(channel.sent) == 4)


async def test_a_report_made_while_offline_is_sent_when_there_is_a_session(node: Node) -> None:
    await node.ask("a")
    await until(lambda: node.outbox.waiting == 2)
    channel = node.connect(*ALL_FEATURES)
    await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_a_finished_result_outlives_a_restart(node: Node) -> None:
    await node.ask("a")
    await until(lambda: node.outbox.waiting == 2)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await until(lambda: channel.reports == [CHECKED, PULLED])
    assert [task.task.job for task in node.service.finished] == ["job"]


async def test_a_send_that_fails_is_repeated_on_the_next_session(node: Node) -> None:
    node.connect(*ALL_FEATURES).broken = True
    await node.ask("a")
    await until(lambda: node.outbox.waiting == 2)
    channel = node.connect(*ALL_FEATURES)
    await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_to_a_cloudcore_written_is_done(node: Node) -> None:
    channel = node.connect()
    await node.ask("a", uid=None)
    await until(lambda: channel.reports == [CHECKED, PULLED] and node.outbox.waiting == 0)
    assert "task" not in channel.sent[0].content


async def test_asked_again_while_at_work_starts_nothing_and_takes_the_new_credentials(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    fresh = Credential(registry="r", username="u", password="new")
    await node.ask("a", credentials={"a": fresh}, timeout=1000)
    (live,) = node.service.live
    assert live.credentials == {"a": fresh}
    assert live.seconds_left() > 900
    node.runtime.held["a"].set()
    await until(lambda: channel.reports[-1:] == [PULLED])
    assert len(node.runtime.pulls) == 1


async def test_asked_again_when_finished_answers_from_the_journal(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    for message in list(channel.sent):
        await node.acknowledge(message)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 3)
    assert channel.sent[2].content == channel.sent[1].content
    assert len(node.runtime.pulls) == 1


async def test_asked_again_after_a_restart_when_finished_answers_too(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    for message in list(channel.sent):
        await node.acknowledge(message)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: channel.reports == [PULLED])
    assert len(node.runtime.pulls) == 1


async def test_a_restart_during_a_pull_goes_on_when_asked_again_without_the_checks(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await until(lambda: channel.reports == [CHECKED])
    await node.acknowledge(channel.sent[0])
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    assert list(node.service.live) == []
    del node.runtime.held["a"]
    await node.ask("a")
    await until(lambda: channel.reports == [PULLED])


async def test_a_newer_attempt_replaces_the_older(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await node.ask("b", attempt=2)
    await until(lambda: channel.reports[-1:] == [PULLED])
    assert channel.sent[-1].content["task"]["attempt"] == 2
    assert node.runtime.pulling == set()


async def test_an_older_attempt_is_ignored(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a", attempt=2)
    await until(lambda: len(channel.sent) == 2)
    await node.ask("b", attempt=1)
    assert list(node.service.live) == []
    assert [image for image, _ in node.runtime.pulls] == ["a"]


async def test_a_new_job_of_the_same_name_replaces_the_former(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await node.ask("b", uid="uid-2")
    await until(lambda: channel.reports[-1:] == [PULLED])
    assert channel.sent[-1].content["task"]["job_uid"] == "uid-2"
    entry = await node.journal.get("uid-1")
    assert entry is not None
    assert entry.state is TaskState.CANCELLED


async def test_cancel_stops_the_pull_and_reports_nothing(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await until(lambda: channel.reports == [CHECKED])
    await node.cancel()
    assert node.runtime.pulling == set()
    assert list(node.service.live) == []
    assert node.outbox.waiting == 0
    assert channel.reports == [CHECKED]


async def test_cancel_of_an_older_attempt_changes_nothing(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    node.runtime.held["a"] = asyncio.Event()
    await node.ask("a", attempt=2)
    await node.runtime.started.wait()
    await node.cancel(attempt=1)
    node.runtime.held["a"].set()
    await until(lambda: channel.reports[-1:] == [PULLED])


async def test_cancel_of_a_finished_task_keeps_its_result(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 2)
    await node.cancel()
    entry = await node.journal.get("uid-1")
    assert entry is not None
    assert entry.state is TaskState.FINISHED


async def test_a_task_that_was_cancelled_before_its_first_step_leaves_nothing(node: Node) -> None:
    await node.ask("a")
    await node.cancel()
    assert list(node.service.live) == []


async def test_a_cancelled_task_that_is_asked_again_is_done_again(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await node.cancel()
    del node.runtime.held["a"]
    await node.ask("a")
    await until(lambda: channel.reports[-1:] == [PULLED])


async def test_a_cloudcore_that_asks_again_gets_it_done_again(node: Node) -> None:
    channel = node.connect()
    for count in (2, 4):
        await node.ask("a", uid=None)
        await until(lambda count=count: len(channel.sent) == count)  # type: ignore[misc]
    assert channel.reports == [CHECKED, PULLED, CHECKED, PULLED]
    assert len(node.runtime.pulls) == 1  # it is here


async def test_a_cloudcore_that_asks_again_during_the_pull_starts_nothing(node: Node) -> None:
    node.connect()
    node.runtime.held["a"] = asyncio.Event()
    await node.ask("a", uid=None)
    await node.runtime.started.wait()
    await node.ask("a", uid=None)
    assert len(list(node.service.live)) == 1


async def test_more_tasks_than_fit_are_refused_with_a_reason(tmp_path: Path) -> None:
    node = Node(tmp_path, max_tasks=3)
    node.start()
    channel = node.connect(*ALL_FEATURES)
    for number in range(4):
        node.runtime.held[f"image-{number}"] = asyncio.Event()
        await node.ask(f"image-{number}", job=f"job-{number}", uid=f"uid-{number}")
    assert len(list(node.service.live)) == 3
    await until(lambda: [live.phase for live in node.service.live] == [Phase.PULLING, Phase.PULLING, Phase.QUEUED])
    await until(lambda: ("Check", False) in channel.reports)
    refusal = next(message for message in channel.sent if not message.content["succ"])
    assert refusal.content["task"]["job_uid"] == "uid-3"
    assert "the node has 3 tasks already" in refusal.content["reason"]
    await node.stop()


async def test_a_node_with_its_task_manager_off_says_so(tmp_path: Path) -> None:
    node = Node(tmp_path, enabled=False)
    node.start()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: len(channel.sent) == 1)
    assert channel.sent[0].content["reason"] == "modules.taskManager.enable is false on this node"
    await node.stop()


async def test_a_full_disk_is_a_report_and_no_crash(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.fill_journal()
    with full_disk():
        await node.ask("a")
        await until(lambda: channel.reports == [("Check", False)])
    assert "the journal" in channel.sent[0].content["reason"]
    await node.ask("a")  # there is room again
    await until(lambda: channel.reports[-1:] == [PULLED])


async def test_a_result_that_cannot_be_committed_is_sent_all_the_same(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.fill_journal()
    await node.hold("a")
    await until(lambda: channel.reports == [CHECKED])
    with full_disk():
        node.runtime.held["a"].set()
        await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_an_acknowledgement_that_the_full_disk_did_not_take_is_noted_when_there_is_room(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehub.tasks.outbox.FORGET_AFTER", 0.05)
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: channel.reports == [CHECKED, PULLED])
    await node.fill_journal()
    with full_disk():
        for message in channel.sent:
            await node.acknowledge(message)
        assert node.outbox.waiting == 0
        assert unacknowledged(node.folder / "journal.db") == 2
    await until(lambda: unacknowledged(node.folder / "journal.db") == 0)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("b", uid="uid-2")
    await until(lambda: channel.reports == [CHECKED, PULLED])


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        ("Check", {"imagePrePullTemplate": {"images": []}}),
        ("Check", None),
        ("Pull", {"imagePrePullTemplate": {"images": ["a"]}, "task": {"job_uid": "u", "attempt": 1}}),
    ],
)
async def test_a_dispatch_that_cannot_be_read_is_a_failed_check(node: Node, operation: str, content: Any) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.tell("job", operation, content)
    await until(lambda: channel.reports == [("Check", False)])
    assert "cannot read the task" in channel.sent[0].content["reason"]


async def test_messages_of_others_and_of_other_nodes_are_ignored(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    content = dispatch("a").model_dump(mode="json", exclude_none=True)
    await node.tell("job", Operation.CHECK, content, node="other")
    await node.tell("job", "Upgrade", content)
    await node.tell("job", Operation.CANCEL, {"job_uid": 5})
    await node.service.received(new_message(source="x", group="resource", resource="y", operation="Check", content=1))
    await node.service.received(new_message(source="taskmanager", group="taskmanager", resource="x", operation="Pull"))
    await node.ask("b")
    await until(lambda: channel.reports == [CHECKED, PULLED])
    assert [image for image, _ in node.runtime.pulls] == ["b"]


async def test_a_result_in_the_middle_of_its_commit_survives_the_stop(node: Node) -> None:
    await node.hold("a")
    node.runtime.held["a"].set()
    await until(lambda: not node.runtime.pulling)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: channel.reports[-1:] == [PULLED])
    assert len(node.runtime.pulls) == 1


async def test_a_task_that_did_not_stop_in_time_does_not_overwrite_its_next_attempt(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(ScriptedRuntime):
        async def pull(self, image: str, *arguments: Any, **options: Any) -> Any:
            self.pulls.append((image, None))
            self.started.set()
            while not self.held["a"].is_set():
                try:
                    await self.held["a"].wait()
                except asyncio.CancelledError:
                    continue
            self.present[image] = record(image)
            return self.present[image]

    monkeypatch.setattr("edgehub.tasks.service.STOP_TIMEOUT", 0.05)
    node.runtime.__class__ = Stubborn
    channel = node.connect(*ALL_FEATURES)
    await node.hold("a")
    await node.ask("a", attempt=2)
    node.runtime.held["a"].set()
    await until(lambda: ("Pull", True) in channel.reports)
    pulled = [message for message in channel.sent if message.content["action"] == "Pull"]
    assert [message.content["task"]["attempt"] for message in pulled] == [2]
    entry = await node.journal.get("uid-1")
    assert entry is not None
    assert (entry.task.attempt, entry.state) == (2, TaskState.FINISHED)


async def test_a_time_limit_beyond_the_calendar_is_served_like_a_long_one(node: Node) -> None:
    node.runtime.held["a"] = asyncio.Event()
    await node.ask("a", timeout=10**30)
    await node.runtime.started.wait()
    (live,) = node.service.live
    assert datetime.fromtimestamp(time.time() + live.seconds_left(), UTC).year < 2100


async def test_an_attempt_that_no_database_can_hold_is_refused_at_the_door(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    content = dispatch("a").model_dump(mode="json", exclude_none=True)
    content["task"]["attempt"] = 10**30
    with capture_logs() as logs:
        await node.tell("job", Operation.CHECK, content)
    assert [entry["reason"] for entry in logs if "task.attempt: " in entry.get("reason", "")] != []
    assert not list(node.service.live)
    assert channel.reports == []  # it could not be said which attempt is refused
    await node.ask("a")
    await until(lambda: channel.reports == [("Check", True), ("Pull", True)])


async def test_refusals_that_nobody_acknowledges_do_not_pile_up(node: Node) -> None:
    node.outbox.connected(RecordingChannel(*ALL_FEATURES))
    for number in range(MAX_UNJOURNALED + 5):
        report = check_report(reason="no", extras=None)
        node.outbox.put_unjournaled(key=f"k{number}", resource="r", report=report, node=NODE)
    assert node.outbox.waiting == MAX_UNJOURNALED


async def test_a_report_to_a_cloudcore_is_held_until_its_own_note_of_the_start_is_written(node: Node) -> None:
    node.first_report_delay = 2.0
    await node.restart()
    channel = node.connect()
    await node.ask("a", uid=None)
    await until(lambda: node.outbox.waiting == 2)
    node.now = 1.9
    node.service.connected(channel)
    await asyncio.sleep(0)
    assert channel.sent == []
    node.now = 2.0
    node.service.connected(channel)
    await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_a_held_report_whose_time_comes_while_it_is_looked_at_goes_out(tmp_path: Path) -> None:
    # Made, looked at, sent; made, looked at; then its time has come.
    moments = itertools.chain([0.0, 5.0, 5.0, 10.0, 11.999], itertools.repeat(12.0))
    outbox = Outbox(journal=Journal(tmp_path / "journal.db"), first_report_delay=2.0, monotonic=lambda: next(moments))
    channel = RecordingChannel()
    outbox.connected(channel)
    running = asyncio.create_task(outbox.run(), name="outbox")
    for count in (1, 2):
        outbox.put_unjournaled(key="k", resource="r", report=check_report(reason="", extras=None), node=NODE)
        await until(lambda count=count: channel.reports == count * [CHECKED])  # type: ignore[misc]
    running.cancel()
    await asyncio.wait([running])


async def test_a_report_to_a_hub_that_acknowledges_is_not_held(node: Node) -> None:
    node.first_report_delay = 2.0
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a")
    await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_a_hub_that_never_answers_about_a_secret_is_asked_three_times(node: Node) -> None:
    node.query_timeout = 0.01
    await node.restart()
    channel = node.connect()
    await node.ask("a", "b", uid=None, secret="default/my-secret")
    await until(lambda: [m.route.operation for m in channel.sent].count(Operation.REPORT) == 2)
    assert [m.route.operation for m in channel.sent].count(Operation.QUERY) == 3
    final = channel.sent[-1].content
    assert "the hub did not answer within 0.01 s" in final["extend"]
    assert node.runtime.pulls == []


async def test_an_answer_that_nobody_asked_for_changes_nothing(node: Node) -> None:
    channel = node.connect()
    await node.service.received(
        new_message(
            source=Source.EDGE_CONTROLLER,
            group=Group.RESOURCE,
            resource="default/secret/x",
            operation=Operation.RESPONSE,
            content={"data": {}},
            parent="nobody",
        )
    )
    assert channel.sent == []
    await node.ask("a", uid=None)
    await until(lambda: channel.reports == [CHECKED, PULLED])


async def test_the_agents_own_hub_is_never_asked_for_a_secret(node: Node) -> None:
    channel = node.connect(*ALL_FEATURES)
    await node.ask("a", secret="default/my-secret")
    await until(lambda: channel.reports == [CHECKED, PULLED])
    assert node.runtime.pulls == [("a", None)]


async def test_an_older_pull_that_is_asked_again_at_work_starts_nothing(node: Node) -> None:
    channel = node.connect()
    node.runtime.held["a"] = asyncio.Event()
    content = {"TaskID": "job", "Type": "prepull", "State": "Pulling", "Item": {"Images": ["a"]}}
    message = new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=prepull.resource_down("job", NODE),
        operation=prepull.OPERATION,
        content=content,
    )
    await node.service.received(message)
    await node.runtime.started.wait()
    await node.service.received(message)
    node.runtime.held["a"].set()
    await until(lambda: len(channel.sent) == 1)
    assert channel.sent[0].content["Action"] == "Success"
    assert len(node.runtime.pulls) == 1


async def test_an_older_answer_made_while_offline_is_told_in_the_older_words_after_a_restart(node: Node) -> None:
    content = {"State": "Checking", "Item": {"CheckItem": []}}
    await node.service.received(
        new_message(
            source=Source.TASK_MANAGER,
            group=Group.TASK_MANAGER,
            resource=prepull.resource_down("job", NODE),
            operation=prepull.OPERATION,
            content=content,
        )
    )
    await until(lambda: node.outbox.waiting == 1)
    await node.restart()
    channel = node.connect()
    await until(lambda: len(channel.sent) == 1)
    assert channel.sent[0].route.resource == f"task/job/node/{NODE}"
    assert channel.sent[0].content["Event"] == "Check"
