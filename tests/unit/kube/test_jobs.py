"""The status patch reaches the job that it is meant for, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest
from aiohttp import web

from cloudhub.kube.jobapi import JobAPI
from cloudhub.kube.jobs import JOBS_PATH, JobInformer, job_object
from cloudhub.taskmanager.ports import Forbidden, Gone, Rejected, Unavailable
from shared.jobs import FINALIZER
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api

BOTH = JobAPI("v1alpha2", ("v1alpha1",), frozenset({"state", "phase", "reason"}))
LATER_PATH = BOTH.path


@asynccontextmanager
async def known_job(
    api: ScriptedAPI, uid: str = "u1", speaking: JobAPI | None = None, **about: Any
) -> AsyncIterator[JobInformer]:
    content = {"metadata": {"uid": uid, **about}, "spec": {}, "status": {"state": "Pulling", "reason": "old"}}
    await api.put(JOBS_PATH, "a", **deepcopy(content))
    await api.put(LATER_PATH, "a", **deepcopy(content))
    async with client_of(api) as client:
        jobs = JobInformer(client=client, backoff=(0.005, 0.02), api=speaking)
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


async def test_keys_that_the_definition_does_not_keep_are_not_sent() -> None:
    async with running_api() as api, known_job(api, speaking=BOTH) as jobs:
        await jobs.patch_status(name="a", uid="u1", status={"phase": "Init", "counts": {}, "time": "1"})
        assert api.objects[LATER_PATH]["a"]["status"] == {"state": "Pulling", "reason": "old", "phase": "Init"}
        assert api.objects[JOBS_PATH]["a"]["status"] == {"state": "Pulling", "reason": "old"}


async def test_another_version_is_spoken_as_soon_as_it_is_known() -> None:
    async with running_api() as api, known_job(api) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        await api.put(LATER_PATH, "later", metadata={"uid": "u2"}, spec={})
        jobs.speak(BOTH)
        jobs.speak(BOTH)
        await eventually(lambda: jobs.get("later") is not None, within=60)
        await eventually(lambda: api.requests["WATCH"] == 2, within=60)
        await api.put(LATER_PATH, "a", metadata={"uid": "u1"}, spec={}, status={"phase": "Init"})
        await eventually(lambda: bool((job := jobs.get("a")) and job.status == {"phase": "Init"}), within=60)
        await jobs.patch_status(name="a", uid="u1", status={"phase": "Completed"})
        assert api.objects[LATER_PATH]["a"]["status"] == {"phase": "Completed"}
        assert jobs.status_keys == BOTH.status_keys


async def test_a_status_is_lost_when_a_write_of_others_left_keys_out_of_it() -> None:
    async with running_api() as api, known_job(api, speaking=BOTH) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        assert jobs.lost_status("a")  # phase was never written
        await jobs.patch_status(name="a", uid="u1", status={"state": "Successful", "phase": "Completed"})
        assert not jobs.lost_status("a")
        await api.put(LATER_PATH, "a", metadata={"labels": {"x": "y"}}, spec={}, status={"state": "Successful"})
        await eventually(lambda: jobs.lost_status("a"), within=60)
        assert not jobs.lost_status("nobody")


async def test_a_server_that_drops_a_key_whatever_we_do_has_lost_nothing() -> None:
    async with running_api() as api, known_job(api, speaking=BOTH) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        await jobs.patch_status(name="a", uid="u1", status={"phase": None, "state": "Successful"})
        assert "phase" not in api.objects[LATER_PATH]["a"]["status"]
        for _ in range(2):  # before and after its echo
            assert not jobs.lost_status("a")
            await eventually(
                lambda: bool((job := jobs.get("a")) and job.status.get("state") == "Successful"), within=60
            )


async def test_where_it_is_not_known_which_keys_are_kept_none_is_lost() -> None:
    async with running_api() as api, known_job(api) as jobs:
        assert not jobs.lost_status("a")


async def test_our_finalizer_goes_and_those_of_others_stay() -> None:
    async with running_api() as api, known_job(api, finalizers=["first", FINALIZER, "last"]) as jobs:
        await jobs.release(name="a", uid="u1")
        assert api.objects[JOBS_PATH]["a"]["metadata"]["finalizers"] == ["first", "last"]
        assert api.objects[JOBS_PATH]["a"]["status"] == {"state": "Pulling", "reason": "old"}
        await jobs.release(name="a", uid="u1")
        assert api.requests["PATCH"] == 1


async def test_a_finalizer_that_someone_adds_in_between_is_not_lost() -> None:
    async with running_api() as api, known_job(api, finalizers=[FINALIZER]) as jobs:

        def add(request: web.Request) -> None:
            if request.method == "PATCH":
                api.on_request = None
                about = api.objects[JOBS_PATH]["a"]["metadata"]
                about["resourceVersion"] = str(int(about["resourceVersion"]) + 1000)
                about["finalizers"].append("theirs")

        api.on_request = add
        with pytest.raises(Unavailable):
            await jobs.release(name="a", uid="u1")
        await jobs.release(name="a", uid="u1")
        assert api.objects[JOBS_PATH]["a"]["metadata"]["finalizers"] == ["theirs"]


async def test_a_job_that_is_no_more_or_another_needs_no_release() -> None:
    async with running_api() as api, known_job(api, finalizers=[FINALIZER]) as jobs:
        await jobs.release(name="a", uid="u2")
        await jobs.release(name="b", uid="u1")
        assert api.objects[JOBS_PATH]["a"]["metadata"]["finalizers"] == [FINALIZER]


async def test_what_one_version_refuses_is_tried_in_the_other() -> None:
    async with running_api() as api, known_job(api, speaking=BOTH, finalizers=[FINALIZER]) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)
        # One object in truth: there are two here, so that it shows which one was written to.
        api.objects[JOBS_PATH]["a"]["metadata"]["resourceVersion"] = api.objects[LATER_PATH]["a"]["metadata"][
            "resourceVersion"
        ]
        refused = []

        def refuse(request: web.Request) -> None:
            if request.method == "PATCH" and request.path.startswith(LATER_PATH):
                refused.append(request.path)
                api.failing = [422]

        api.on_request = refuse
        await jobs.release(name="a", uid="u1")
        assert refused == [f"{LATER_PATH}/a"]
        assert api.objects[JOBS_PATH]["a"]["metadata"]["finalizers"] == []


async def test_what_every_version_refuses_is_an_error() -> None:
    async with running_api() as api, known_job(api, finalizers=[FINALIZER]) as jobs:
        await eventually(lambda: api.requests["WATCH"] == 1)

        def refuse(request: web.Request) -> None:
            if request.method == "PATCH":
                api.failing = [422]

        api.on_request = refuse
        with pytest.raises(Rejected):
            await jobs.release(name="a", uid="u1")


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
                "finalizers": ["theirs", FINALIZER],
            },
            "spec": {"imagePrePullTemplate": {"images": []}},
        }
    )
    assert (job.name, job.uid, job.generation, job.resource_version) == ("a", "u", 3, "7")
    assert (job.created, job.deleting) == ("2024-04-26T18:51:41Z", True)
    assert job.spec == {"imagePrePullTemplate": {"images": []}}
    assert job.status == {}
    assert job.held


def test_what_it_keeps_of_a_status_are_not_the_entries() -> None:
    status = {"phase": "Completed", "state": "Successful", "status": [{}], "nodeStatus": [{}]}
    job = job_object({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "status": status})
    assert job.status == {"phase": "Completed", "state": "Successful"}
    assert not job.held
