"""Which version is spoken, and which keys are written, by the definition that is found."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from cloudhub.kube.crd import load_crd
from cloudhub.kube.jobapi import CRD_PATH, JobAPI, find_job_api, follow_job_api, path_of
from cloudhub.taskmanager.ports import Unavailable
from shared.jobs import JobStatus
from tests.kubeedge_crd import kubeedge_crd
from tests.unit.kube.apiserver import client_of, in_background, running_api

CRDS, _, NAME = CRD_PATH.rpartition("/")
GUIDES = frozenset({"state", "event", "action", "reason", "time", "status"})
LATER = frozenset({"phase", "reason", "nodeStatus"})
OURS = frozenset(JobStatus.model_fields)


async def found(crd: dict[str, Any]) -> JobAPI | None:
    async with running_api() as api, client_of(api) as client:
        await api.put(CRDS, NAME, **deepcopy(crd))
        return await find_job_api(client)


def version(crd: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [version for version in crd["spec"]["versions"] if version["name"] == name]
    result: dict[str, Any] = one
    return result


@pytest.mark.parametrize(
    ("crd", "api"),
    [
        (load_crd(), JobAPI("v1alpha2", ("v1alpha1",), OURS, keeps_progress=True)),
        (kubeedge_crd("first"), JobAPI("v1alpha1", (), GUIDES)),
        (kubeedge_crd("both"), JobAPI("v1alpha2", ("v1alpha1",), GUIDES | LATER)),
        (kubeedge_crd("later"), JobAPI("v1alpha2", ("v1alpha1",), LATER)),
    ],
    ids=["ours", "first", "both", "later"],
)
async def test_the_stored_version_is_spoken_and_its_keys_are_written(crd: dict[str, Any], api: JobAPI) -> None:
    assert await found(crd) == api


async def test_a_stored_version_that_is_not_served_still_decides_what_is_kept() -> None:
    crd = kubeedge_crd("both")
    version(crd, "v1alpha2")["served"] = False
    assert await found(crd) == JobAPI("v1alpha1", (), GUIDES)
    crd = kubeedge_crd("later")
    version(crd, "v1alpha2")["served"] = False
    assert await found(crd) == JobAPI("v1alpha1", (), GUIDES & LATER)


async def test_a_stored_version_that_is_not_known_here_is_not_spoken() -> None:
    crd = kubeedge_crd("both")
    newest = deepcopy(version(crd, "v1alpha2")) | {"name": "v1beta1"}
    version(crd, "v1alpha2")["storage"] = False
    crd["spec"]["versions"].append(newest)
    assert await found(crd) == JobAPI("v1alpha2", ("v1alpha1",), GUIDES | LATER)
    crd["spec"]["versions"] = [newest]
    assert await found(crd) is None


async def test_a_schema_that_keeps_everything_keeps_every_key() -> None:
    crd = kubeedge_crd("first")
    status = version(crd, "v1alpha1")["schema"]["openAPIV3Schema"]["properties"]["status"]
    status["x-kubernetes-preserve-unknown-fields"] = True
    assert await found(crd) == JobAPI("v1alpha1", (), None, keeps_progress=True)


@pytest.mark.parametrize("lacking", ["v1alpha1", "v1alpha2"])
async def test_progress_is_written_only_where_every_entry_keeps_it(lacking: str) -> None:
    crd = load_crd()
    status = version(crd, "v1alpha2")["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    if lacking == "v1alpha1":
        del status["status"]["items"]["properties"]["nodeStatus"]["properties"]["progress"]
    else:
        del status["nodeStatus"]["items"]["properties"]["progress"]
    api = await found(crd)
    assert api is not None
    assert (api.status_keys, api.keeps_progress) == (OURS, False)


@pytest.mark.parametrize("crd", [{}, {"spec": []}, {"spec": {"versions": {}}}, {"spec": {"versions": [7, {}]}}])
async def test_what_is_no_definition_serves_nothing(crd: dict[str, Any]) -> None:
    assert await found(crd) is None


async def test_where_there_is_no_definition_nothing_is_served() -> None:
    async with running_api() as api, client_of(api) as client:
        assert await find_job_api(client) is None


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["v1alpha2", "v1alpha1"], JobAPI("v1alpha2", ("v1alpha1",), None)),
        (["v1alpha1"], JobAPI("v1alpha1", (), None)),
        (["v9"], None),
    ],
)
async def test_without_the_right_to_definitions_discovery_says_what_is_served(
    listed: list[str], expected: JobAPI | None
) -> None:
    async with running_api() as api, client_of(api) as client:
        api.documents["/apis/operations.kubeedge.io"] = {"versions": [{"version": name} for name in listed]}
        api.failing = [403]
        assert await find_job_api(client) == expected


async def test_an_api_that_is_away_is_an_error_not_an_absence() -> None:
    async with running_api() as api, client_of(api) as client:
        api.failing = [503]
        with pytest.raises(Unavailable):
            await find_job_api(client)


async def test_a_definition_that_is_replaced_is_noticed_and_one_that_goes_is_waited_for() -> None:
    async with running_api() as api, client_of(api) as client:
        spoken: list[JobAPI] = []
        turns: asyncio.Queue[None] = asyncio.Queue()
        waits: asyncio.Queue[float] = asyncio.Queue()

        async def sleep(seconds: float) -> None:
            await waits.put(seconds)
            await turns.get()

        async def turn() -> None:
            turns.put_nowait(None)
            await asyncio.wait_for(waits.get(), 30)

        await api.put(CRDS, NAME, **kubeedge_crd("first"))
        async with in_background(lambda: follow_job_api(client, spoken.append, sleep=sleep, every=7)):
            assert await waits.get() == 7
            await turn()
            assert [api.path for api in spoken] == [path_of("v1alpha1")]
            await api.delete(CRDS, NAME)
            await turn()
            api.failing = [503]
            await turn()
            assert len(spoken) == 1
            await api.put(CRDS, NAME, **kubeedge_crd("both"))
            await turn()
            assert [api.version for api in spoken] == ["v1alpha1", "v1alpha2"]
