"""The agent is told nonsense by its hub: it goes on, and does the next task that makes sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from structlog.testing import capture_logs

from shared.wire import WireError, decode
from tests.fuzz.mutate import SECRET, texts_of
from tests.fuzz.runs import drawn, fuzzing, ran
from tests.fuzz.targets import DISPATCH, PREPULL, message
from tests.unit.edgehub.scripted import ALL_FEATURES, NODE, until
from tests.unit.edgehub.test_service import Node

_RESOURCE = f"operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/{NODE}"
_SECRET = {
    "metadata": {"name": "s", "namespace": "default", "uid": "u", "resourceVersion": "7"},
    "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "eyJhdXRocyI6e319"},
}
SAMPLES: tuple[Any, ...] = (
    message("Check", _RESOURCE, DISPATCH, group="taskmanager"),
    message("Pull", _RESOURCE, DISPATCH, group="taskmanager"),
    message("Cancel", _RESOURCE, {"job_uid": "5b6d6b3c", "attempt": 1, "reason": "x"}, group="taskmanager"),
    message("ReportAck", _RESOURCE, "OK", group="taskmanager"),
    message("prepull", f"prepull/job/node/{NODE}", PREPULL, group="taskmanager"),
    message("response", "default/secret/s", _SECRET, group="resource", source="edgecontroller"),
    message("update", "default/secret/s", _SECRET, group="resource", source="edgecontroller"),
    message("error", "default/secret/s", "no such secret", group="resource", source="edgecontroller"),
)


async def test_whatever_the_hub_says_the_agent_goes_on(tmp_path: Path) -> None:
    node = Node(tmp_path, max_tasks=5)
    node.start()
    channel = node.connect(*ALL_FEATURES)
    with capture_logs() as logs:
        for data in drawn(st.one_of(texts_of(SAMPLES)), fuzzing):
            try:
                told = decode(data)
            except WireError:
                ran("agent", refused=True)
                continue  # the connection skips such (tests/integration/edgehub/test_connection.py)
            await node.service.received(told)
            ran("agent", refused=False)
    faults = [entry for entry in logs if "exc_info" in entry or "internal error" in str(entry)]
    assert faults == []
    assert SECRET not in str(logs)
    await node.restart()
    channel = node.connect(*ALL_FEATURES)
    await node.ask("good", job="another", uid="uid-good")
    await until(
        lambda: any("uid-good" in str(sent.content) and sent.content["action"] == "Pull" for sent in channel.sent)
    )
    await node.stop()
