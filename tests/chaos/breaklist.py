"""The breaks: what is taken away of the program, and which rounds have to notice. See `tests.chaos.breaks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Rounds = tuple[str, int, int]
"""Kind, number of the first, and how many."""


@dataclass(frozen=True, slots=True)
class Change:
    file: str
    before: str
    """Stands once in the file."""
    after: str

    def applied(self, text: str) -> str:
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.file}: found {found} times, not once: {self.before!r}")
        return text.replace(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Break:
    name: str
    about: str
    changes: tuple[Change, ...]
    rounds: tuple[Rounds, ...]


REPORTS: Final = "cloudhub/taskmanager/reports.py"
SCHEDULER: Final = "cloudhub/taskmanager/scheduler.py"
PUBLISHER: Final = "cloudhub/taskmanager/publisher.py"
INFORMER: Final = "cloudhub/kube/informer.py"
OUTBOX: Final = "edgehub/tasks/outbox.py"

BREAKS: Final = (
    Break(
        "nothing",
        "the program as it is",
        (),
        (
            ("hub-killed", 0, 2),
            ("nodes-gone", 0, 2),
            ("api-stopped", 0, 1),
            ("api-errors", 0, 5),
            ("api-watches-closed", 0, 2),
            ("agents-killed", 0, 2),
            ("network-cut", 0, 2),
            ("network-half-open", 0, 2),
            ("network-slow", 0, 2),
            ("network-acks-lost", 0, 2),
            ("api-history-lost", 0, 2),
            ("hub-disk-full", 0, 1),
            ("hub-disk-full-killed", 0, 2),
            ("registry-trouble", 0, 2),
            ("registry-broken", 3, 3),
        ),
    ),
    Break(
        "ack-before-commit",
        "the hub acknowledges reports before they are stored",
        (
            Change(
                REPORTS,
                "        try:\n            outcomes = await self._store.apply([report.change for report in reports])\n"
                "        except StoreClosed:",
                "        for report in reports:\n            self._acknowledge(session.node, report)\n"
                "        try:\n            outcomes = await self._store.apply([report.change for report in reports])\n"
                "        except StoreClosed:",
            ),
        ),
        (("hub-disk-full-killed", 0, 4),),
    ),
    Break(
        "dispatch-before-commit",
        "the hub asks nodes before it is stored that it does",
        (
            Change(
                SCHEDULER,
                "        await self._send_dispatched(await self._store.apply(changes))\n",
                "        for change in changes:\n"
                "            live, session = self._live.get(change.job_uid), self._sessions.get(change.node)\n"
                "            if live and session and change.event is not TaskEvent.POSTPONED:\n"
                "                self._send(live, session, TaskState.CHECKING, 1, live.job.timeout_seconds)\n"
                "        await self._store.apply(changes)\n",
            ),
        ),
        (("hub-killed-in-turns", 0, 4),),
    ),
    Break(
        "readyz-always-green",
        "/readyz says ok whatever is wrong",
        (
            Change(
                "cloudhub/health.py",
                "        if not failures:\n            return web.Resp",
                "        if True:\n            return web.Resp",
            ),
        ),
        (("hub-disk-full", 0, 1), ("api-stopped", 0, 1)),
    ),
    Break(
        "store-stays-red",
        "the store is said to be unusable for ever after it was",
        (
            Change(
                "cloudhub/store/writer.py",
                "        return self._problem\n\n    async def working",
                "        self._was = self._problem or getattr(self, '_was', None)\n        return self._was\n\n"
                "    async def working",
            ),
        ),
        (("hub-disk-full", 0, 2),),
    ),
    Break(
        "agent-sends-nothing-again",
        "an agent sends a report once, whatever becomes of it",
        (
            Change(
                OUTBOX,
                "        self._channel = channel\n        for pending in self._pending:\n"
                "            pending.sent_at = None\n",
                "        self._channel = channel\n",
            ),
            Change(
                OUTBOX,
                "return pending.sent_at is None or self._monotonic() - pending.sent_at >= RESEND_AFTER",
                "return pending.sent_at is None",
            ),
        ),
        (("network-acks-lost", 0, 4),),
    ),
    Break(
        "hub-sends-nothing-again",
        "a node that comes back is not asked for what it has not finished",
        (
            Change(
                SCHEDULER,
                "            if task.state.in_flight:\n                self._send_again(task)\n",
                "            if task.state.in_flight:\n                pass\n",
            ),
        ),
        (("agents-killed", 0, 2), ("nodes-killed", 0, 2)),
    ),
    Break(
        "digest-not-verified",
        "an agent keeps what a registry sends, whatever it is",
        (
            Change(
                "edgehub/runtime/oci/download.py",
                '        if f"{self._algorithm}:{self._hash.hexdigest()}" != self._digest:',
                "        if False:",
            ),
        ),
        (("registry-broken", 3, 1),),
    ),
    Break(
        "transient-not-retried",
        "an agent gives an image up at the first error of the registry",
        (
            Change(
                "edgehub/tasks/pulls.py",
                "if not error.retryable or retries <= 0:",
                "if True:",
            ),
        ),
        (("registry-trouble", 1, 1), ("registry-trouble", 11, 1)),
    ),
    Break(
        "slot-not-released",
        "a node task that timed out keeps its place on its node",
        (
            Change(
                "cloudhub/taskmanager/inflight.py",
                "        if outcome.after is None or not outcome.after.in_flight:\n",
                "        if outcome.change.event.name == 'TIMED_OUT':\n            return\n"
                "        if outcome.after is None or not outcome.after.in_flight:\n",
            ),
        ),
        (("nodes-gone", 0, 2),),
    ),
    Break(
        "slot-kept-by-deleted-job",
        "a node task of a deleted job keeps its place on its node",
        (
            Change(
                SCHEDULER,
                "            self._nodes.discard(task.node, task.job_uid)\n"
                "            self._cancels.append((removed.name",
                "            self._cancels.append((removed.name",
            ),
        ),
        (("nodes-gone", 0, 2),),
    ),
    Break(
        "slot-of-job-not-released",
        "a node task that timed out counts as in flight for ever",
        (
            Change(
                "cloudhub/store/changes.py",
                "    job.tally.move(before, after)\n",
                "    if change.event is not TaskEvent.TIMED_OUT:\n        job.tally.move(before, after)\n",
            ),
        ),
        (("nodes-gone", 0, 2),),
    ),
    Break(
        "agent-slot-not-released",
        "an agent's places for tasks at work are taken once and for all",
        (
            Change(
                "edgehub/tasks/runner.py",
                "                async with self._slots:\n                    return",
                "                await self._slots.acquire()\n                if True:\n                    return",
            ),
        ),
        (("registry-broken", 0, 2),),
    ),
    Break(
        "no-deadlines",
        "neither hub nor agent minds how long a node task takes",
        (
            Change(SCHEDULER, "                while await self._time_out():", "                while False:"),
            Change(
                "edgehub/tasks/runner.py",
                "asyncio.timeout_at(live.deadline) as scope",
                "asyncio.timeout(None) as scope",
            ),
        ),
        (("registry-broken", 5, 1),),
    ),
    Break(
        "status-written-once",
        "a status that could not be written is not written again",
        (
            Change(
                PUBLISHER,
                "        except Unavailable as error:\n            return Retry(str(error))\n        except (Forbidden",
                "        except Unavailable:\n            return None\n        except (Forbidden",
            ),
        ),
        (("api-stopped", 0, 2),),
    ),
    Break(
        "conflict-is-an-end",
        "a write that conflicts is taken for one to a job that is no more",
        (
            Change(
                "cloudhub/kube/jobs.py",
                "            except Conflict:\n                given = None\n                continue\n",
                '            except Conflict as error:\n                raise Gone("it conflicts") from error\n',
            ),
        ),
        (("api-errors", 0, 1),),
    ),
    Break(
        "no-list-after-410",
        "after a 410 the informer goes on from the version that has expired",
        (
            Change(
                INFORMER,
                '            self._expiries += 1\n            self._version = ""\n',
                "            self._expiries += 1\n",
            ),
        ),
        (("api-history-lost", 0, 4),),
    ),
    Break(
        "absence-not-told",
        "what a new list lacks is forgotten without a word",
        (Change(INFORMER, "        for name in gone:\n            self._tell(name)\n", ""),),
        (("api-history-lost", 0, 4),),
    ),
    Break(
        "throttled-for-ever",
        "an informer that was told to come back later does not",
        (Change(INFORMER, "await self._sleep(error.retry_after)", "await self._sleep(error.retry_after * 1e6)"),),
        (("api-errors", 12, 1), ("api-errors", 17, 1)),
    ),
    Break(
        "ends-forgotten",
        "a hub that starts does not look for statuses that an earlier life did not write",
        (
            Change(
                PUBLISHER,
                "        await self.look_again()\n        await self._controller.run()",
                "        await self._controller.run()",
            ),
        ),
        (("api-stopped", 3, 1),),
    ),
    Break(
        "watch-not-resumed",
        "a watch that ends before its time is not begun again",
        (
            Change(
                INFORMER,
                "a server that closes all watches is hammered.\n        await self._pause()",
                "a server that closes all watches is hammered.\n        await asyncio.Event().wait()",
            ),
        ),
        (("api-watches-closed", 0, 4),),
    ),
    Break(
        "dead-sessions-stay",
        "a node that says nothing keeps its session",
        (
            Change(
                "cloudhub/sessions/server.py",
                "self._keepalives.due(now - self._keepalive_interval)",
                "self._keepalives.due(now - 1e6)",
            ),
        ),
        (("network-cut", 0, 4), ("network-half-open", 0, 4)),
    ),
    Break(
        "slow-is-dead",
        "an agent gives a hub up that answers within a second",
        (
            Change(
                "edgehub/link/connection.py",
                "            ping_interval=settings.heartbeat,\n            ping_timeout=settings.read_deadline,\n",
                "            ping_interval=0.3,\n            ping_timeout=0.3,\n",
            ),
        ),
        (("network-slow", 0, 4),),
    ),
    Break(
        "young-certificates",
        "the hub's certificates begin ten minutes before they are made, not a day",
        (
            Change(
                "cloudhub/pki/ca.py",
                "\nBACKDATE: Final = timedelta(days=1)",
                "\nBACKDATE: Final = timedelta(minutes=10)",
            ),
        ),
        (("clock-set", 0, 1),),
    ),
    Break(
        "runtime-not-waited-for",
        "an agent gives an image up when its container runtime is away",
        (
            Change(
                "edgehub/tasks/pulls.py",
                "                delay = runtime_delay(live, self._uniform)\n                if delay is None:",
                "                delay = 0.0\n                if True:",
            ),
        ),
        (("runtime-killed", 0, 4),),
    ),
    Break(
        "journal-not-written",
        "an agent keeps its reports in memory alone",
        (
            Change(
                OUTBOX,
                "            stored = await self._journal.report(task, report, state)\n",
                "            pass\n",
            ),
        ),
        (("agents-killed", 0, 2),),
    ),
)
