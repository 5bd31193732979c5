"""The user's guide on the definition of jobs that KubeEdge 1.21 and later install, which knows nothing of what we add:
`cloudhub run` and an agent on containerd, a job of each version, and kubectl."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.conftest import PASSWORD, USER
from tests.e2e.processes import ClusterCloud, Node
from tests.e2e.test_walkthrough import GUIDE_FIRST_YAML, GUIDE_JOB
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

pytestmark = pytest.mark.e2e

FINALIZER = "kubeedge.io/imageprepulljob-controller"
V1ALPHA1, V1ALPHA2 = (f"imageprepulljobs.{version}.operations.kubeedge.io" for version in ("v1alpha1", "v1alpha2"))
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[ClusterCloud]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        settings = {"taskManager": {"enable": True}, "cloudHub": {"registerNodes": True}}
        cluster = ClusterCloud(Path(folder), settings, definition="both")
        await cluster.start_api()
        await cluster.start()
        yield cluster
        assert await cluster.program.stop() == 0, cluster.program.tail()
        await cluster.api.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(cluster: ClusterCloud, containerd: Containerd) -> AsyncIterator[Node]:
    node = Node(cluster, "edge.kubeedge", runtime=containerd.endpoint)
    await node.start()
    yield node
    assert await node.program.stop() == 0, node.program.tail()


async def finished(cluster: ClusterCloud, name: str) -> None:
    status = await cluster.finished(name)
    assert status["state"] == "Successful", f"{status}\n{cluster.program.tail()}"


async def status_of(cluster: ClusterCloud, resource: str, name: str, path: str = "{.status}") -> str:
    return await cluster.kubectl("get", resource, name, "-o", f"jsonpath={path}")


async def test_the_guide_works_and_its_status_is_the_guides_to_the_letter(
    cluster: ClusterCloud, node: Node, registry: Registry, containerd: Containerd
) -> None:
    image = registry.push_image("kubeedge/walk", tag="nginx", layers=(20_000, 10_000))
    await cluster.kubectl(
        "create", "secret", "docker-registry", "my-secret", f"--docker-server={registry.address}",
        f"--docker-username={USER}", f"--docker-password={PASSWORD}", "--docker-email=my-registry.example:5000",
    )  # fmt: skip
    created = await cluster.apply(GUIDE_JOB.format(image=image.reference))
    assert created == "imageprepulljob.operations.kubeedge.io/imageprepull-example created\n"
    await finished(cluster, "imageprepull-example")
    printed = await status_of(cluster, V1ALPHA1, "imageprepull-example")
    assert re.fullmatch(
        r'\{"action":"Success","event":"Pull","state":"Successful",'
        r'"status":\[\{"imageStatus":\[\{"image":"' + re.escape(image.reference) + r'","state":"Successful"\}\],'
        r'"nodeStatus":\{"action":"Success","event":"Pull","nodeName":"edge\.kubeedge","state":"Successful",'
        rf'"time":"{TIME}"\}}\}}\],"time":"{TIME}"\}}',
        printed,
    ), printed
    # The guide's command, which names no version: kubectl then shows the later one.
    shown = json.loads(await status_of(cluster, "imageprepulljobs.operations.kubeedge.io", "imageprepull-example"))
    assert shown.items() >= json.loads(printed).items()
    assert shown["phase"] == "Completed"
    assert image.reference in containerd.ctr_images()


async def test_a_job_of_the_later_version_is_read_in_both(
    cluster: ClusterCloud, node: Node, open_registry: Registry
) -> None:
    good = open_registry.push_image("kubeedge/later").reference
    bad = good.replace("later", "absent")
    await cluster.apply(
        json.dumps(
            {
                "apiVersion": "operations.kubeedge.io/v1alpha2",
                "kind": "ImagePrePullJob",
                "metadata": {"name": "later", "finalizers": [FINALIZER]},
                "spec": {"imagePrePullTemplate": {"images": [good, bad], "nodeNames": ["edge.kubeedge"]}},
            }
        )
    )
    status = await cluster.finished("later")
    assert status["state"] == "Failed", status
    assert await status_of(cluster, V1ALPHA2, "later", "{.status.phase}") == "Failure"
    assert await status_of(cluster, V1ALPHA2, "later", "{.status.reason}") == (
        "1 of 1 nodes failed, more than failureTolerate 0.1"
    )
    node_status = "{.status.nodeStatus[?(@.nodeName=='edge.kubeedge')]"
    assert await status_of(cluster, V1ALPHA2, "later", node_status + ".phase}") == "Failure"
    flow = await status_of(cluster, V1ALPHA2, "later", node_status + ".actionFlow[*]['action','status']}")
    assert flow == "Check Pull True False"
    assert re.fullmatch(
        f"{TIME} {TIME}", await status_of(cluster, V1ALPHA2, "later", node_status + ".actionFlow[*].time}")
    )
    images = json.loads(await status_of(cluster, V1ALPHA2, "later", node_status + ".imageStatus}"))
    assert [(image["image"], image["status"], "reason" in image) for image in images] == [
        (good, "True", False),
        (bad, "False", True),
    ]
    assert await status_of(cluster, V1ALPHA1, "later", "{.status.state}/{.status.event}/{.status.action}") == (
        "Failed/Pull/Failure"
    )
    entry = json.loads(await status_of(cluster, V1ALPHA1, "later", "{.status.status[0]}"))
    assert [image["state"] for image in entry["imageStatus"]] == ["Successful", "Failed"]
    assert await status_of(cluster, V1ALPHA1, "later", "{.status.phase}{.status.nodeStatus}") == ""


async def test_the_finalizer_that_kubeedge_leaves_on_a_job_does_not_keep_it(cluster: ClusterCloud, node: Node) -> None:
    assert FINALIZER in await status_of(cluster, V1ALPHA2, "later", "{.metadata.finalizers}")
    await cluster.kubectl("delete", V1ALPHA1, "later", "--timeout=60s")
    assert "NotFound" in await cluster.kubectl("get", V1ALPHA2, "later", code=1)


async def test_what_the_definition_does_not_know_is_said_by_kubectl_before_a_node_is_touched(
    cluster: ClusterCloud, node: Node
) -> None:
    said = await cluster.kubectl(
        "apply", "-f", "-", stdin=GUIDE_FIRST_YAML.format(image1="image1", image2="image2"), code=1
    )
    assert 'unknown field "spec.imagePrePullTemplate.nodes"' in said
