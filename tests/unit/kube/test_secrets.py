from __future__ import annotations

import base64
import traceback

import pytest

from cloudhub.kube.errors import Conflict
from cloudhub.kube.secrets import SecretReader, secret_object
from cloudhub.pki.secrets import SecretStore
from cloudhub.taskmanager.ports import Forbidden, NotFound, Rejected, Secrets
from tests.unit.kube.apiserver import client_of, running_api

PATH = "/api/v1/namespaces/kubeedge/secrets"


async def test_a_secret_is_read_decoded_and_asked_for_each_time() -> None:
    async with running_api() as api, client_of(api) as client:
        data = {".dockerconfigjson": base64.b64encode(b"{}").decode()}
        await api.put(PATH, "s", type="kubernetes.io/dockerconfigjson", data=data)
        reader: Secrets = SecretReader(client=client)
        for _ in range(2):
            secret = await reader.get("kubeedge", "s")
            assert secret.type == "kubernetes.io/dockerconfigjson"
            assert secret.data == {".dockerconfigjson": b"{}"}
        assert api.requests["GET"] == 2


async def test_what_is_missing_or_forbidden_has_its_class() -> None:
    async with running_api() as api, client_of(api) as client:
        await api.put(PATH, "other")
        with pytest.raises(NotFound, match="kubeedge/secrets/s"):
            await SecretReader(client=client).get("kubeedge", "s")
        api.failing = [403]
        with pytest.raises(Forbidden):
            await SecretReader(client=client).get("kubeedge", "s")


async def test_it_keeps_the_ca_as_pki_wants() -> None:
    async with running_api() as api, client_of(api) as client:
        store: SecretStore = SecretReader(client=client)
        await store.create("kubeedge", "casecret", type="Opaque", data={"cadata": b"1", "cakeydata": b"2"})
        with pytest.raises(Conflict):
            await store.create("kubeedge", "casecret", type="Opaque", data={"cadata": b"x"})
        await store.update("kubeedge", "casecret", data={"cakeydata": b"3"})
        assert (await store.get("kubeedge", "casecret")).data == {"cadata": b"1", "cakeydata": b"3"}
        with pytest.raises(NotFound):
            await store.update("kubeedge", "nothing", data={})


async def test_a_missing_namespace_is_made() -> None:
    async with running_api() as api, client_of(api) as client:
        api.failing = [404]
        await SecretReader(client=client).create("kubeedge", "s", data={"a": b"b"})
        assert "kubeedge" in api.objects["/api/v1/namespaces"]
        assert api.objects[PATH]["s"]["data"] == {"a": "Yg=="}


@pytest.mark.parametrize("data", [{"a": "hunter2!"}, {"a": 7}, ["a"], "x"])
def test_data_that_is_no_base64_is_refused_without_repeating_it(data: object) -> None:
    with pytest.raises(Rejected, match="Secret a/b") as caught:
        secret_object({"data": data}, "a/b")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_names_cannot_leave_their_path() -> None:
    async with running_api() as api, client_of(api) as client:
        paths: list[str] = []
        api.on_request = lambda request: paths.append(request.raw_path)
        api.fail_always = 404
        with pytest.raises(NotFound):
            await SecretReader(client=client).get("a/../../b", "c/../d?x=1")
    assert paths == ["/api/v1/namespaces/a%2F..%2F..%2Fb/secrets/c%2F..%2Fd%3Fx=1"]
