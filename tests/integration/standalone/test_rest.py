"""Create, read, update and delete over the wire, and the Status objects that refuse."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.integration.standalone.rest import (
    CONFIG_MAPS,
    CRDS,
    JOBS,
    NAMESPACES,
    NODES,
    SECRETS,
    Rest,
    config_map,
    eventually,
    job,
    node,
)


async def test_a_created_object_gets_identity_and_can_be_read(rest: Rest) -> None:
    made = await rest.post(CONFIG_MAPS, config_map("settings", color="blue"), fieldManager="test")
    assert made.code == 201
    metadata = made.body["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert "generation" not in metadata
    assert metadata["managedFields"][0]["manager"] == "test"
    got = await rest.get(f"{CONFIG_MAPS}/settings")
    assert got.code == 200
    assert got.body == made.body


async def test_generate_name_makes_a_new_name_each_time(rest: Rest) -> None:
    body = {"metadata": {"generateName": "run-"}}
    names = {(await rest.post(CONFIG_MAPS, body)).body["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


async def test_a_second_object_of_a_name_already_exists(rest: Rest) -> None:
    await rest.post(CONFIG_MAPS, config_map("one"))
    answer = await rest.post(CONFIG_MAPS, config_map("one"))
    assert (answer.code, answer.reason) == (409, "AlreadyExists")
    assert answer.message == 'configmaps "one" already exists'
    assert answer.body["details"] == {"name": "one", "kind": "configmaps"}


async def test_what_is_not_there_is_not_found_by_its_full_name(jobs: Rest) -> None:
    answer = await jobs.get(f"{JOBS}/nope")
    assert (answer.code, answer.reason) == (404, "NotFound")
    assert answer.message == 'imageprepulljobs.operations.kubeedge.io "nope" not found'
    assert answer.body["kind"] == "Status"
    assert answer.body["details"] == {"name": "nope", "group": "operations.kubeedge.io", "kind": "imageprepulljobs"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/services",
        "/apis/apps/v1/deployments",
        "/api/v2/nodes",
        "/nothing",
        "/apis/nope",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/secrets/x/status",
        "/api/v1/namespaces/default/secrets//",
        "/api/v1/secrets/x",
        "/openapi/v3/apis/nope/v1",
    ],
)
async def test_what_is_not_served_is_a_404_status(rest: Rest, path: str) -> None:
    answer = await rest.get(path)
    assert answer.code == 404
    assert answer.body["kind"] == "Status"
    assert answer.message.startswith("the server could not find the requested resource")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{SECRETS}/x"),
        ("PUT", SECRETS),
        ("POST", "/api/v1/secrets"),
        ("DELETE", "/api/v1/secrets"),
        ("DELETE", f"{NODES}/x/status"),
        ("POST", "/version"),
    ],
)
async def test_a_verb_that_is_not_served_is_a_405_status(rest: Rest, method: str, path: str) -> None:
    answer = await rest.call(method, path, {})
    assert (answer.code, answer.reason) == (405, "MethodNotAllowed")


@pytest.mark.parametrize("token", ["", "wrong", "wrong\u00e9"])
async def test_without_the_token_there_is_nothing_but_health_and_version(rest: Rest, token: str) -> None:
    for path in (SECRETS, "/apis", "/openapi/v2", "/nothing"):
        answer = await rest.get(path, token=token)
        assert (answer.code, answer.reason) == (401, "Unauthorized")
    assert (await rest.get("/version", token="")).code == 200
    assert (await rest.get("/readyz", token="")).body == b"ok"


async def test_the_namespace_must_exist(rest: Rest) -> None:
    answer = await rest.post("/api/v1/namespaces/nowhere/configmaps", config_map("one"))
    assert (answer.code, answer.message) == (404, 'namespaces "nowhere" not found')


async def test_a_body_of_another_kind_name_or_namespace_is_refused(rest: Rest) -> None:
    wrong_kind = await rest.post(CONFIG_MAPS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})
    assert wrong_kind.code == 400
    assert "does not match the expected API version (v1, Kind=ConfigMap)" in wrong_kind.message
    body = config_map("one")
    body["metadata"]["namespace"] = "kube-system"
    assert (await rest.post(CONFIG_MAPS, body)).message == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )
    await rest.post(CONFIG_MAPS, config_map("one"))
    other = await rest.put(f"{CONFIG_MAPS}/one", config_map("two"))
    assert other.message == "the name of the object (two) does not match the name on the URL (one)"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"", b'"x"', b"\xff", b'{"metadata": 3}', b'{"metadata":{"name":3}}', b"[" * 100_000]
)
async def test_a_body_that_is_no_object_is_a_400(rest: Rest, body: bytes) -> None:
    answer = await rest.post(CONFIG_MAPS, body)
    assert answer.code in (400, 422), answer.body
    assert answer.body["kind"] == "Status"


async def test_half_a_surrogate_pair_is_refused_and_harms_nobody(rest: Rest) -> None:
    answer = await rest.post(CONFIG_MAPS, b'{"metadata":{"name":"x"},"data":{"a":"\\ud800"}}')
    assert answer.code == 400
    named = await rest.post(CONFIG_MAPS, b'{"metadata":{"name":"x","annotations":{"a":"\\ud800"}}}')
    assert named.code in (400, 422)
    assert (await rest.post(CONFIG_MAPS, config_map("y"))).code == 201


async def test_a_number_without_end_is_refused(jobs: Rest) -> None:
    lease = b'{"metadata":{"name":"l"},"spec":{"leaseDurationSeconds":1e999}}'
    answer = await jobs.post("/apis/coordination.k8s.io/v1/namespaces/default/leases", lease)
    assert answer.code in (400, 422)
    free = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": free}
    names = {"kind": "Car", "plural": "cars"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    assert (await jobs.post(CRDS, {"metadata": {"name": "cars.example.com"}, "spec": spec})).code == 201
    body = b'{"metadata":{"name":"c"},"any":1e999}'
    assert (await jobs.post("/apis/example.com/v1/cars", body)).code == 400
    assert (await jobs.post("/apis/example.com/v1/cars", body.replace(b"1e999", b"1e3"))).code == 201


async def test_a_name_that_is_no_dns_name_is_invalid(rest: Rest) -> None:
    answer = await rest.post(CONFIG_MAPS, config_map("Not_A_Name"))
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.message.startswith('ConfigMap "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name": ')
    assert answer.body["details"]["causes"][0]["field"] == "metadata.name"
    assert (await rest.post(CONFIG_MAPS, {})).message.endswith("name or generateName is required")


async def test_an_update_from_an_old_revision_conflicts(rest: Rest) -> None:
    first = (await rest.post(CONFIG_MAPS, config_map("one", a="1"))).body
    second = await rest.put(f"{CONFIG_MAPS}/one", {**first, "data": {"a": "2"}})
    assert second.code == 200
    third = await rest.put(f"{CONFIG_MAPS}/one", {**first, "data": {"a": "3"}})
    assert (third.code, third.reason) == (409, "Conflict")
    assert third.message == (
        'Operation cannot be fulfilled on configmaps "one": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


async def test_an_update_of_another_uid_conflicts(rest: Rest) -> None:
    first = (await rest.post(CONFIG_MAPS, config_map("one"))).body
    body = config_map("one", a="1")
    body["metadata"]["uid"] = "another"
    answer = await rest.put(f"{CONFIG_MAPS}/one", body)
    assert answer.code == 409
    uid = first["metadata"]["uid"]
    assert f"UID in precondition: another, UID in object meta: {uid}" in answer.message


async def test_the_server_keeps_the_metadata_that_is_its_own(rest: Rest) -> None:
    first = (await rest.post(CONFIG_MAPS, config_map("one"))).body["metadata"]
    body = config_map("one", a="1")
    body["metadata"] |= {"creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:00Z"}
    after = (await rest.put(f"{CONFIG_MAPS}/one", body)).body["metadata"]
    assert after["creationTimestamp"] == first["creationTimestamp"]
    assert after["uid"] == first["uid"]
    assert "deletionTimestamp" not in after


async def test_an_update_that_changes_nothing_writes_nothing(rest: Rest) -> None:
    first = await rest.post(CONFIG_MAPS, config_map("one", a="1"))
    again = await rest.put(f"{CONFIG_MAPS}/one", first.body, fieldManager="somebody-else")
    assert again.revision == first.revision
    assert (await rest.merge(f"{CONFIG_MAPS}/one", {"data": {"a": "1"}})).revision == first.revision


async def test_a_custom_resource_is_replaced_only_from_a_named_revision(jobs: Rest) -> None:
    made = (await jobs.post(JOBS, job())).body
    answer = await jobs.put(f"{JOBS}/job", job(concurrency=2))
    assert answer.code == 422
    assert answer.message.endswith("metadata.resourceVersion: Invalid value: 0: must be specified for an update")
    made["spec"]["imagePrePullTemplate"]["concurrency"] = 2
    assert (await jobs.put(f"{JOBS}/job", made)).code == 200


async def test_generation_counts_changes_of_the_spec_alone(jobs: Rest) -> None:
    made = await jobs.post(JOBS, job())
    assert made.body["metadata"]["generation"] == 1
    labelled = await jobs.merge(f"{JOBS}/job", {"metadata": {"labels": {"a": "b"}}})
    assert labelled.body["metadata"]["generation"] == 1
    reported = await jobs.merge(f"{JOBS}/job/status", {"status": {"state": "Init"}})
    assert reported.body["metadata"]["generation"] == 1
    edited = await jobs.merge(f"{JOBS}/job", {"spec": {"imagePrePullTemplate": {"concurrency": 5}}})
    assert edited.body["metadata"]["generation"] == 2


async def test_status_and_the_rest_are_written_through_their_own_endpoints(jobs: Rest) -> None:
    made = await jobs.post(JOBS, {**job(), "status": {"state": "Init"}})
    assert "status" not in made.body
    ignored = await jobs.merge(f"{JOBS}/job", {"status": {"state": "Init"}})
    assert "status" not in ignored.body
    both = {"status": {"state": "Pulling"}, "spec": {"imagePrePullTemplate": {"concurrency": 9}}}
    both["metadata"] = {"labels": {"a": "b"}}
    reported = (await jobs.merge(f"{JOBS}/job/status", both)).body
    assert reported["status"]["state"] == "Pulling"
    assert reported["spec"]["imagePrePullTemplate"]["concurrency"] == 1
    assert "labels" not in reported["metadata"]
    kept = await jobs.merge(f"{JOBS}/job", {"spec": {"imagePrePullTemplate": {"concurrency": 3}}, "status": None})
    assert kept.body["status"]["state"] == "Pulling"
    assert (await jobs.get(f"{JOBS}/job/status")).body == kept.body


async def test_the_status_of_a_node_is_kept_apart_too(rest: Rest) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    made = await rest.post(NODES, {**node("edge"), "status": ready})
    assert made.body["status"]["conditions"][0]["type"] == "Ready"
    gone = await rest.merge(f"{NODES}/edge", {"status": {"conditions": []}, "spec": {"unschedulable": True}})
    assert gone.body["status"]["conditions"] == made.body["status"]["conditions"]
    assert gone.body["spec"]["unschedulable"] is True
    patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    kind = "application/strategic-merge-patch+json"
    patched = await rest.call("PATCH", f"{NODES}/edge/status", patch, content_type=kind)
    assert patched.code == 200, patched.body
    assert patched.body["status"]["conditions"][0]["status"] == "False"
    assert patched.body["spec"]["unschedulable"] is True


async def test_a_patch_of_every_kind(rest: Rest) -> None:
    await rest.post(CONFIG_MAPS, config_map("one", a="1"))
    path = f"{CONFIG_MAPS}/one"
    added = [{"op": "add", "path": "/data/b", "value": "2"}]
    patched = await rest.call("PATCH", path, added, content_type="application/json-patch+json")
    assert patched.body["data"] == {"a": "1", "b": "2"}
    assert (await rest.merge(path, {"data": {"a": None}})).body["data"] == {"b": "2"}
    kind = "application/strategic-merge-patch+json"
    patched = await rest.call("PATCH", path, {"data": {"c": "3"}}, content_type=kind)
    assert patched.body["data"] == {"b": "2", "c": "3"}
    applied = b"{apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {d: '4'}}"
    kind = "application/apply-patch+yaml"
    patched = await rest.call("PATCH", path, applied, content_type=kind, fieldManager="me")
    assert patched.code == 200, patched.body
    assert patched.body["data"] == {"b": "2", "c": "3", "d": "4"}
    made = await rest.call(
        "PATCH", f"{CONFIG_MAPS}/two", applied.replace(b"one", b"two"), content_type=kind, fieldManager="me"
    )
    assert made.code == 201
    nobody = await rest.call("PATCH", path, applied, content_type=kind)
    assert (nobody.code, nobody.reason) == (422, "Invalid")
    assert "fieldManager: Required value: is required for apply patch" in nobody.message


async def test_a_patch_of_another_type_is_unsupported(jobs: Rest) -> None:
    await jobs.post(JOBS, job())
    for kind in ("application/strategic-merge-patch+json", "text/plain"):
        answer = await jobs.call("PATCH", f"{JOBS}/job", {}, content_type=kind)
        assert (answer.code, answer.reason) == (415, "UnsupportedMediaType")
        assert "application/merge-patch+json" in answer.message
    missing = await jobs.merge(f"{JOBS}/nope", {})
    assert missing.code == 404


async def test_a_failed_json_patch_changes_nothing(rest: Rest) -> None:
    await rest.post(CONFIG_MAPS, config_map("one", a="1"))
    operations = [{"op": "add", "path": "/data/b", "value": "2"}, {"op": "test", "path": "/data/a", "value": "9"}]
    answer = await rest.call("PATCH", f"{CONFIG_MAPS}/one", operations, content_type="application/json-patch+json")
    assert (answer.code, answer.reason) == (422, "Invalid")
    assert (await rest.get(f"{CONFIG_MAPS}/one")).body["data"] == {"a": "1"}


async def test_writers_at_once_lose_nothing(rest: Rest) -> None:
    await rest.post(CONFIG_MAPS, config_map("shared"))
    patches = (rest.merge(f"{CONFIG_MAPS}/shared", {"data": {f"key{at}": str(at)}}) for at in range(20))
    answers = await asyncio.gather(*patches)
    assert {answer.code for answer in answers} == {200}
    data = (await rest.get(f"{CONFIG_MAPS}/shared")).body["data"]
    assert data == {f"key{at}": str(at) for at in range(20)}
    assert len({answer.revision for answer in answers}) == 20


async def test_one_of_many_creates_wins(rest: Rest) -> None:
    answers = await asyncio.gather(*(rest.post(CONFIG_MAPS, config_map("one", n=str(at))) for at in range(8)))
    assert sorted(answer.code for answer in answers) == [201] + [409] * 7


async def test_unknown_fields_are_refused_warned_of_or_dropped(jobs: Rest) -> None:
    body = job(imagez=["x"])
    strict = await jobs.post(JOBS, body, fieldValidation="Strict")
    assert (strict.code, strict.reason) == (400, "BadRequest")
    assert strict.message == (
        'ImagePrePullJob in version "v1alpha1" cannot be handled as a ImagePrePullJob: '
        'strict decoding error: unknown field "spec.imagePrePullTemplate.imagez"'
    )
    warned = await jobs.post(JOBS, body)
    assert warned.code == 201
    assert warned.warnings == ['299 - "unknown field \\"spec.imagePrePullTemplate.imagez\\""']
    assert "imagez" not in warned.body["spec"]["imagePrePullTemplate"]
    body["metadata"]["name"] = "other"
    silent = await jobs.post(JOBS, body, fieldValidation="Ignore")
    assert (silent.code, silent.warnings) == (201, [])


async def test_a_definitions_defaults_and_rules_hold(jobs: Rest) -> None:
    made = await jobs.post(JOBS, job())
    assert made.body["spec"]["imagePrePullTemplate"]["checkItems"] == ["disk"]
    wrong = await jobs.post(JOBS, job("wrong", concurrency="two"))
    assert (wrong.code, wrong.reason) == (422, "Invalid")
    assert wrong.message.startswith('ImagePrePullJob.operations.kubeedge.io "wrong" is invalid: ')
    edited = await jobs.merge(f"{JOBS}/job", {"spec": {"imagePrePullTemplate": {"images": ["other"]}}})
    assert edited.code == 422


async def test_a_dry_run_answers_and_keeps_nothing(rest: Rest) -> None:
    before = (await rest.get(CONFIG_MAPS)).revision
    made = await rest.post(CONFIG_MAPS, config_map("one"), dryRun="All")
    assert made.code == 201
    assert made.body["metadata"]["uid"]
    assert (await rest.get(f"{CONFIG_MAPS}/one")).code == 404
    kept = await rest.post(CONFIG_MAPS, config_map("one", a="1"))
    patched = await rest.merge(f"{CONFIG_MAPS}/one", {"data": {"a": "2"}}, dryRun="All")
    assert patched.body["data"] == {"a": "2"}
    assert patched.revision == kept.revision
    deleted = await rest.delete(f"{CONFIG_MAPS}/one", dryRun="All")
    assert deleted.code == 200
    assert (await rest.get(f"{CONFIG_MAPS}/one")).body["data"] == {"a": "1"}
    assert (await rest.get(CONFIG_MAPS)).revision == before + 1
    assert (await rest.post(CONFIG_MAPS, config_map("x"), dryRun="Some")).code == 400


async def test_delete_answers_success_and_takes_preconditions(rest: Rest) -> None:
    made = (await rest.post(CONFIG_MAPS, config_map("one"))).body["metadata"]
    path = f"{CONFIG_MAPS}/one"
    other = await rest.delete(path, {"preconditions": {"uid": "another"}})
    assert (other.code, other.reason) == (409, "Conflict")
    assert "Precondition failed: UID in precondition: another" in other.message
    old = await rest.delete(path, {"preconditions": {"resourceVersion": "1"}})
    assert old.code == 409
    answer = await rest.delete(path, {"preconditions": {"uid": made["uid"]}, "propagationPolicy": "Background"})
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {"name": "one", "kind": "configmaps", "uid": made["uid"]}
    assert (await rest.delete(path)).code == 404


async def test_finalizers_hold_a_deleted_object(jobs: Rest) -> None:
    body = job()
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await jobs.post(JOBS, body)
    answer = await jobs.delete(f"{JOBS}/job")
    assert answer.body["kind"] == "ImagePrePullJob"
    assert answer.body["metadata"]["deletionTimestamp"]
    again = await jobs.delete(f"{JOBS}/job")
    assert again.revision == answer.revision
    edited = await jobs.merge(f"{JOBS}/job", {"metadata": {"labels": {"a": "b"}}})
    assert edited.body["metadata"]["deletionTimestamp"] == answer.body["metadata"]["deletionTimestamp"]
    last = await jobs.merge(f"{JOBS}/job", {"metadata": {"finalizers": None}})
    assert last.code == 200
    assert (await jobs.get(f"{JOBS}/job")).code == 404


async def test_a_collection_is_deleted_by_selector(rest: Rest) -> None:
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red")):
        await rest.post(NODES, node(name, color=color))
    answer = await rest.delete(NODES, labelSelector="color=red")
    assert (answer.code, answer.names) == (200, ["a", "c"])
    assert (await rest.get(NODES)).names == ["b"]


async def test_a_namespace_takes_its_content_along(rest: Rest) -> None:
    await rest.post(NAMESPACES, {"metadata": {"name": "team"}})
    for at in range(3):
        await rest.post("/api/v1/namespaces/team/configmaps", config_map(f"c{at}"))
    held = config_map("held")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await rest.post("/api/v1/namespaces/team/configmaps", held)
    gone = await rest.delete(f"{NAMESPACES}/team")
    assert gone.body["status"]["phase"] == "Terminating"

    async def done() -> bool:
        return bool((await rest.get("/api/v1/namespaces/team/configmaps")).names == ["held"])

    await eventually(done)
    refused = await rest.post("/api/v1/namespaces/team/configmaps", config_map("late"))
    assert (refused.code, refused.reason) == (403, "Forbidden")
    assert refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    await rest.merge("/api/v1/namespaces/team/configmaps/held", {"metadata": {"finalizers": None}})

    async def gone_too() -> bool:
        return bool((await rest.get(f"{NAMESPACES}/team")).code == 404)

    await eventually(gone_too)
    assert (await rest.get("/api/v1/namespaces/team/configmaps")).names == []


async def test_the_first_namespaces_are_there_and_two_are_protected(rest: Rest) -> None:
    assert (await rest.get(NAMESPACES)).names == [
        "default",
        "kube-node-lease",
        "kube-public",
        "kube-system",
        "kubeedge",
    ]
    answer = await rest.delete(f"{NAMESPACES}/default")
    assert (answer.code, answer.message) == (
        403,
        'namespaces "default" is forbidden: this namespace may not be deleted',
    )
    made = (await rest.post(NAMESPACES, {"metadata": {"name": "team"}})).body
    assert made["status"]["phase"] == "Active"
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}


async def test_a_definition_is_served_at_once_and_takes_its_objects_along(jobs: Rest) -> None:
    crd = (await jobs.get(f"{CRDS}/imageprepulljobs.operations.kubeedge.io")).body
    conditions = {item["type"]: item["status"] for item in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert crd["status"]["storedVersions"] == ["v1alpha2"]
    await jobs.post(JOBS, job())
    await jobs.delete(f"{CRDS}/imageprepulljobs.operations.kubeedge.io")

    async def done() -> bool:
        return bool((await jobs.get(JOBS)).code == 404)

    await eventually(done)
    assert (await jobs.get(f"{CRDS}/imageprepulljobs.operations.kubeedge.io")).code == 404
    groups = (await jobs.get("/apis")).body["groups"]
    assert "operations.kubeedge.io" not in [group["name"] for group in groups]


async def test_a_secret_is_checked_and_its_text_never_shown(rest: Rest) -> None:
    made = await rest.post(SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "text"}})
    assert made.body["type"] == "Opaque"
    assert made.body["data"] == {"a": base64.b64encode(b"text").decode()}
    assert "stringData" not in made.body
    docker: dict[str, Any] = {"metadata": {"name": "d"}, "type": "kubernetes.io/dockerconfigjson"}
    missing = await rest.post(SECRETS, docker)
    assert missing.message == 'Secret "d" is invalid: data[.dockerconfigjson]: Required value'
    hidden = base64.b64encode(b"hunter2").decode()
    broken = await rest.post(SECRETS, {**docker, "data": {".dockerconfigjson": hidden}})
    assert broken.code == 422
    assert "hunter2" not in broken.message
    assert hidden not in broken.message
    plain = await rest.post(SECRETS, {"metadata": {"name": "p"}, "data": {"a": "not base64!"}})
    assert plain.code == 400
    assert "not base64!" not in plain.message
    frozen = await rest.post(SECRETS, {"metadata": {"name": "i"}, "data": {"a": ""}, "immutable": True})
    assert frozen.code == 201
    changed = await rest.merge(f"{SECRETS}/i", {"stringData": {"a": "x"}})
    assert changed.code == 422
    assert "field is immutable when `immutable` is set" in changed.message


async def test_sizes_are_limited(rest: Rest) -> None:
    text = "x" * 900_000
    assert (await rest.post(CONFIG_MAPS, config_map("ok", a=text))).code == 201
    answer = await rest.post(CONFIG_MAPS, b'{"metadata":{"name":"x"},"data":{"a":"' + b"x" * 3_200_000 + b'"}}')
    assert (answer.code, answer.reason) == (413, "RequestEntityTooLarge")
    assert answer.message == "Request entity too large: limit is 3145728"


async def test_an_object_above_etcds_limit_is_refused(jobs: Rest) -> None:
    await jobs.post(JOBS, job())
    entry = {"nodeStatus": {"nodeName": "edge", "state": "Failed", "reason": "x" * 1000}}
    fits = await jobs.merge(f"{JOBS}/job/status", {"status": {"status": [entry] * 1000}})
    assert fits.code == 200, fits.body
    answer = await jobs.merge(f"{JOBS}/job/status", {"status": {"status": [entry] * 1600}})
    assert (answer.code, answer.reason) == (413, "RequestEntityTooLarge")
    assert len((await jobs.get(f"{JOBS}/job")).body["status"]["status"]) == 1000


async def test_a_lease_can_be_made_by_put(rest: Rest) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kubeedge/leases/hub"
    body = {"metadata": {"name": "hub"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
    assert (await rest.put(path, body)).code == 201
    assert (await rest.put(path, body)).code == 200
    assert (await rest.put(f"{CONFIG_MAPS}/nope", config_map("nope"))).code == 404


async def test_an_event_has_two_spellings(rest: Rest) -> None:
    body = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Node", "name": "edge", "namespace": "default"},
        "reason": "Ready",
        "message": "it is ready",
        "type": "Normal",
        "count": 2,
    }
    made = await rest.post("/api/v1/namespaces/default/events", body)
    assert made.code == 201, made.body
    other = await rest.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert other.body["apiVersion"] == "events.k8s.io/v1"
    assert other.body["regarding"]["name"] == "edge"
    assert (other.body["note"], other.body["deprecatedCount"]) == ("it is ready", 2)
    assert other.body["metadata"] == made.body["metadata"]
    found = await rest.get("/api/v1/events", fieldSelector="involvedObject.name=edge,reason=Ready")
    assert found.names == ["e"]


async def test_yaml_bodies_are_taken(rest: Rest) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: '1'}\n"
    made = await rest.post(CONFIG_MAPS, body, content_type="application/yaml")
    assert (made.code, made.body["data"]) == (201, {"a": "1"})
    assert (await rest.post(CONFIG_MAPS, body, content_type="text/plain")).code == 415
