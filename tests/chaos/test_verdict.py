"""The observer finds a lie: evidence in which all is well is judged well, and with each kind of falsehood is not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.evidence import Deed, Evidence, Fault, Job, Row, Sample
from tests.chaos.verdict import judge

IMAGE = "registry.example/chaos:v1"
BROKEN = "layer is unreadable"
GREEN = Sample(100.0, 100.1, 200, "ok\n")


def status(state: str, *, pending: int = 0, running: int = 0, **nodes: str) -> dict[str, Any]:
    entries = [{"nodeStatus": {"nodeName": node.replace("_", "-"), "state": what}} for node, what in nodes.items()]
    done = [what for what in nodes.values() if what in ("Successful", "Failed")]
    counts = {
        "total": pending + running + len(done),
        "pending": pending,
        "running": running,
        "succeeded": done.count("Successful"),
        "failed": done.count("Failed"),
    }
    return {"state": state, "counts": counts, "status": entries}


def asked(node: str, at: float, **more: Any) -> Deed:
    return Deed(at, node, "asked", "job", "uid-1", (IMAGE,), **more)


def deed(kind: str, node: str, at: float, reason: str = "") -> Deed:
    return Deed(at, node, kind, "job", "uid-1", (IMAGE,), reason)


def sound() -> Evidence:
    """Two nodes one after the other; one succeeds, one fails, and the job is allowed one failure."""
    job = Job("job", "uid-1", ("n-1", "n-2"), (IMAGE,), 1, 60, "0.5", made_at=10.0)
    return Evidence(
        jobs=[job],
        statuses={
            "uid-1": [
                {},
                status("Checking", pending=1, running=1, n_1="Checking", n_2="Init"),
                status("Pulling", pending=0, running=1, n_1="Successful", n_2="Checking"),
                status("Successful", n_1="Successful", n_2="Failed"),
            ]
        },
        rows={
            "uid-1": [
                Row("n-1", "Successful", 1, "Pull", "", 14.0, ((IMAGE, True, ""),)),
                Row("n-2", "Failed", 1, "Pull", f"1 of 1 images failed: {BROKEN}", 18.0),
            ]
        },
        deeds=[
            Deed(5.0, "n-1", "up"),
            Deed(5.0, "n-2", "up"),
            asked("n-1", 11.0),
            deed("begun", "n-1", 12.0),
            deed("finished", "n-1", 13.0),
            deed("acked", "n-1", 14.0),
            asked("n-2", 15.0),
            deed("begun", "n-2", 16.0),
            deed("failed", "n-2", 17.0, BROKEN),
            deed("acked", "n-2", 18.0),
        ],
        holds={"n-1": frozenset({IMAGE})},
        samples=[Sample(12.0, 12.1, 200, "ok\n"), GREEN],
        faults=[],
    )


def test_what_is_sound_is_judged_so() -> None:
    assert judge(sound()) == []


def timed_out(reason: str, *, after: float = 71.0, **deeds: list[Deed]) -> Callable[[Evidence], None]:
    """The second node's task ended by its time."""

    def change(evidence: Evidence) -> None:
        first = evidence.rows["uid-1"][0]
        evidence.rows = {"uid-1": [first, Row("n-2", "Failed", 1, "TimeOut", reason, after)]}
        evidence.deeds = [d for d in evidence.deeds if d.node != "n-2"] + deeds.get("deeds", [])

    return change


LATE = "no last report within 60 s of dispatch"
ABSENT = "the node was not connected within 60 s of its turn"


def rows(*changes: Row) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        by_node = {row.node: row for row in evidence.rows["uid-1"]} | {row.node: row for row in changes}
        evidence.rows = {"uid-1": list(by_node.values())}

    return change


def history(*statuses: dict[str, Any]) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.statuses = {"uid-1": [*statuses, *evidence.statuses["uid-1"][-1:]]}

    return change


def last(shown: dict[str, Any]) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.statuses = {"uid-1": [*evidence.statuses["uid-1"][:-1], shown]}

    return change


def more(*deeds: Deed) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.deeds = sorted([*evidence.deeds, *deeds], key=lambda found: found.at)

    return change


def without(kind: str, node: str) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.deeds = [found for found in evidence.deeds if (found.kind, found.node) != (kind, node)]

    return change


def readiness(*samples: Sample, faults: tuple[Fault, ...] = ()) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.samples = [*samples, GREEN]
        evidence.faults = faults

    return change


def the_job(**values: Any) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.jobs = [dataclasses.replace(evidence.jobs[0], **values)]

    return change


def fields(**values: Any) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        for name, value in values.items():
            setattr(evidence, name, value)

    return change


def both(*changes: Callable[[Evidence], None]) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        for one in changes:
            one(evidence)

    return change


RED_API = Sample(20.0, 20.1, 503, "api: the Kubernetes API has not served for 2 s: refused\n")
UNBALANCED = {"state": "Checking", "counts": {"total": 2, "pending": 1, "running": 0, "succeeded": 0, "failed": 0}}

LIES: dict[str, tuple[Callable[[Evidence], None], str]] = {
    # Of the status while it runs.
    "counts that do not add up": (history(UNBALANCED), "counts do not add up"),
    "a success taken back": (
        history(status("Pulling", running=1, n_1="Successful", n_2="Checking"), status("Pulling", running=2)),
        "succeeded went back",
    ),
    "a state that goes back": (
        history(status("Pulling", running=2), status("Checking", running=2)),
        "state went back from Pulling to Checking",
    ),
    "an end that was none": (
        history(status("Failed", n_1="Failed", n_2="Failed")),
        "had ended as Failed and is Successful",
    ),
    "a node that ended twice": (
        history(status("Pulling", running=1, n_1="Failed", n_2="Checking")),
        "n-1 had ended as Failed and is Successful",
    ),
    "entries that say other than the counts": (
        last(
            status("Successful", n_1="Successful", n_2="Failed")
            | {"status": status("x", n_1="Init", n_2="Init")["status"]}
        ),
        "entries say",
    ),
    "a node of another job": (
        history(status("Pulling", running=2, n_9="Pulling", n_2="Init")),
        "n-9 is none of its nodes",
    ),
    "a status emptied": (history(status("Pulling", running=2), {}), "was emptied"),
    # Of the end.
    "a job that hangs": (last(status("Pulling", running=1, n_1="Successful", n_2="Checking")), "it has not ended"),
    "a node task that hangs": (rows(Row("n-2", "Pulling", 1, "Check", "", 16.0)), "node task not ended: n-2 Pulling"),
    "a node task lost": (fields(rows={"uid-1": [sound().rows["uid-1"][0]]}), "the store has 1 of its 2"),
    "a status that differs from the store": (
        rows(Row("n-1", "Failed", 1, "Pull", BROKEN, 14.0)),
        "n-1 is Failed in the store and Successful in the status",
    ),
    "a job that failed without reason": (
        last(status("Failed", n_1="Successful", n_2="Failed")),
        "Failed with 1 of 2 failed, tolerated 0.5",
    ),
    "a job that succeeded in spite of it": (the_job(tolerate="0.4"), "Successful with 1 of 2 failed, tolerated 0.4"),
    "rows of a job that was deleted": (the_job(deleted_at=50.0), "the store still has its rows"),
    # Of successes.
    "a success without the image": (fields(holds={}), "n-1 is Successful and does not hold"),
    "a success that nobody did": (without("finished", "n-1"), "n-1 is Successful and never finished"),
    # Of failures.
    "a failure that nobody had": (without("failed", "n-2"), "n-2 failed: .*, and it had no failure"),
    "a failure in other words": (
        rows(Row("n-2", "Failed", 1, "Pull", "disk is full", 18.0)),
        "its own words were 'layer is unreadable'",
    ),
    "a time that had not passed": (timed_out(LATE, after=40.0), "30 s after the job was made"),
    "late, though it had reported long before": (
        timed_out(LATE, deeds=[Deed(5.0, "n-2", "up"), asked("n-2", 15.0), deed("finished", "n-2", 17.0)]),
        "it had ended 54 s before, and was connected",
    ),
    "late, though it was never asked": (
        timed_out(LATE, deeds=[Deed(5.0, "n-2", "up")]),
        "it was connected and never asked",
    ),
    "late, though nothing kept it": (
        both(the_job(no_timeouts=True), timed_out(LATE, deeds=[Deed(5.0, "n-2", "up"), asked("n-2", 15.0)])),
        "in a round in which every node is back in time",
    ),
    "failed for a reason of its own, though nothing was wrong": (
        the_job(no_failures=True),
        "in a round in which nothing may fail",
    ),
    "a report that nobody acknowledged": (fields(unacknowledged={"n-1": 2}), "n-1 keeps 2 reports"),
    "absent, though it was there": (
        timed_out(ABSENT, deeds=[Deed(5.0, "n-2", "up")]),
        "not connected within 60 s of its turn', and it was",
    ),
    "a real agent late, though its journal says otherwise": (
        both(
            timed_out(LATE, deeds=[deed("finished", "n-2", 17.0)]),
            fields(opaque=frozenset({"n-2"})),
        ),
        "it had ended 54 s before",
    ),
    "not started, though it was asked": (
        rows(Row("n-2", "NotStarted", 0, "Init", "not started: too many failed", 18.0)),
        "and it was asked",
    ),
    # Of what was asked.
    "more at work than allowed": (more(asked("n-2", 11.5)), "2 nodes at work at once, its concurrency is 1"),
    "a pull repeated": (more(deed("begun", "n-1", 13.5)), "n-1 pulled what it had pulled already"),
    "asked again after the acknowledgement": (more(asked("n-1", 14.5)), "n-1 was asked again after its end was ack"),
    "asked again long after its end": (
        both(without("acked", "n-1"), more(asked("n-1", 40.0))),
        "n-1 was asked 26 s after its end was stored",
    ),
    "a blob fetched again": (
        fields(blobs={"sha256:" + "a" * 64: 4}, blobs_at_most=3),
        "was fetched 4 times, at most 3 are explained",
    ),
    # Of readiness.
    "red for no reason": (readiness(RED_API), "red for no reason: api:"),
    "red in wrong words": (
        readiness(RED_API, faults=(Fault("store", 19.0, 21.0),)),
        "red for no reason: api:",
    ),
    "red without words": (
        readiness(Sample(20.0, 20.1, 503, ""), faults=(Fault("api", 19.0, 21.0),)),
        "red for no reason: .no reason",
    ),
    "red long after": (
        readiness(dataclasses.replace(RED_API, asked=90.0, answered=90.1), faults=(Fault("api", 19.0, 21.0),)),
        "red for no reason: api:",
    ),
    "red after it was green again": (
        readiness(
            Sample(30.1, 30.2, 200),
            dataclasses.replace(RED_API, asked=46.0, answered=46.1),
            faults=(Fault("api", 19.0, 30.0),),
        ),
        "red for no reason: api:",
    ),
    "no answer": (readiness(Sample(20.0, 30.0, 0)), "not answered within 10 s"),
    "green throughout": (
        readiness(Sample(25.0, 25.1, 200), faults=(Fault("api", 19.0, 30.0, must_show=True),)),
        "never red for the fault of the api",
    ),
    "green again too early": (
        readiness(RED_API, Sample(25.0, 25.1, 200), faults=(Fault("api", 19.0, 30.0, must_show=True),)),
        "green again while the fault of the api went on",
    ),
    "never green again": (
        both(readiness(faults=(Fault("api", 19.0, 200.0),)), fields(samples=[RED_API])),
        "never green again after the fault of the api",
    ),
}


@pytest.mark.parametrize(("change", "told"), LIES.values(), ids=LIES)
def test_each_lie_is_found(change: Callable[[Evidence], None], told: str) -> None:
    evidence = sound()
    change(evidence)
    assert re.search(told, "\n".join(judge(evidence)))


TRUTHS: dict[str, Callable[[Evidence], None]] = {
    "a node that was away for its time": timed_out(ABSENT, deeds=[Deed(5.0, "n-2", "up"), Deed(12.0, "n-2", "down")]),
    "a node that did not end in time": timed_out(LATE, deeds=[Deed(5.0, "n-2", "up"), asked("n-2", 15.0)]),
    "an end that could not be told": timed_out(
        LATE,
        deeds=[
            Deed(5.0, "n-2", "up"),
            asked("n-2", 15.0),
            Deed(16.0, "n-2", "down"),
            deed("finished", "n-2", 17.0),
        ],
    ),
    "an overall reason that is always the same": both(
        rows(Row("n-2", "Failed", 1, "Pull", "pull image failed", 18.0, ((IMAGE, False, f"{IMAGE}: {BROKEN}"),))),
    ),
    "a reason that the round makes true": both(
        the_job(true_reasons=("no space left",)),
        rows(Row("n-2", "Failed", 1, "Pull", "no space left on device", 18.0)),
    ),
    "reports all acknowledged": fields(unacknowledged={"n-1": 0}),
    "asked again by a hub that had died before it stored the end": more(asked("n-1", 13.5)),
    "red while the API is away": readiness(RED_API, faults=(Fault("api", 19.0, 30.0, must_show=True),)),
    "red for a moment after it": readiness(
        dataclasses.replace(RED_API, asked=31.0, answered=31.1), faults=(Fault("api", 19.0, 30.0),)
    ),
    "red once more, since an informer waits before it looks again": readiness(
        RED_API,
        Sample(30.1, 30.2, 200),
        dataclasses.replace(RED_API, asked=33.0, answered=33.1, body="jobs: imageprepulljobs not watched: 410\n"),
        faults=(Fault("api", 19.0, 30.0),),
    ),
    "silent and then starting while the hub is dead": readiness(
        Sample(20.0, 20.1, 0), Sample(21.0, 21.1, 503, "start: starting\n"), faults=(Fault("hub", 19.0, 22.0),)
    ),
    "a job that was deleted in the middle": both(
        the_job(deleted_at=12.5), fields(rows={}, statuses={"uid-1": [status("Checking", running=2)]})
    ),
}


@pytest.mark.parametrize("change", TRUTHS.values(), ids=TRUTHS)
def test_what_may_be_is_no_lie(change: Callable[[Evidence], None]) -> None:
    evidence = sound()
    change(evidence)
    assert judge(evidence) == []


def test_of_stock_nodes_the_jobs_name_is_all_there_is() -> None:
    evidence = sound()
    evidence.stock = frozenset({"n-1", "n-2"})
    assert judge(evidence), "they were told a uid, and so their log is of another task"
    evidence.deeds = [dataclasses.replace(deed, uid="") for deed in evidence.deeds if deed.kind != "acked"]
    assert judge(evidence) == []


def test_many_problems_of_one_kind_are_told_in_part() -> None:
    evidence = sound()
    evidence.samples = [dataclasses.replace(RED_API, asked=float(at), answered=float(at)) for at in range(40)]
    assert len(judge(evidence)) == 13
