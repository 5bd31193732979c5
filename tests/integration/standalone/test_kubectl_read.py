"""What kubectl shows: get in all its forms, watch, describe, wait, explain, discovery."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.standalone.kubectl import JOB, Kubectl, running_api, table

JOB_STATUS = {
    "state": "Successful",
    "counts": {"total": 1, "succeeded": 1, "failed": 0, "running": 0, "pending": 0},
    "conditions": [
        {
            "type": "Complete",
            "status": "True",
            "reason": "AllNodes",
            "message": "all nodes hold all images",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}
NODE = """\
apiVersion: v1
kind: Node
metadata:
  name: edge.kubeedge
  labels:
    node-role.kubernetes.io/edge: ""
    node-role.kubernetes.io/agent: ""
"""
NODE_STATUS = {
    "conditions": [{"type": "Ready", "status": "True"}],
    "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
    "nodeInfo": {"kubeletVersion": "v1.27.7-kubeedge-v1.16.0", "osImage": "Debian", "kernelVersion": "6.1"},
}


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tmp_path) as running:
        yield running


async def finish(kubectl: Kubectl, name: str = "imageprepull-example") -> None:
    patch = json.dumps({"status": JOB_STATUS})
    await kubectl.ok("patch", "imageprepulljob", name, "--subresource=status", "--type=merge", "-p", patch)


async def test_get_prints_the_columns_of_the_definition(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    await finish(kubectl)

    rows = table(await kubectl.ok("get", "imageprepulljobs"))
    wide = table(await kubectl.ok("get", "imageprepulljob", "imageprepull-example", "-o", "wide"))

    assert rows[0] == ["NAME", "STATE", "TOTAL", "SUCCEEDED", "FAILED", "RUNNING", "AGE"]
    assert rows[1][:6] == ["imageprepull-example", "Successful", "1", "1", "0", "0"]
    assert rows[1][6].endswith("s")
    assert wide[0] == ["NAME", "STATE", "TOTAL", "SUCCEEDED", "FAILED", "RUNNING", "PENDING", "PHASE", "REASON", "AGE"]


async def test_get_gives_the_object_as_yaml_json_and_by_path(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    await finish(kubectl)

    as_yaml = await kubectl.get("imageprepulljob", "imageprepull-example")
    as_json = json.loads(await kubectl.ok("get", "imageprepulljob", "imageprepull-example", "-o", "json"))
    status = await kubectl.ok(
        "get", "imageprepulljobs.operations.kubeedge.io", "imageprepull-example", "-o", "jsonpath={.status}"
    )

    assert as_yaml["spec"] == as_json["spec"]
    assert json.loads(status) == as_json["status"] == JOB_STATUS
    assert await kubectl.ok("get", "imageprepulljob", "-o", "name") == (
        "imageprepulljob.operations.kubeedge.io/imageprepull-example\n"
    )


async def test_get_selects_by_label_and_by_name(kubectl: Kubectl) -> None:
    other = JOB.replace("imageprepull-example", "other").replace("team: web", "team: data")
    await kubectl.ok("create", "-f", "-", text=f"{JOB}---\n{other}")

    async def names(*args: str) -> list[str]:
        return [row[0] for row in table(await kubectl.ok("get", "imageprepulljob", "--no-headers", *args))]

    assert await names() == ["imageprepull-example", "other"]
    assert await names("-l", "team=data") == ["other"]
    assert await names("-l", "team notin (data),team") == ["imageprepull-example"]
    assert await names("--field-selector", "metadata.name=other") == ["other"]
    err = await kubectl.fails("get", "imageprepulljob", "--field-selector", "spec.color=red")
    assert "field label not supported: spec.color" in err
    err = await kubectl.fails("get", "imageprepulljob", "-l", "team in web")
    assert "unable to parse requirement" in err


async def test_get_watches_changes_and_deletions(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)

    async with kubectl.follow("get", "imageprepulljob", "-w", "--output-watch-events") as lines:
        await lines.until(lambda line: line.startswith("ADDED") and "imageprepull-example" in line)
        await finish(kubectl)
        changed = await lines.until(lambda line: line.startswith("MODIFIED"))
        await kubectl.ok("delete", "imageprepulljob", "imageprepull-example")
        await lines.until(lambda line: line.startswith("DELETED"))

    assert changed.split()[1:3] == ["imageprepull-example", "Successful"]


async def test_nodes_are_printed_as_in_a_cluster(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=NODE)
    before = table(await kubectl.ok("get", "nodes"))
    patch = json.dumps({"status": NODE_STATUS})
    await kubectl.ok("patch", "node", "edge.kubeedge", "--subresource=status", "-p", patch)
    await kubectl.ok("cordon", "edge.kubeedge")
    after = table(await kubectl.ok("get", "nodes", "-o", "wide"))

    assert before[1][:3] == ["edge.kubeedge", "Unknown", "agent,edge"]
    assert after[0][:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert after[1][1:3] == ["Ready,SchedulingDisabled", "agent,edge"]
    assert after[1][4:] == ["v1.27.7-kubeedge-v1.16.0", "192.0.2.7", "<none>", "Debian", "6.1", "<unknown>"]


async def test_get_over_all_namespaces_names_them(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "namespace", "shop")
    await kubectl.ok("create", "secret", "generic", "token", "-n", "shop", "--from-literal=a=b")
    await kubectl.ok("create", "secret", "docker-registry", "my-secret", "--docker-server=registry.example",
                     "--docker-username=tiger", "--docker-password=pass1234")  # fmt: skip

    rows = table(await kubectl.ok("get", "secret", "-A"))

    assert rows[0] == ["NAMESPACE", "NAME", "TYPE", "DATA", "AGE"]
    assert [row[:4] for row in rows[1:]] == [
        ["default", "my-secret", "kubernetes.io/dockerconfigjson", "1"],
        ["shop", "token", "Opaque", "1"],
    ]
    assert await kubectl.ok("get", "secret", "-A", "--field-selector", "type=Opaque", "-o", "name") == "secret/token\n"


async def test_events_are_listed_and_shown_with_their_object(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    job = await kubectl.get("imageprepulljob", "imageprepull-example")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "started", "namespace": "default"},
        "involvedObject": {
            "apiVersion": job["apiVersion"],
            "kind": job["kind"],
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        },
        "reason": "Started",
        "message": "dispatched to 1 node",
        "firstTimestamp": job["metadata"]["creationTimestamp"],
        "lastTimestamp": job["metadata"]["creationTimestamp"],
        "source": {"component": "cloudhub"},
    }
    await kubectl.ok("create", "-f", "-", text=json.dumps(event))

    rows = table(await kubectl.ok("get", "events"))
    described = await kubectl.ok("describe", "imageprepulljob", "imageprepull-example")

    assert rows[0] == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert rows[1][1:4] == ["Normal", "Started", "imageprepulljob/imageprepull-example"]
    assert "Started" in described.split("Events:")[1]
    assert "dispatched to 1 node" in described.split("Events:")[1]


async def test_describe_shows_a_job_a_secret_and_a_node(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=f"{JOB}---\n{NODE}")
    await finish(kubectl)
    await kubectl.ok("create", "secret", "generic", "token", "--from-literal=word=hidden")

    job = await kubectl.ok("describe", "imageprepulljob", "imageprepull-example")
    secret = await kubectl.ok("describe", "secret", "token")
    node = await kubectl.ok("describe", "node", "edge.kubeedge")

    assert "Failure Tolerate:  0.1" in job
    assert "word:  6 bytes" in secret
    assert "hidden" not in secret
    assert "Roles:              agent,edge" in node


async def test_wait_ends_when_the_state_or_the_condition_comes(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    job = "imageprepulljob/imageprepull-example"
    err = await kubectl.fails("wait", "--for=condition=Complete", job, "--timeout=1s")
    assert "timed out waiting for the condition" in err

    async with kubectl.follow("wait", "--for=jsonpath={.status.state}=Successful", job, "--timeout=20s") as lines:
        await finish(kubectl)
        await lines.until(lambda line: line.endswith("imageprepull-example condition met\n"))
    assert "condition met" in await kubectl.ok("wait", "--for=condition=Complete", job, "--timeout=5s")
    await kubectl.ok("delete", job, "--wait=false")
    await kubectl.ok("wait", "--for=delete", job, "--timeout=5s")


async def test_explain_tells_of_custom_and_built_in_fields(kubectl: Kubectl) -> None:
    custom = await kubectl.ok("explain", "imageprepulljob.spec.imagePrePullTemplate.failureTolerate")
    built_in = await kubectl.ok("explain", "node.status.conditions.type")
    tree = await kubectl.ok("explain", "imageprepulljob", "--recursive")

    assert "FIELD: failureTolerate <string>" in custom
    assert "share of nodes that may fail" in custom
    assert "FIELD: type <string>" in built_in
    assert "nodeNames\t<[]string>" in tree
    assert "ObjectMeta" in tree


async def test_discovery_lists_resources_and_versions(kubectl: Kubectl) -> None:
    resources = table(await kubectl.ok("api-resources", "--no-headers"))
    versions = (await kubectl.ok("api-versions")).split()

    assert ["imageprepulljobs", "operations.kubeedge.io/v1alpha2", "false", "ImagePrePullJob"] in resources
    assert ["nodes", "no", "v1", "false", "Node"] in resources
    assert ["leases", "coordination.k8s.io/v1", "true", "Lease"] in resources
    assert set(versions) >= {
        "v1",
        "apiextensions.k8s.io/v1",
        "coordination.k8s.io/v1",
        "operations.kubeedge.io/v1alpha1",
        "operations.kubeedge.io/v1alpha2",
    }


async def test_what_is_not_served_is_said_so(kubectl: Kubectl) -> None:
    assert 'the server doesn\'t have a resource type "pods"' in await kubectl.fails("get", "pods")
    assert '"nope" not found' in await kubectl.fails("get", "configmap", "nope")
    await kubectl.ok("create", "-f", "-", text=JOB)
    err = await kubectl.fails("scale", "--replicas=2", "imageprepulljob/imageprepull-example")
    assert "(NotFound)" in err
    assert "imageprepulljobs.operations.kubeedge.io have no subresource scale here" in err
