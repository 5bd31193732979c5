"""kubernetes_asyncio against the embedded API, and what survives a restart."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from cryptography import x509
from kubernetes_asyncio import client, config, watch

from cloudhub.standalone.server import StandaloneAPI
from cloudhub.store.errors import DatabaseInUse
from tests.integration.standalone.rest import (
    CONFIG_MAPS,
    CRDS,
    JOBS,
    NAMESPACES,
    Rest,
    config_map,
    connected,
    eventually,
    job,
    job_crd,
)

GROUP, VERSION, PLURAL = "operations.kubeedge.io", "v1alpha1", "imageprepulljobs"
MERGE = "application/merge-patch+json"


@pytest_asyncio.fixture
async def kube(api: StandaloneAPI, tmp_path: Path) -> AsyncIterator[client.ApiClient]:
    path = tmp_path / "kubeconfig"
    api.write_kubeconfig(path)
    settings = client.Configuration()
    await config.load_kube_config(config_file=str(path), client_configuration=settings, persist_config=False)
    async with client.ApiClient(settings) as connected_client:
        yield connected_client


async def test_typed_objects_are_created_read_and_listed(kube: client.ApiClient) -> None:
    core = client.CoreV1Api(kube)
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"user": "tiger"})
    await core.create_namespaced_secret("default", secret)
    read = await core.read_namespaced_secret("s", "default")
    assert read.data == {"user": "dGlnZXI="}
    made = await core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name="edge", labels={"a": "b"})))
    assert made.metadata.creation_timestamp is not None
    nodes = await core.list_node(label_selector="a=b")
    assert [item.metadata.name for item in nodes.items] == ["edge"]
    with pytest.raises(client.ApiException) as refused:
        await core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name="edge")))
    assert refused.value.status == 409


async def test_custom_objects_are_watched_and_patched(jobs: Rest, kube: client.ApiClient) -> None:
    custom = client.CustomObjectsApi(kube)
    listed = await custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)
    seen: list[tuple[str, str]] = []

    async def follow() -> None:
        stream = watch.Watch()
        revision = listed["metadata"]["resourceVersion"]
        arguments = {"group": GROUP, "version": VERSION, "plural": PLURAL, "resource_version": revision}
        async with stream.stream(custom.list_cluster_custom_object, **arguments) as events:
            async for event in events:
                seen.append((event["type"], event["object"].get("status", {}).get("state", "")))
                if event["type"] == "DELETED":
                    return

    following = asyncio.create_task(follow())
    await custom.create_cluster_custom_object(GROUP, VERSION, PLURAL, job())
    patch = {"status": {"state": "Pulling"}}
    patched = await custom.patch_cluster_custom_object_status(GROUP, VERSION, PLURAL, "job", patch, _content_type=MERGE)  # type: ignore[call-arg]
    assert patched["status"]["state"] == "Pulling"
    await custom.delete_cluster_custom_object(GROUP, VERSION, PLURAL, "job")
    async with asyncio.timeout(60):
        await following
    assert seen == [("ADDED", ""), ("MODIFIED", "Pulling"), ("DELETED", "Pulling")]


async def test_a_patch_for_another_uid_is_a_conflict(jobs: Rest, kube: client.ApiClient) -> None:
    custom = client.CustomObjectsApi(kube)
    await custom.create_cluster_custom_object(GROUP, VERSION, PLURAL, job())
    patch = {"metadata": {"uid": "of-another-job"}, "status": {"state": "Pulling"}}
    with pytest.raises(client.ApiException) as refused:
        await custom.patch_cluster_custom_object_status(GROUP, VERSION, PLURAL, "job", patch, _content_type=MERGE)  # type: ignore[call-arg]
    assert refused.value.status == 409


async def test_state_certificates_and_token_survive_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with StandaloneAPI(data_dir=data) as first, connected(first) as rest:
        await rest.post(CRDS, job_crd())
        await rest.post(JOBS, job())
        await rest.delete(f"{NAMESPACES}/kubeedge")
        await eventually(lambda: _gone(rest, f"{NAMESPACES}/kubeedge"))
        before = (await rest.get(f"{JOBS}/job")).body
        last = (await rest.post(CONFIG_MAPS, config_map("one"))).revision
        await rest.delete(f"{CONFIG_MAPS}/one")
        identity = (first.ca_pem, first.token, (data / "server.crt").read_bytes())
    async with StandaloneAPI(data_dir=data) as second, connected(second) as rest:
        assert (second.ca_pem, second.token, (data / "server.crt").read_bytes()) == identity
        assert (await rest.get(f"{JOBS}/job")).body == before
        assert (await rest.get(f"{CONFIG_MAPS}/one")).code == 404
        made = await rest.post(CONFIG_MAPS, config_map("two"))
        # The deletion had a revision too, and the namespace that was missing was made again.
        assert made.revision == last + 3


async def _gone(rest: Rest, path: str) -> bool:
    return (await rest.get(path)).code == 404


async def test_a_deletion_cut_off_by_a_stop_goes_on_after_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with StandaloneAPI(data_dir=data) as first, connected(first) as rest:
        await rest.post(NAMESPACES, {"metadata": {"name": "team"}})
        held = config_map("held")
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await rest.post("/api/v1/namespaces/team/configmaps", held)
        await rest.delete(f"{NAMESPACES}/team")
    async with StandaloneAPI(data_dir=data) as second, connected(second) as rest:
        assert (await rest.get(f"{NAMESPACES}/team")).body["status"]["phase"] == "Terminating"
        await rest.merge("/api/v1/namespaces/team/configmaps/held", {"metadata": {"finalizers": None}})
        await eventually(lambda: _gone(rest, f"{NAMESPACES}/team"))


async def test_a_new_name_gets_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with StandaloneAPI(data_dir=data) as first:
        authority = first.ca_pem
    async with StandaloneAPI(data_dir=data, extra_names=["hub.example.com", "192.0.2.7"]) as second:
        assert second.ca_pem == authority
        certificate = x509.load_pem_x509_certificate((data / "server.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {"hub.example.com", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
        assert "192.0.2.7" in {str(address) for address in names.get_values_for_type(x509.IPAddress)}


async def test_secrets_of_the_server_are_readable_by_its_owner_alone(api: StandaloneAPI, tmp_path: Path) -> None:
    api.write_kubeconfig(tmp_path / "kubeconfig")
    private = [tmp_path / "kubeconfig", *(tmp_path / "data" / name for name in ("ca.key", "server.key", "token"))]
    private += (tmp_path / "data").glob("objects.db*")
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    document = yaml.safe_load((tmp_path / "kubeconfig").read_text(encoding="utf-8"))
    assert document["users"][0]["user"]["token"] == api.token
    assert document["clusters"][0]["cluster"]["server"] == api.url


async def test_a_data_directory_serves_one_server(api: StandaloneAPI, tmp_path: Path) -> None:
    with pytest.raises(DatabaseInUse):
        await StandaloneAPI(data_dir=tmp_path / "data").start()


async def test_a_port_that_is_taken_leaves_nothing_running(api: StandaloneAPI, tmp_path: Path) -> None:
    other = StandaloneAPI(data_dir=tmp_path / "other", port=api.port)
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {api.port}: Address already in use"):
        await other.start()
    # The database is free again: nothing of the failed start holds it.
    async with StandaloneAPI(data_dir=tmp_path / "other"):
        pass
