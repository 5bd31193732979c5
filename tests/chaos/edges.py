"""Simulated nodes that may be killed: what they were asked and did is in a log that outlives them.

The log is append-only, a line a deed, written before anybody is told. It is what the observer goes by, and it is the
durable memory of the nodes:

- with ``ack`` they are as our agent is. A process that starts again knows from its log what had been finished, sends
  the reports that were not acknowledged, and answers a question that it has done already from the log. What was not
  finished waits until it is asked again.
- without, they are as a stock EdgeCore is: nothing is remembered but the images that the node holds. Messages made
  without a link wait for one, in memory; one that is written to a link that breaks is lost.

Links, sessions and keepalives are those of `tests.bench.edges`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from shared import wire
from tests.bench import edges
from tests.bench.lines import serve
from tests.chaos.evidence import Deed
from tests.chaos.image import failure_of, seconds_of


class DeedLog:
    def __init__(self, path: Path) -> None:
        # One write a line: it is in the kernel's hands, and no SIGKILL takes it back.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, node: str, **more: Any) -> None:
        line = {"at": time.time(), "kind": kind, "node": node, **more}
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_deeds(path: Path, offset: int = 0) -> Iterator[Deed]:
    """From ``offset`` on; a line that is still being written is not read."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                found = json.loads(line)
                found["images"] = tuple(found.get("images", ()))
                yield Deed(**found)


def count_asked(path: Path, offset: int) -> int:
    """As `read_deeds` would tell, so fast that it may be asked all the time."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().count(b',"kind":"asked",')


@dataclass(slots=True)
class _Task:
    """One question and what came of it."""

    job: str
    uid: str
    attempt: int
    images: tuple[str, ...]
    at_work: bool = False
    ended: bool = False
    reason: str = ""


class Fleet(edges.Fleet):
    def __init__(self, folder: Path, log: Path) -> None:
        super().__init__(folder)
        # Never an id of an earlier life.
        self._ids = itertools.count(time.time_ns())
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._held: set[tuple[str, str]] = set()
        self._ends: dict[str, _Task] = {}
        """By id: last reports that wait to be acknowledged."""
        self._unacked: dict[str, set[tuple[str, str]]] = {}
        self._remember(log)
        self._log = DeedLog(log)

    async def begin(self, *, port: int, ack: bool, keepalive: float) -> dict[str, Any]:
        """Lets all nodes connect, for ever. Returns at once: the hub may be away."""
        self.port, self.ack = port, ack
        for node in self._nodes:
            for key in self._unacked.pop(node.name, ()) if ack else ():
                self._tell_end(node, self._tasks[key])
            self._spawn(self._dial(node))
        self._spawn(self._keep_alive(keepalive))
        return {}

    def _remember(self, log: Path) -> None:
        for deed in read_deeds(log):
            key = (deed.node, deed.uid)
            if deed.kind == "asked" and deed.uid:
                self._tasks.setdefault(key, _Task(deed.job, deed.uid, 1, deed.images))
            elif deed.kind in ("finished", "failed"):
                if deed.kind == "finished":
                    self._held.update((deed.node, image) for image in deed.images)
                if deed.uid:
                    task = self._tasks[key]
                    task.ended, task.reason = True, deed.reason
                    self._unacked.setdefault(deed.node, set()).add(key)
            elif deed.kind == "acked":
                self._unacked.get(deed.node, set()).discard(key)

    # --- Links ------------------------------------------------------------------------------------------------------

    async def _dial(self, node: edges.Node) -> None:
        await super()._dial(node)
        self._log.write("up", node.name)
        if not self.ack:
            # What had waited for a link was written to this one; what becomes of it, nobody says.
            node.unsent.clear()

    def lost(self, node: edges.Node, *, was_open: bool) -> None:
        if was_open:
            self._log.write("down", node.name)
        super().lost(node, was_open=was_open)

    # --- Tasks ------------------------------------------------------------------------------------------------------

    def _acked(self, node: edges.Node, report: str) -> None:
        node.unsent.pop(report, None)
        task = self._ends.pop(report, None)
        if task is not None:
            self._log.write("acked", node.name, job=task.job, uid=task.uid)

    def _asked(self, node: edges.Node, resource: str, content: dict[str, Any]) -> None:
        job = resource.split("/")[3]
        about = content.get("task") or {}
        uid, attempt = (about["job_uid"], about["attempt"]) if self.ack else ("", 0)
        images = tuple(content["imagePrePullTemplate"]["images"])
        self._log.write("asked", node.name, job=job, uid=uid, images=images)
        task = self._tasks.get((node.name, uid)) if self.ack else None
        if task is None:
            task = _Task(job, uid, attempt, images)
            if self.ack:
                self._tasks[node.name, uid] = task
        task.attempt = attempt
        if task.ended:
            self._tell_check(node, task)
            self._tell_end(node, task)
        elif not task.at_work:
            task.at_work = True
            self._later(seconds_of(images[0]), self._has_checked, node, task)

    def _has_checked(self, node: edges.Node, task: _Task) -> None:
        self._tell_check(node, task)
        missing = [image for image in task.images if (node.name, image) not in self._held]
        if missing:
            self._log.write("begun", node.name, job=task.job, uid=task.uid, images=missing)
        self._later(seconds_of(task.images[0]) if missing else 0.0, self._has_pulled, node, task)

    def _has_pulled(self, node: edges.Node, task: _Task) -> None:
        task.ended = True
        task.reason = next(filter(None, (failure_of(image, node.name) for image in task.images)), "")
        about: dict[str, Any] = {"job": task.job, "uid": task.uid, "images": task.images}
        if task.reason:
            self._log.write("failed", node.name, reason=task.reason, **about)
        else:
            self._log.write("finished", node.name, **about)
            self._held.update((node.name, image) for image in task.images)
        self._tell_end(node, task)

    def _later(self, seconds: float, call: Any, node: edges.Node, task: _Task) -> None:
        asyncio.get_running_loop().call_later(seconds, call, node, task)

    # --- Reports ----------------------------------------------------------------------------------------------------

    def _tell_check(self, node: edges.Node, task: _Task) -> None:
        self._tell(node, task, {"action": wire.Operation.CHECK, "succ": True, "reason": "", "extend": ""})

    def _tell_end(self, node: edges.Node, task: _Task) -> None:
        status = "False" if task.reason else "True"
        results = [{"image": image, "status": status, "reason": task.reason} for image in task.images]
        content = {"action": wire.Operation.PULL, "succ": not task.reason, "reason": "pull image failed"}
        if not task.reason or self.ack:
            content["reason"] = task.reason
        report = self._tell(node, task, content | {"extend": json.dumps(results)})
        if self.ack:
            self._ends[report] = task

    def _tell(self, node: edges.Node, task: _Task, content: dict[str, Any]) -> str:
        report = f"{next(self._ids):032x}"
        content["finishTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.ack:
            content["task"] = {"job_uid": task.uid, "attempt": task.attempt}
        document = {
            "header": {"msg_id": report, "timestamp": time.time_ns() // 1_000_000},
            "route": {
                "source": wire.Source.WEBSOCKET,
                "group": wire.Group.HUB,
                "operation": wire.Operation.REPORT,
                "resource": wire.task_resource(task.job, node.name),
            },
            "content": content,
        }
        frame = json.dumps(document).encode()
        if self.ack or not node.is_open:
            node.unsent[report] = frame
        node.send(frame)
        return report


async def main(folder: Path, log: Path) -> None:
    fleet = Fleet(folder, log)
    await serve({"prepare": fleet.prepare, "begin": fleet.begin, "counts": fleet.counts})


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
