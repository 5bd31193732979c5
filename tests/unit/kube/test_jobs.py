"""The status patch reaches the job that it is meant for, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cloudhub.kube.jobs import JOBS_PATH, JobInformer, job_object
from cloudhub.taskmanager.ports import Forbidden, Gone, Rejected, Unavailable
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api


@asynccontextmanager
async def known_job(api: ScriptedAPI, uid: str = "u1") -> AsyncIterator[JobInformer]:
    await api.put(JOBS_PATH, "a", metadata={"uid": uid}, spec={}, status={"state": "Pulling", "reason": "old"})
    async with client_of(api) as client:
        jobs = JobInformer(client=client, backoff=(0.005, 0.02))
        async with in_background(jobs.run):
            await asyncio.wait_for(jobs.synced(), 5)
            yield jobs


async def test_keys_given_are_set_keys_with_none_are_removed_and_others_stay() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await jobs.patch_status(name="a", uid="u1", status={"action": "Success", "reason": None})
        assert api.objects[JOBS_PATH]["a"]["status"] == {"state": "Pulling", "action": "Success"}


async def test_patches_in_a_row_need_one_request_each() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        for number in range(5):
            await jobs.patch_status(name="a", uid="u1", status={"time": str(number)})
        assert api.requests["PATCH"] == 5
        assert api.requests["GET"] == 1
        assert api.objects[JOBS_PATH]["a"]["status"]["time"] == "4"


async def test_an_edit_by_someone_else_in_between_is_no_obstacle() -> None:
    async with running_api() as api, known_job(api) as jobs:
        api.end_watches_at_once = True
        await api.end_watches()
        await api.put(JOBS_PATH, "a", metadata={"labels": {"edited": "yes"}}, spec={})
        await jobs.patch_status(name="a", uid="u1", status={"state": "Successful"})
        held = api.objects[JOBS_PATH]["a"]
        assert held["status"] == {"state": "Successful"}
        assert held["metadata"]["labels"] == {"edited": "yes"}


async def test_the_status_of_a_deleted_job_is_gone() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await api.delete(JOBS_PATH, "a")
        with pytest.raises(Gone, match="a of uid u1"):
            await jobs.patch_status(name="a", uid="u1", status={"state": "Failed"})


async def test_a_job_made_again_never_gets_its_predecessors_status() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await api.delete(JOBS_PATH, "a")
        await api.put(JOBS_PATH, "a", metadata={"uid": "u2"}, spec={})
        for _ in range(3):  # before and after the informer has seen the new one
            with pytest.raises(Gone, match="another one has its name"):
                await jobs.patch_status(name="a", uid="u1", status={"state": "Failed"})
            await eventually(lambda: bool((job := jobs.get("a")) and job.uid == "u2"))
        assert "status" not in api.objects[JOBS_PATH]["a"]
        await jobs.patch_status(name="a", uid="u2", status={"state": "Init"})
        assert api.objects[JOBS_PATH]["a"]["status"] == {"state": "Init"}


async def test_a_job_that_others_change_all_the_time_is_for_later() -> None:
    async with running_api() as api, known_job(api) as jobs:

        def edit(request: web.Request) -> None:
            if request.method == "PATCH":
                about = api.objects[JOBS_PATH]["a"]["metadata"]
                about["resourceVersion"] = str(int(about["resourceVersion"]) + 1000)

        api.on_request = edit
        with pytest.raises(Unavailable, match="changed by others"):
            await jobs.patch_status(name="a", uid="u1", status={"state": "Failed"})


@pytest.mark.parametrize(
    ("code", "error"),
    [(500, Unavailable), (503, Unavailable), (429, Unavailable), (403, Forbidden), (422, Rejected), (400, Rejected)],
)
async def test_other_answers_are_errors_of_the_right_class(code: int, error: type[Exception]) -> None:
    async with running_api() as api, known_job(api) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        api.failing = [code]
        with pytest.raises(error, match=str(code)):
            await jobs.patch_status(name="a", uid="u1", status={"state": "Failed"})


async def test_an_api_that_is_away_is_unavailable() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await api.stop()
        with pytest.raises(Unavailable):
            await jobs.patch_status(name="a", uid="u1", status={"state": "Failed"})


def test_a_job_object_is_what_the_api_said() -> None:
    job = job_object(
        {
            "metadata": {
                "name": "a",
                "uid": "u",
                "generation": 3,
                "resourceVersion": "7",
                "creationTimestamp": "2024-04-26T18:51:41Z",
                "deletionTimestamp": "2024-04-26T18:52:41Z",
            },
            "spec": {"imagePrePullTemplate": {"images": []}},
        }
    )
    assert (job.name, job.uid, job.generation, job.resource_version) == ("a", "u", 3, "7")
    assert (job.created, job.deleting) == ("2024-04-26T18:51:41Z", True)
    assert job.spec == {"imagePrePullTemplate": {"images": []}}
    assert job.status == {}
