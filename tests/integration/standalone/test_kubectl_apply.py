"""kubectl apply in all its forms, diff, and what the server refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.standalone.kubectl import JOB, Kubectl, running_api

NAME = "imageprepulljob.operations.kubeedge.io/imageprepull-example"
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  labels:
    team: web
data:
  color: blue
  size: large
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tmp_path) as running:
        yield running


async def test_apply_creates_then_leaves_alone_then_configures(kubectl: Kubectl) -> None:
    changed = JOB.replace("retryTimes: 1", "retryTimes: 2").replace("    imageSecrets: default/my-secret\n", "")

    assert await kubectl.ok("apply", "-f", "-", text=JOB) == f"{NAME} created\n"
    assert await kubectl.ok("apply", "-f", "-", text=JOB) == f"{NAME} unchanged\n"
    assert await kubectl.ok("apply", "-f", "-", text=changed) == f"{NAME} configured\n"

    job = await kubectl.get("imageprepulljob", "imageprepull-example")
    template = job["spec"]["imagePrePullTemplate"]
    assert template["retryTimes"] == 2
    assert template["checkItems"] == ["disk"]
    assert "imageSecrets" not in template
    assert job["metadata"]["generation"] == 2
    (entry,) = job["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl-client-side-apply", "Update")
    assert entry["fieldsV1"]["f:spec"]["f:imagePrePullTemplate"]["f:retryTimes"] == {}


async def test_apply_of_a_built_in_kind_merges_with_what_others_wrote(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=CONFIG_MAP)
    await kubectl.ok("patch", "configmap", "settings", "-p", '{"data":{"shape":"round"}}')

    out = await kubectl.ok("apply", "-f", "-", text=CONFIG_MAP.replace("  size: large\n", "  weight: light\n"))

    assert out == "configmap/settings configured\n"
    assert (await kubectl.get("configmap", "settings"))["data"] == {
        "color": "blue", "shape": "round", "weight": "light",
    }  # fmt: skip


async def test_server_side_apply_names_the_conflict_and_force_wins(kubectl: Kubectl) -> None:
    three = JOB.replace("concurrency: 1", "concurrency: 3")

    out = await kubectl.ok("apply", "--server-side", "--field-manager=first", "-f", "-", text=JOB)
    assert out == f"{NAME} serverside-applied\n"
    err = await kubectl.fails("apply", "--server-side", "--field-manager=second", "-f", "-", text=three)
    assert (
        'Apply failed with 1 conflict: conflict with "first": .spec.imagePrePullTemplate.concurrency\n'
        "Please review the fields above" in err
    )
    await kubectl.ok("apply", "--server-side", "--field-manager=second", "--force-conflicts", "-f", "-", text=three)

    job = await kubectl.get("imageprepulljob", "imageprepull-example")
    assert job["spec"]["imagePrePullTemplate"]["concurrency"] == 3
    owners = {entry["manager"]: entry["fieldsV1"] for entry in job["metadata"]["managedFields"]}
    assert "f:concurrency" not in owners["first"]["f:spec"]["f:imagePrePullTemplate"]
    assert "f:concurrency" in owners["second"]["f:spec"]["f:imagePrePullTemplate"]


async def test_server_side_apply_removes_a_field_that_nobody_applies_any_more(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "--server-side", "-f", "-", text=CONFIG_MAP)
    await kubectl.ok("apply", "--server-side", "-f", "-", text=CONFIG_MAP.replace("  size: large\n", ""))

    assert (await kubectl.get("configmap", "settings"))["data"] == {"color": "blue"}


async def test_a_second_server_side_apply_of_the_same_changes_nothing(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "--server-side", "-f", "-", text=JOB)
    before = await kubectl.get("imageprepulljob", "imageprepull-example")
    await kubectl.ok("apply", "--server-side", "-f", "-", text=JOB)

    assert await kubectl.get("imageprepulljob", "imageprepull-example") == before


async def test_client_side_apply_can_go_over_to_server_side_apply(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=CONFIG_MAP)
    await kubectl.ok("apply", "--server-side", "-f", "-", text=CONFIG_MAP.replace("  size: large\n", ""))

    settings = await kubectl.get("configmap", "settings")
    assert settings["data"] == {"color": "blue"}
    assert {(entry["manager"], entry["operation"]) for entry in settings["metadata"]["managedFields"]} >= {
        ("kubectl", "Apply")
    }


async def test_diff_shows_what_apply_would_change_and_changes_nothing(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=JOB)
    assert (await kubectl.run("diff", "-f", "-", text=JOB)).code == 0

    result = await kubectl.run("diff", "-f", "-", text=JOB.replace("concurrency: 1", "concurrency: 3"))

    assert result.code == 1
    assert "-    concurrency: 1\n+    concurrency: 3\n" in result.out
    assert (await kubectl.get("imageprepulljob", "imageprepull-example"))["metadata"]["generation"] == 1


async def test_a_server_side_dry_run_shows_defaults_and_stores_nothing(kubectl: Kubectl) -> None:
    out = await kubectl.ok("apply", "--dry-run=server", "-o", "yaml", "-f", "-", text=JOB)

    assert "checkItems:\n    - disk" in out
    assert "resourceVersion" not in out
    assert await kubectl.ok("get", "imageprepulljob") == ""
    assert "created (server dry run)" in await kubectl.ok("create", "--dry-run=server", "-f", "-", text=CONFIG_MAP)


@pytest.mark.parametrize("command", [("create",), ("apply",)])
async def test_an_unknown_field_is_refused_in_the_servers_words(kubectl: Kubectl, command: tuple[str, ...]) -> None:
    err = await kubectl.fails(*command, "-f", "-", text=JOB.replace("concurrency", "concurency"))

    assert err == (
        'Error from server (BadRequest): error when creating "STDIN": ImagePrePullJob in version "v1alpha1" cannot be '
        "handled as a ImagePrePullJob: strict decoding error: unknown field "
        '"spec.imagePrePullTemplate.concurency"\n'
    )
    assert await kubectl.ok("get", "imageprepulljob") == ""


async def test_an_unknown_field_is_refused_by_server_side_apply_too(kubectl: Kubectl) -> None:
    err = await kubectl.fails("apply", "--server-side", "-f", "-", text=JOB.replace("concurrency", "concurency"))

    assert (
        "failed to create typed patch object (/imageprepull-example; operations.kubeedge.io/v1alpha1, "
        "Kind=ImagePrePullJob): .spec.imagePrePullTemplate.concurency: field not declared in schema" in err
    )


async def test_an_unknown_field_is_only_warned_about_when_asked(kubectl: Kubectl) -> None:
    result = await kubectl.run("create", "--validate=warn", "-f", "-", text=CONFIG_MAP.replace("\ndata:", "\ndat:"))

    assert result.code == 0
    assert 'Warning: unknown field "dat"' in result.err
    assert "data" not in await kubectl.get("configmap", "settings")


async def test_a_wrong_type_is_refused_with_field_and_type(kubectl: Kubectl) -> None:
    err = await kubectl.fails("apply", "-f", "-", text=JOB.replace("concurrency: 1", "concurrency: three"))
    assert err == (
        'The ImagePrePullJob "imageprepull-example" is invalid: spec.imagePrePullTemplate.concurrency: Invalid value: '
        '"string": spec.imagePrePullTemplate.concurrency in body must be of type integer: "string"\n'
    )

    err = await kubectl.fails("create", "-f", "-", text=CONFIG_MAP.replace("color: blue", "color: 5"))
    assert 'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number' in err


async def test_a_bad_name_and_a_bad_label_are_refused(kubectl: Kubectl) -> None:
    err = await kubectl.fails("create", "-f", "-", text=CONFIG_MAP.replace("name: settings", "name: my_settings"))

    assert 'The ConfigMap "my_settings" is invalid: metadata.name: Invalid value: "my_settings": a lowercase RFC' in err
    err = await kubectl.fails("create", "-f", "-", text=CONFIG_MAP.replace("team: web", "team: a b"))
    assert 'metadata.labels: Invalid value: "a b": a valid label must be an empty string or consist of' in err


async def test_a_transition_rule_keeps_images_as_they_are(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=JOB)

    err = await kubectl.fails("apply", "-f", "-", text=JOB.replace("test:nginx", "test:other"))

    assert err == (
        'The ImagePrePullJob "imageprepull-example" is invalid: spec.imagePrePullTemplate: Invalid value: "object": '
        "images cannot be changed once the job exists; make a new job for other images\n"
    )
