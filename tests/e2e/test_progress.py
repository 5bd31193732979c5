"""A pull that takes long is seen to move: in the job's status, in both versions of the API, in the metrics, and on the
node."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.processes import BIN, Cloud, Node, command, eventually, node_entry
from tests.e2e.test_failures import MIB, job
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry

pytestmark = pytest.mark.e2e

INTERVAL = 0.5


async def test_a_slow_pull_is_seen_to_move_and_leaves_no_trace_of_it(cloud: Cloud, open_registry: Registry) -> None:
    image = open_registry.push_image("moving/slow", layers=[4 * MIB])
    node = Node(cloud, "edge-slow")
    await node.join()
    text = node.config.read_text()
    assert text.count("  taskManager:\n") == 1
    node.config.write_text(text.replace("  taskManager:\n", f"  taskManager:\n    progressInterval: {INTERVAL}\n"))
    await node.start()
    async with RegistryProxy(open_registry.url) as proxy:
        reference = image.reference.replace(open_registry.address, proxy.address)
        proxy.stall_blobs_after = 2 * MIB
        await cloud.apply(job("slow", [reference], [node.name], checkItems=[]))
        status = await cloud.until("slow", lambda status: "progress" in str(status))
        shown = node_entry(status, node.name)["nodeStatus"]["progress"]
        assert (shown["images"], shown["totalImages"]) == (0, 1)
        assert 0 < shown["bytes"] < 3 * MIB < shown["totalBytes"] < 6 * MIB
        # kubectl asks for v1alpha2 where no version is named; the guide's has it too.
        assert status["nodeStatus"][0]["progress"] == shown
        guides = await cloud.kubectl("get", "imageprepulljobs.v1alpha1.operations.kubeedge.io", "slow", "-o", "json")
        assert node_entry(json.loads(guides)["status"], node.name)["nodeStatus"]["progress"]["bytes"] > 0
        _, metrics = await cloud.monitor("/metrics")
        assert "cloudhub_progress_tasks 1.0" in metrics
        assert 'cloudhub_progress_messages_total{outcome="kept"}' in metrics

        async def local() -> bool:
            told = await command(BIN / "edgehub", "status", "--config", node.config)
            return re.search(rf"{re.escape(reference)}: Pulling, [12]\.\d MiB of 4\.\d MiB", told) is not None

        await eventually("edgehub status shows it", local)
        proxy.release()
        status = await cloud.finished("slow")
    assert status["state"] == "Successful", status
    assert "progress" not in str(status)
    assert "cloudhub_progress_tasks 0.0" in (await cloud.monitor("/metrics"))[1]
    assert await node.program.stop() == 0, node.program.tail()
