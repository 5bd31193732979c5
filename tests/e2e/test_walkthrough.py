"""The user's guide, line by line, on real containerd, docker-registry and kubectl."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import PASSWORD, USER
from tests.e2e.processes import Cloud, Node
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

pytestmark = pytest.mark.e2e

GUIDE_JOB = """\
apiVersion: operations.kubeedge.io/v1alpha1
kind: ImagePrePullJob
metadata:
  name: imageprepull-example
spec:
  imagePrePullTemplate:
    concurrency: 1
    failureTolerate: '0.1'
    images:
      - {image}
    nodeNames:
      - edge.kubeedge
    imageSecrets: default/my-secret
    retryTimes: 1
    timeoutSeconds: 120
"""

GUIDE_FIRST_YAML = """\
apiVersion: operations.kubeedge.io/v1alpha1
kind: ImagePrePullJob
metadata:
  name: imageprepull-nodes
  labels:
    description: ImagePrePullLabel
spec:
  imagePrePullTemplate:
    images:
      - {image1}
      - {image2}
    nodes:
      - edge-1
      - edge-2
    checkItems:
      - "disk"
    failureTolerate: "0.3"
    concurrency: 2
    timeoutSeconds: 180
    retryTimes: 1
"""
"""With its typing slips mended (full-width colons, a missing space) and images and nodes that exist here."""


async def test_the_guide_works_as_printed(cloud: Cloud, registry: Registry, containerd: Containerd, edge: Node) -> None:
    # 1. The node is there and Ready.
    nodes = await cloud.kubectl("get", "node")
    assert re.search(r"^NAME +STATUS +ROLES +AGE +VERSION$", nodes, re.MULTILINE)
    assert re.search(r"^edge\.kubeedge +Ready +agent,edge +\S+ +edgehub-v\S+$", nodes, re.MULTILINE), nodes

    # 2. A private registry with the image, and a Secret for it.
    image = registry.push_image("jilimoxing/test", tag="nginx", layers=(300_000, 200_000))
    assert (
        await cloud.kubectl(
            "create", "secret", "docker-registry", "my-secret", f"--docker-server={registry.address}",
            f"--docker-username={USER}", f"--docker-password={PASSWORD}",
            "--docker-email=my-registry.example:5000",
        )
        == "secret/my-secret created\n"
    )  # fmt: skip
    secrets = await cloud.kubectl("get", "secret", "-A")
    assert re.search(r"^NAMESPACE +NAME +TYPE +DATA +AGE$", secrets, re.MULTILINE)
    assert re.search(r"^default +my-secret +kubernetes\.io/dockerconfigjson +1 +\d+s$", secrets, re.MULTILINE)

    # 3. The job.
    yaml = cloud.folder / "imageprepull.yaml"
    yaml.write_text(GUIDE_JOB.format(image=image.reference))
    created = await cloud.kubectl("apply", "-f", yaml)
    assert created == "imageprepulljob.operations.kubeedge.io/imageprepull-example created\n"
    await cloud.finished("imageprepull-example")
    printed = await cloud.kubectl(
        "get", "imageprepulljobs.operations.kubeedge.io", "imageprepull-example", "-o", "jsonpath={.status}"
    )
    status = json.loads(printed)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    # The guide's keys in the guide's order; ours stand beside them.
    assert re.fullmatch(
        r'\{"action":"Success",.*"event":"Pull",.*"state":"Successful",'
        r'"status":\[\{"imageStatus":\[\{"image":"' + re.escape(image.reference) + r'","state":"Successful"\}\],'
        r'"nodeStatus":\{"action":"Success","event":"Pull","nodeName":"edge\.kubeedge","state":"Successful",'
        rf'"time":"{time}"\}}\}}\],"time":"{time}"\}}',
        printed,
    ), printed
    assert status["counts"] == {"total": 1, "pending": 0, "running": 0, "succeeded": 1, "failed": 0}

    # 4. On the node.
    listing = containerd.ctr_images()
    line = next(line for line in listing.splitlines() if line.startswith(image.reference))
    assert image.digest in line
    assert listing.split()[:4] == ["REF", "TYPE", "DIGEST", "SIZE"]
    assert image.reference in await edge.images()


async def test_kubectl_get_shows_state_counts_and_age(cloud: Cloud, registry: Registry, edge: Node) -> None:
    listing = await cloud.kubectl("get", "imageprepulljobs")
    assert re.search(r"^NAME +STATE +TOTAL +SUCCEEDED +FAILED +RUNNING +AGE$", listing, re.MULTILINE), listing
    assert re.search(r"^imageprepull-example +Successful +1 +1 +0 +0 +\S+$", listing, re.MULTILINE), listing


async def test_the_guides_secret_with_its_odd_server_is_accepted(cloud: Cloud) -> None:
    created = await cloud.kubectl(
        "create", "secret", "docker-registry", "guide-secret", "--docker-server=tiger@acme.example",
        "--docker-username=tiger", "--docker-password=pass1234", "--docker-email=my-registry.example:5000",
    )  # fmt: skip
    assert created == "secret/guide-secret created\n"


async def test_the_guides_first_yaml_works_with_nodes_for_nodeNames(
    cloud: Cloud, nodes: list[Node], open_registry: Registry
) -> None:
    image1 = open_registry.push_image("image1").reference
    image2 = open_registry.push_image("image2").reference
    created = await cloud.apply(GUIDE_FIRST_YAML.format(image1=image1, image2=image2))
    assert created == "imageprepulljob.operations.kubeedge.io/imageprepull-nodes created\n"
    status = await cloud.finished("imageprepull-nodes")
    assert status["state"] == "Successful", status
    assert [entry["nodeStatus"]["nodeName"] for entry in status["status"]] == ["edge-1", "edge-2"]
    for node in nodes[:2]:
        listing = await node.images()
        assert image1 in listing
        assert image2 in listing
    assert image1 not in await nodes[2].images()


async def test_no_trace_of_the_password_is_left_outside_the_secret(
    cloud: Cloud, edge: Node, registry: Registry, secret: str
) -> None:
    jobs = await cloud.kubectl("get", "imageprepulljobs,events,nodes", "-o", "yaml")
    assert PASSWORD not in jobs
    # The embedded API server keeps the Secret itself in objects.db; elsewhere there is nothing, in no form.
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    assert await asyncio.to_thread(_files_with, cloud.folder, [PASSWORD.encode(), encoded]) == []


def _files_with(folder: Path, words: list[bytes]) -> list[Path]:
    """Files below ``folder`` with one of ``words``, but for the embedded API server's own."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("objects.db") and _has(path.read_bytes(), words)
    ]


def _has(data: bytes, words: list[bytes]) -> bool:
    return any(word in data for word in words)
