"""What `edgehub status` prints for people, out of the status document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def status_text(document: Mapping[str, Any], folder: Path) -> str:
    if "node" not in document:
        return f"no agent has run on the data folder {folder} yet"
    lines = [("node", document["node"]), ("agent", _agent(document))]
    if document["running"]:
        lines += [
            ("hub", _connection(document["connection"])),
            ("certificate", _certificate(document["certificate"])),
            ("runtime", _runtime(document["runtime"])),
            ("tasks", f"{len(document['tasks'])} at work, {document['unacknowledgedReports']} reports on their way"),
        ]
    text = [f"{name:<12} {value}" for name, value in lines]
    if document["running"]:
        text += [line for task in document["tasks"] for line in _task(task)]
    if document["finished"]:
        text += ["", "last finished", *(_finished(task) for task in document["finished"])]
    return "\n".join(text)


def _agent(document: Mapping[str, Any]) -> str:
    if not document["running"]:
        return f"not running (last seen {document['updatedAt']})"
    return f"running, version {document['version']}, process {document['pid']}, since {document['startedAt']}"


def _connection(connection: Mapping[str, Any]) -> str:
    if connection["connected"]:
        return f"connected to {connection['server']} since {connection['since']}"
    why = f": {connection['lastError']}" if connection["lastError"] else ""
    return f"not connected to {connection['server']}, {connection['failures']} attempts failed{why}"


def _certificate(certificate: Mapping[str, Any]) -> str:
    renewed = f", is renewed at {certificate['renewAt']}" if certificate["renewAt"] else ""
    return f"ends {certificate['notAfter']}{renewed}"


def _runtime(runtime: Mapping[str, Any]) -> str:
    if runtime["error"]:
        return f"{runtime['endpoint']}: {runtime['error']}"
    return f"{runtime['name']} {runtime['version']} ({runtime['endpoint']})"


def _task(task: Mapping[str, Any]) -> list[str]:
    lines = [f"  {task['job']}: {task['state']} since {task['since']}, until {task['deadline']}"]
    for image in task["images"]:
        total = f" of {size_text(image['bytesTotal'])}" if image["bytesTotal"] else ""
        done = f", {size_text(image['bytesDone'])}{total}" if image["bytesDone"] or total else ""
        tries = f", try {image['tries']}" if image["tries"] > 1 else ""
        reason = f": {image['reason']}" if image["reason"] else ""
        lines.append(f"    {image['image']}: {image['state']}{done}{tries}{reason}")
    return lines


def _finished(task: Mapping[str, Any]) -> str:
    reason = f": {task['reason']}" if task["reason"] else ""
    return f"  {task['time']} {task['job']} {task['state']}{reason}"
