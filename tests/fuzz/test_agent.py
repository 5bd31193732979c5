"""The agent is told nonsense by its hub: it goes on, and does the next task that makes sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from shared.wire import WireError, decode
from tests.fuzz.drawn import drawn
from tests.fuzz.mutation import wronged
from tests.fuzz.target import MARKER
from tests.unit.edgehub.scripted import ALL_FEATURES, NODE, until
from tests.unit.edgehub.test_service import Node

_IMAGE = "registry.example:5000/team/app:v1"
_TASK = f"operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/{NODE}"
_DISPATCH = {
    "imagePrePullTemplate": {"images": [_IMAGE], "checkItems": ["disk"], "imageSecrets": "default/s", "retryTimes": 1},
    "task": {
        "job_uid": "5b6d6b3c", "attempt": 1, "timeout_seconds": 300,
        "credentials": {_IMAGE: {"registry": "registry.example:5000", "username": "tiger", "password": MARKER}},
    },
}  # fmt: skip
_PREPULL = {
    "TaskID": "job", "Type": "prepull", "State": "Pulling",
    "Item": {"Images": [_IMAGE], "NodeName": NODE, "Secret": "default/s", "RetryTimes": 1, "CheckItems": ["disk"]},
}  # fmt: skip
_SECRET = {
    "metadata": {"name": "s", "namespace": "default", "uid": "u", "resourceVersion": "7"},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
}


def _message(operation: str, resource: str, content: Any, *, source: str = "taskmanager") -> bytes:
    document = {
        "header": {"msg_id": "1b6e", "parent_msg_id": "2c", "timestamp": 1764000000000, "resourceversion": "7"},
        "route": {
            "source": source,
            "group": "taskmanager" if source == "taskmanager" else "resource",
            "operation": operation,
            "resource": resource,
        },
        "content": content,
    }
    return json.dumps(document).encode()


SAMPLES = (
    _message("Check", _TASK, _DISPATCH),
    _message("Pull", _TASK, _DISPATCH),
    _message("Cancel", _TASK, {"job_uid": "5b6d6b3c", "attempt": 1, "reason": "x"}),
    _message("ReportAck", _TASK, "OK"),
    _message("prepull", f"prepull/job/node/{NODE}", _PREPULL),
    _message("response", "default/secret/s", _SECRET, source="edgecontroller"),
    _message("update", "default/secret/s", _SECRET, source="edgecontroller"),
    _message("error", "default/secret/s", "no such secret", source="edgecontroller"),
)


async def test_whatever_the_hub_says_the_agent_goes_on(tmp_path: Path) -> None:
    node = Node(tmp_path, max_tasks=5)
    node.start()
    node.connect(*ALL_FEATURES)
    with capture_logs() as logs:
        for data in drawn(lambda random: wronged(random, SAMPLES), 150):
            try:
                told = decode(data)
            except WireError:
                continue  # the connection skips such (tests/integration/edgehub/test_connection.py)
            await node.service.received(told)
    assert [entry for entry in logs if "exc_info" in entry or "internal error" in str(entry)] == []
    assert MARKER not in str(logs)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("good", job="another", uid="uid-good")
    await until(
        lambda: any("uid-good" in str(sent.content) and sent.content["action"] == "Pull" for sent in channel.sent),
        within=60,
    )
    await node.stop()
