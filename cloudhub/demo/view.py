"""What a person sees while the job runs: a line a node, with what it is at and how many bytes are in.

The state comes from the job's status, as `kubectl get -w` would tell it; the bytes from the status file that each agent
keeps for `edgehub status`. On a terminal the lines are redrawn in place, elsewhere a line is printed for each change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

STATUS_FILE: Final = "status.json"
MB: Final = 1_000_000


class Progress:
    def __init__(self, console: Console, *, nodes: Sequence[str], folder: Path) -> None:
        self._console = console
        self._nodes = nodes
        self._folder = folder
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: Mapping[str, Any], *, job_uid: str) -> None:
        states = {entry["nodeStatus"]["nodeName"]: entry["nodeStatus"] for entry in status.get("status", [])}
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for node in self._nodes:
            at = states.get(node, {})
            state = str(at.get("state", "Init"))
            done, total = self._bytes(node, job_uid)
            if state == "Successful":
                done = total = max(done, total, 1)
            amount = f"{done / MB:.1f} of {total / MB:.1f} MB" if total > 1 else ""
            table.add_row(
                f"  {node}",
                state,
                ProgressBar(total=total or 1, completed=done, width=30),
                amount,
                at.get("reason", ""),
            )
            self._print_change(node, state, amount if state == "Pulling" else "", str(at.get("reason", "")))
        if self._live is not None:
            self._live.update(table, refresh=True)

    def _print_change(self, node: str, *what: str) -> None:
        line = "  ".join(part for part in (f"{node:<10}", *what) if part)
        if self._live is None and self._last.get(node) != line:
            self._last[node] = line
            self._console.print(f"  {line}", highlight=False)

    def _bytes(self, node: str, job_uid: str) -> tuple[int, int]:
        """Done and in sum, of this job's images on ``node``; zeros while the agent says nothing of it."""
        try:
            document = json.loads((self._folder / node / STATUS_FILE).read_text())
        except (OSError, ValueError):
            return 0, 0
        done = total = 0
        for task in document.get("tasks", []):
            if task.get("jobUID") == job_uid:
                for image in task.get("images", []):
                    done += int(image.get("bytesDone", 0))
                    total += int(image.get("bytesTotal", 0))
        return done, total
