"""What must hold after a round. Pure: from evidence to a list of what is wrong, in words.

Each rule compares what one party says with what another did. Nothing here measures speed: where a rule needs time to
pass (a report on its way, a hub that has just started), it grants `GRACE`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tests.chaos.evidence import Deed, Evidence, Fault, Job, Row, Sample

GRACE: Final = 10.0
"""Seconds that a message may take on a machine that does too much."""
SETTLE: Final = 60.0
"""Within this after a fault /readyz is green again."""
LINGER: Final = 15.0
"""So long after a fault something may still be red that was green just then: an informer that failed a moment before
looks again within 10 s, and until then it does not watch."""
SHOWN: Final = {"Successful": "Successful", "Failed": "Failed", "NotStarted": "Failed"}
ORDER: Final = ("", "Init", "Checking", "Pulling", "Successful", "Failed")
FINAL: Final = ("Successful", "Failed")
MOST: Final = 12
"""Problems of one kind that are told one by one."""

CHECKS: Final[Mapping[str, frozenset[str]]] = {
    "hub": frozenset({"start", "jobs", "nodes", "process"}),
    "api": frozenset({"api", "start", "jobs", "nodes"}),
    "store": frozenset({"store", "start"}),
}
"""By kind of fault: the checks of /readyz that it may turn red."""


def judge(evidence: Evidence) -> list[str]:
    problems: list[str] = []
    by_task = _by_task(evidence.deeds)
    for job in evidence.jobs:
        found = [*of_statuses(job, evidence.statuses.get(job.uid, ()))]
        if job.deleted_at is None:
            found += of_end(job, evidence)
        elif evidence.rows.get(job.uid):
            found.append("it was deleted, and the store still has its rows")
        found += of_slots(job, evidence, by_task)
        found += of_questions(job, evidence, by_task)
        problems += (f"{job.name}: {problem}" for problem in _bounded(found))
    problems += of_readiness(evidence.samples, evidence.faults)
    problems += of_blobs(evidence)
    problems += of_reports(evidence)
    return problems


def _bounded(problems: Sequence[str]) -> list[str]:
    more = len(problems) - MOST
    return [*problems[:MOST], *([f"and {more} more"] if more > 0 else [])]


def _by_task(deeds: Iterable[Deed]) -> dict[tuple[str, str], list[Deed]]:
    """By node and uid, or name of the job where a stock node was told no uid."""
    found: defaultdict[tuple[str, str], list[Deed]] = defaultdict(list)
    for deed in deeds:
        if deed.job:
            found[deed.node, deed.uid or deed.job].append(deed)
    return found


# --- The status while it runs -----------------------------------------------------------------------------------


def of_statuses(job: Job, statuses: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counts add up and never go backwards; what has ended stays as it is."""
    problems: list[str] = []
    told = Counter[str]()
    state, ended = "", dict[str, str]()
    for status in statuses:
        if not status:
            if state:
                problems.append("its status was emptied")
            continue
        counts = status.get("counts", {})
        parts = [counts.get(key, 0) for key in ("pending", "running", "succeeded", "failed")]
        if sum(parts) != counts.get("total") or min(parts, default=0) < 0:
            problems.append(f"counts do not add up: {dict(counts)}")
        for key in ("succeeded", "failed"):
            if counts.get(key, 0) < told[key]:
                problems.append(f"{key} went back from {told[key]} to {counts.get(key, 0)}")
            told[key] = counts.get(key, 0)
        problems += _of_state(state, status["state"])
        state = status["state"]
        problems += _of_entries(job, status, ended)
    return problems


def _of_state(before: str, now: str) -> list[str]:
    if before in FINAL and now != before:
        return [f"it had ended as {before} and is {now}"]
    return [f"its state went back from {before} to {now}"] if ORDER.index(now) < ORDER.index(before) else []


def _of_entries(job: Job, status: Mapping[str, Any], ended: dict[str, str]) -> list[str]:
    problems: list[str] = []
    entries = [entry["nodeStatus"] for entry in status.get("status", ())]
    names = Counter(entry["nodeName"] for entry in entries)
    problems += [f"{node} has {count} entries" for node, count in names.items() if count > 1]
    problems += [f"{node} is none of its nodes" for node in names if node not in job.nodes]
    for entry in entries:
        node, state = entry["nodeName"], entry["state"]
        if node in ended and state != ended[node]:
            problems.append(f"{node} had ended as {ended[node]} and is {state}")
        if state in FINAL:
            ended[node] = state
    if len(entries) == len(job.nodes):
        shown = Counter(entry["state"] for entry in entries)
        counts = status["counts"]
        if (shown["Successful"], shown["Failed"]) != (counts["succeeded"], counts["failed"]):
            problems.append(f"entries say {dict(shown)}, counts {dict(counts)}")
    return problems


# --- How it ended -----------------------------------------------------------------------------------------------


def of_end(job: Job, evidence: Evidence) -> list[str]:
    """Every node task reached one final state, that state is true, and store, status and nodes agree."""
    rows = {row.node: row for row in evidence.rows.get(job.uid, ())}
    statuses = evidence.statuses.get(job.uid, ())
    status = statuses[-1] if statuses else {}
    problems: list[str] = []
    if status.get("state") not in FINAL:
        problems.append(f"it has not ended: {status.get('state')} {status.get('counts')}")
    if set(rows) != set(job.nodes):
        problems.append(f"the store has {len(rows)} of its {len(job.nodes)} node tasks")
    live = [f"{row.node} {row.state}" for row in rows.values() if not row.final]
    problems += [f"node task not ended: {text}" for text in live]
    if status.get("state") in FINAL:
        problems += _agree(job, rows, status)
    connected = _connected(evidence.deeds)
    by_task = _by_task(evidence.deeds)
    for row in rows.values():
        if row.state == "Successful":
            problems += _success(job, row, evidence, by_task)
        elif row.final:
            problems += _failure(job, row, status, evidence, by_task, connected)
    return problems


def _agree(job: Job, rows: Mapping[str, Row], status: Mapping[str, Any]) -> list[str]:
    """The last status says what the store does."""
    problems: list[str] = []
    states = Counter(SHOWN.get(row.state, row.state) for row in rows.values())
    counts = status.get("counts", {})
    if (states["Successful"], states["Failed"]) != (counts.get("succeeded"), counts.get("failed")):
        problems.append(f"the store has {dict(states)}, the status {dict(counts)}")
    for entry in status.get("status", ()):
        node, state = entry["nodeStatus"]["nodeName"], entry["nodeStatus"]["state"]
        if node in rows and SHOWN.get(rows[node].state) != state:
            problems.append(f"{node} is {rows[node].state} in the store and {state} in the status")
    failed = states["Failed"]
    tolerated = Decimal(failed) <= Decimal(job.tolerate) * len(job.nodes)
    if (status["state"] == "Successful") != tolerated:
        problems.append(f"{status['state']} with {failed} of {len(job.nodes)} failed, tolerated {job.tolerate}")
    return problems


def _success(job: Job, row: Row, evidence: Evidence, by_task: Mapping[tuple[str, str], Sequence[Deed]]) -> list[str]:
    problems: list[str] = []
    missing = set(job.images) - evidence.holds.get(row.node, frozenset())
    if missing:
        problems.append(f"{row.node} is Successful and does not hold {sorted(missing)}")
    key = job.name if row.node in evidence.stock else job.uid
    if not any(deed.kind == "finished" for deed in by_task.get((row.node, key), ())):
        problems.append(f"{row.node} is Successful and never finished this task")
    return problems


def _failure(
    job: Job,
    row: Row,
    status: Mapping[str, Any],
    evidence: Evidence,
    by_task: Mapping[tuple[str, str], Sequence[Deed]],
    connected: Mapping[str, Sequence[tuple[float, float]]],
) -> list[str]:
    """Whether the reason of a failure is true."""
    said = f"{row.node} failed: {row.words[:200]!r}"
    if job.no_failures:
        return [f"{said}, in a round in which nothing may fail"]
    if any(re.search(pattern, row.words) for pattern in job.true_reasons):
        return []
    deeds = by_task.get((row.node, job.name if row.node in evidence.stock else job.uid), ())
    if row.state == "NotStarted":
        if any(deed.kind == "asked" for deed in deeds):
            return [f"{said}, and it was asked"]
        return [] if status.get("state") == "Failed" else [f"{said}, and the job went on"]
    if row.event == "TimeOut" and job.no_timeouts:
        return [f"{said}, in a round in which every node is back in time"]
    if row.event == "TimeOut":
        return _timeout(job, row, said, deeds, evidence, connected.get(row.node, ()))
    own = [deed for deed in deeds if deed.kind == "failed"]
    if not own:
        return [f"{said}, and it had no failure"]
    if not any(deed.reason and deed.reason in row.words for deed in own):
        return [f"{said}, and its own words were {own[-1].reason!r}"]
    return []


def _timeout(
    job: Job,
    row: Row,
    said: str,
    deeds: Sequence[Deed],
    evidence: Evidence,
    connected: Sequence[tuple[float, float]],
) -> list[str]:
    if row.changed_at - job.made_at < job.timeout_seconds - 1:
        return [f"{said}, {row.changed_at - job.made_at:.0f} s after the job was made"]
    if row.node in evidence.opaque:
        ended = [deed for deed in deeds if deed.kind in ("finished", "failed")]
        late = not ended or ended[0].at > row.changed_at - GRACE
        return [] if late else [f"{said}, and it had ended {row.changed_at - ended[0].at:.0f} s before"]
    stayed = any(up <= row.changed_at - GRACE and down >= row.changed_at for up, down in connected)
    if row.reason.startswith("the node was not connected"):
        return [f"{said}, and it was"] if stayed else []
    ended = [deed for deed in deeds if deed.kind in ("finished", "failed") and deed.at < row.changed_at - GRACE]
    if stayed and ended:
        return [f"{said}, and it had ended {row.changed_at - ended[0].at:.0f} s before, and was connected"]
    if stayed and not any(deed.kind == "asked" for deed in deeds):
        return [f"{said}, and it was connected and never asked"]
    return []


def _connected(deeds: Iterable[Deed]) -> dict[str, list[tuple[float, float]]]:
    """By node: from when to when it had a session."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    since: dict[str, float] = {}
    for deed in deeds:
        if deed.kind == "up":
            since[deed.node] = deed.at
        elif deed.kind == "down" and deed.node in since:
            found[deed.node].append((since.pop(deed.node), deed.at))
    for node, at in since.items():
        found[node].append((at, float("inf")))
    return found


# --- What was asked of the nodes --------------------------------------------------------------------------------


def of_slots(job: Job, evidence: Evidence, by_task: Mapping[tuple[str, str], Sequence[Deed]]) -> list[str]:
    """Never more at work than the job's concurrency, as the nodes saw it."""
    rows = {row.node: row for row in evidence.rows.get(job.uid, ())}
    changes: list[tuple[float, int]] = []
    for node in job.nodes:
        if node in evidence.stock and job.one_of_many:
            continue
        deeds = by_task.get((node, job.name if node in evidence.stock else job.uid), ())
        asked = next((deed.at for deed in deeds if deed.kind == "asked"), None)
        if asked is None:
            continue
        ended = next((deed.at for deed in deeds if deed.kind in ("finished", "failed")), float("inf"))
        row = rows.get(node)
        if row is not None and row.final:
            ended = min(ended, max(asked, row.changed_at))
        if job.deleted_at is not None:
            ended = min(ended, max(asked, job.deleted_at))
        changes += [(asked, 1), (ended, -1)]
    most = at_work = 0
    for _, change in sorted(changes):
        at_work += change
        most = max(most, at_work)
    if most > job.concurrency:
        return [f"{most} nodes at work at once, its concurrency is {job.concurrency}"]
    return []


def of_questions(job: Job, evidence: Evidence, by_task: Mapping[tuple[str, str], Sequence[Deed]]) -> list[str]:
    """Nothing that was done is done again, or asked for again."""
    problems: list[str] = []
    rows = {row.node: row for row in evidence.rows.get(job.uid, ())}
    for node in job.nodes:
        stock = node in evidence.stock
        if stock and job.one_of_many:
            continue
        finished = acked = False
        row = rows.get(node)
        for deed in by_task.get((node, job.name if stock else job.uid), ()):
            if deed.kind == "finished":
                finished = True
            elif deed.kind == "acked":
                acked = True
            elif deed.kind == "begun" and finished:
                problems.append(f"{node} pulled what it had pulled already")
            elif deed.kind == "asked" and acked:
                problems.append(f"{node} was asked again after its end was acknowledged")
            elif deed.kind == "asked" and row is not None and row.final:
                late = deed.at - row.changed_at
                if late > GRACE:
                    problems.append(f"{node} was asked {late:.0f} s after its end was stored")
    return problems


def of_blobs(evidence: Evidence) -> list[str]:
    return [
        f"blob {digest[:19]} was fetched {count} times, at most {evidence.blobs_at_most} are explained"
        for digest, count in evidence.blobs.items()
        if evidence.blobs_at_most and count > evidence.blobs_at_most
    ]


def of_reports(evidence: Evidence) -> list[str]:
    """Whoever sends again what was lost is rid of all that it had to say, once all is well."""
    return _bounded(
        [
            f"{node} keeps {count} reports that the hub has not acknowledged"
            for node, count in evidence.unacknowledged.items()
            if count
        ]
    )


# --- /readyz ----------------------------------------------------------------------------------------------------


def of_readiness(samples: Sequence[Sample], faults: Sequence[Fault]) -> list[str]:
    """Green unless something is wrong; red, with the right words, when something is that must show."""
    windows = [(fault, fault.began, _until(fault, samples)) for fault in faults]
    problems: list[str] = []
    for sample in samples:
        if sample.code == 200:
            continue
        active = [fault for fault, began, until in windows if sample.asked <= until and sample.answered >= began]
        if sample.code == 0:
            if not any(fault.kind == "hub" for fault in active):
                problems.append(f"/readyz was not answered within {sample.answered - sample.asked:.0f} s")
            continue
        explained = frozenset[str]().union(*(CHECKS[fault.kind] for fault in active))
        problems += [f"/readyz was red for no reason: {line}" for line in _unexplained(sample, explained)]
    for fault in faults:
        if fault.must_show:
            problems += _of_shown(fault, samples)
        if fault.ended is not None and not any(
            sample.code == 200 and sample.asked >= fault.ended for sample in samples
        ):
            problems.append(f"/readyz was never green again after the fault of the {fault.kind}")
    return _bounded(problems)


def _until(fault: Fault, samples: Sequence[Sample]) -> float:
    """A fault has its effect until /readyz is green after it, at least `LINGER` and at most `SETTLE`."""
    if fault.ended is None:
        return float("inf")
    green = (sample.answered for sample in samples if sample.code == 200 and sample.asked >= fault.ended)
    return min(max(next(green, float("inf")), fault.ended + LINGER), fault.ended + SETTLE)


def _unexplained(sample: Sample, explained: frozenset[str]) -> list[str]:
    lines = sample.body.splitlines() or ["(no reason)"]
    return [line[:200] for line in lines if line.partition(":")[0] not in explained or not line.partition(":")[2]]


def _of_shown(fault: Fault, samples: Sequence[Sample]) -> list[str]:
    ended = fault.ended if fault.ended is not None else float("inf")
    red = False
    for sample in samples:
        if sample.asked < fault.began or sample.answered > ended:
            continue
        names = {line.partition(":")[0] for line in sample.body.splitlines()}
        if sample.code == 503 and names & CHECKS[fault.kind]:
            red = True
        elif sample.code == 200 and red:
            return [f"/readyz was green again while the fault of the {fault.kind} went on"]
    return [] if red else [f"/readyz was never red for the fault of the {fault.kind}"]
