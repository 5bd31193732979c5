"""The informer's rules, each against a server that misbehaves in one way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cloudhub.kube.jobs import JOBS_PATH, JobInformer
from cloudhub.kube.nodes import NODES_PATH, NodeInformer
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api

FAST: dict[str, Any] = {"backoff": (0.005, 0.02)}


@asynccontextmanager
async def informed(api: ScriptedAPI, **options: Any) -> AsyncIterator[JobInformer]:
    """A running job informer that has its first list."""
    async with client_of(api) as client:
        jobs = JobInformer(client=client, **{**FAST, **options})
        async with in_background(jobs.run):
            await asyncio.wait_for(jobs.synced(), 5)
            yield jobs


async def put_job(api: ScriptedAPI, name: str, **content: Any) -> dict[str, Any]:
    return await api.put(JOBS_PATH, name, spec={"imagePrePullTemplate": {"images": ["a"]}}, **content)


async def watching(api: ScriptedAPI, times: int = 1) -> None:
    await eventually(lambda: api.requests["WATCH"] >= times)


async def test_the_first_list_makes_the_view_complete_and_tells_each_object() -> None:
    async with running_api() as api:
        for name in ("a", "b", "c"):
            await put_job(api, name)
        async with client_of(api) as client:
            jobs = JobInformer(client=client, **FAST)
            told: list[str] = []
            jobs.on_change(told.append)
            async with in_background(jobs.run):
                await jobs.synced()
                assert sorted(told) == ["a", "b", "c"]
                assert {job.name for job in jobs.list()} == {"a", "b", "c"}


async def test_a_list_of_many_pages_is_read_whole() -> None:
    async with running_api() as api:
        for number in range(25):
            await put_job(api, f"job-{number:02}")
        async with informed(api, page_size=4) as jobs:
            assert len(list(jobs.list())) == 25
            assert api.requests["GET"] == 7


async def test_adds_changes_and_deletions_arrive_by_watch() -> None:
    async with running_api() as api, informed(api) as jobs:
        told: list[str] = []
        jobs.on_change(told.append)
        await put_job(api, "a")
        await eventually(lambda: jobs.get("a") is not None)
        await put_job(api, "a", status={"state": "Pulling"})
        await eventually(lambda: bool((job := jobs.get("a")) and job.status))
        await api.delete(JOBS_PATH, "a")
        await eventually(lambda: jobs.get("a") is None)
        assert told == ["a", "a", "a"]
        assert api.requests["GET"] == 1


async def test_a_watch_that_ends_goes_on_from_where_it_was() -> None:
    async with running_api() as api, informed(api) as jobs:
        told: list[str] = []
        jobs.on_change(told.append)
        await put_job(api, "a")
        await eventually(lambda: told == ["a"])
        await api.end_watches()
        await watching(api, times=2)
        await put_job(api, "b")
        await eventually(lambda: jobs.get("b") is not None)
        assert told == ["a", "b"], "nothing may be told twice"


async def test_a_change_between_two_watches_is_not_missed() -> None:
    async with running_api() as api, informed(api) as jobs:
        await watching(api)
        api.end_watches_at_once = True
        await api.end_watches()
        await put_job(api, "a")
        api.end_watches_at_once = False
        await eventually(lambda: jobs.get("a") is not None)


async def test_a_server_that_closes_every_watch_at_once_is_not_hammered() -> None:
    async with running_api() as api:
        api.end_watches_at_once = True
        async with informed(api, backoff=(0.02, 0.1)):
            await asyncio.sleep(0.5)
            assert 3 <= api.requests["WATCH"] <= 15


async def test_bookmarks_keep_the_place_when_nothing_else_happens() -> None:
    async with running_api() as api, informed(api) as jobs:
        await watching(api)
        for _ in range(50):
            await api.put("/api/v1/nodes", "other")
        await api.bookmark(JOBS_PATH)
        await eventually(lambda: jobs._version == str(api.version))
        await api.forget_history()
        await api.end_watches()
        await watching(api, times=2)
        await put_job(api, "a")
        await eventually(lambda: jobs.get("a") is not None)
        assert api.requests["GET"] == 2, "one list at the start, one look at the resourceVersion; no second list"


async def test_after_410_everything_is_listed_again_and_deletions_missed_meanwhile_are_told() -> None:
    async with running_api() as api:
        await put_job(api, "stays")
        await put_job(api, "goes")
        async with informed(api) as jobs:
            await watching(api)
            told: list[str] = []
            jobs.on_change(told.append)
            api.fail_always = 503
            await api.end_watches()
            await api.delete(JOBS_PATH, "goes")
            await put_job(api, "new")
            await api.forget_history()
            api.fail_always = None
            await eventually(lambda: {job.name for job in jobs.list()} == {"stays", "new"})
            assert told[0] == "goes"
            assert sorted(told[1:]) == ["new", "stays"]


async def test_410_as_the_answer_to_a_watch_is_followed_by_a_list() -> None:
    async with running_api() as api, informed(api) as jobs:
        await watching(api)
        api.failing = [410]
        await api.end_watches()
        await put_job(api, "a")
        await eventually(lambda: jobs.get("a") is not None)


async def test_a_watch_that_always_answers_410_does_not_make_a_storm_of_lists() -> None:
    async with running_api() as api:
        api.oldest = 10**9
        async with informed(api, backoff=(0.05, 0.2)):
            await asyncio.sleep(0.5)
            assert api.requests["GET"] <= 8


async def test_a_restarted_server_is_found_again_with_what_was_deleted_while_it_was_away() -> None:
    async with running_api() as api:
        await put_job(api, "stays")
        await put_job(api, "goes")
        async with informed(api) as jobs:
            await api.stop()
            await api.delete(JOBS_PATH, "goes")
            await eventually(lambda: jobs._failures > 1)
            await api.start()
            await eventually(lambda: {job.name for job in jobs.list()} == {"stays"})
            await eventually(lambda: jobs.check(after=0) is None)


async def test_a_server_restored_from_a_backup_is_listed_although_its_resource_versions_went_back() -> None:
    async with running_api() as api:
        await put_job(api, "lost", metadata={"uid": "1"})
        async with informed(api) as jobs:
            await watching(api)
            # Between two requests of the informer the server became an older one: no request failed.
            api.objects[JOBS_PATH].clear()
            api.history.clear()
            api.version = 10
            await put_job(api, "old", metadata={"uid": "0"})
            await api.end_watches()
            await eventually(lambda: {job.name for job in jobs.list()} == {"old"})


async def test_an_event_from_before_our_place_means_another_history() -> None:
    async with running_api() as api:
        await put_job(api, "a")
        async with informed(api) as jobs:
            await watching(api)
            lists = api.requests["GET"]
            api.bad_watch_line = (
                b'{"type":"ADDED","object":{"metadata":{"name":"b","uid":"0","resourceVersion":"11"}}}\n'
            )
            await api.end_watches()
            await watching(api, times=3)
            assert api.requests["GET"] == lists + 2, "a look at the resourceVersion, and a whole list"
            assert {job.name for job in jobs.list()} == {"a"}


async def test_after_an_outage_everything_is_listed_even_if_the_server_would_go_on() -> None:
    async with running_api() as api:
        await put_job(api, "lost")
        async with informed(api) as jobs:
            await watching(api)
            api.fail_always = 503
            await api.end_watches()
            await eventually(lambda: jobs._failures > 1)
            # Another cluster in its place, whose history is longer than ours: no version tells.
            api.objects[JOBS_PATH].clear()
            await put_job(api, "other")
            api.history.clear()
            api.fail_always = None
            await eventually(lambda: {job.name for job in jobs.list()} == {"other"})


async def test_an_unreadable_event_is_made_up_for_by_a_list() -> None:
    async with running_api() as api, informed(api) as jobs:
        await watching(api)
        for line in (b"{nonsense\n", b'{"type":"ADDED"}\n', b"[]\n", b'{"type":"ADDED","object":{"metadata":null}}\n'):
            watches = api.requests["WATCH"]
            api.bad_watch_line = line
            await api.end_watches()
            await watching(api, times=watches + 2)
            name = f"job-{watches}"
            await put_job(api, name)
            await eventually(lambda name=name: jobs.get(name) is not None)  # type: ignore[misc]


async def test_an_object_that_cannot_be_read_does_not_hide_the_others() -> None:
    async with running_api() as api:
        await put_job(api, "good")
        api.objects[JOBS_PATH]["bad"] = {"metadata": {"name": "bad"}}
        async with informed(api) as jobs:
            assert [job.name for job in jobs.list()] == ["good"]


async def test_a_connection_that_says_nothing_is_given_up_after_the_limit_on_silence() -> None:
    async with running_api() as api, informed(api, silence=0.1) as jobs:
        await watching(api, times=3)
        await put_job(api, "a")
        await eventually(lambda: jobs.get("a") is not None)
        assert jobs.check(after=0) is None, "silence alone is no failure"


async def test_a_server_that_hangs_is_unready_and_heals() -> None:
    async with running_api() as api, client_of(api) as client:
        jobs = JobInformer(client=client, silence=0.05, **FAST)
        async with in_background(jobs.run):
            await jobs.synced()
            api.fail_always = 500
            await api.end_watches()
            await eventually(lambda: client.unavailable_since is not None)
            await eventually(lambda: jobs.check(after=0) is not None)
            assert "500" in str(jobs.check(after=0))
            assert "500" in str(client.check(after=0))
            api.fail_always = None
            await eventually(lambda: jobs.check(after=0) is None and client.check(after=0) is None)


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503])
async def test_before_the_first_list_it_says_why_there_is_none_and_goes_on_trying(code: int) -> None:
    async with running_api() as api, client_of(api) as client:
        api.fail_always = code
        jobs = JobInformer(client=client, **FAST)
        async with in_background(jobs.run):
            await eventually(lambda: str(code) in str(jobs.check()))
            assert "not listed yet" in str(jobs.check())
            api.fail_always = None
            await asyncio.wait_for(jobs.synced(), 5)


async def test_a_job_made_again_under_its_name_while_we_were_away_is_another_job() -> None:
    async with running_api() as api:
        await put_job(api, "a", metadata={"uid": "first"})
        async with informed(api) as jobs:
            await api.stop()
            await api.delete(JOBS_PATH, "a")
            await put_job(api, "a", metadata={"uid": "second"})
            await api.start()
            await eventually(lambda: bool((job := jobs.get("a")) and job.uid == "second"))


async def test_a_nodes_heartbeat_is_no_change() -> None:
    async with running_api() as api, client_of(api) as client:
        await api.put(NODES_PATH, "n", metadata={"labels": {"zone": "a"}}, status={"conditions": []})
        nodes = NodeInformer(client=client, **FAST)
        told: list[str] = []
        nodes.on_change(told.append)
        async with in_background(nodes.run):
            await nodes.synced()
            for beat in range(5):
                status = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": str(beat)}]}
                await api.put(NODES_PATH, "n", metadata={"labels": {"zone": "a"}}, status=status)
            await api.put(NODES_PATH, "n", metadata={"labels": {"zone": "b"}})
            await eventually(lambda: bool((node := nodes.get("n")) and node.labels == {"zone": "b"}))
            assert told == ["n", "n"], "the list, and the label"


async def test_what_is_kept_of_a_job_leaves_out_the_entries_by_node() -> None:
    async with running_api() as api:
        await put_job(
            api, "a", status={"state": "Pulling", "status": [{"nodeStatus": {}}] * 100, "counts": {"total": 9}}
        )
        async with informed(api) as jobs:
            job = jobs.get("a")
            assert job is not None
            assert job.status == {"state": "Pulling", "counts": {"total": 9}}


@pytest.mark.parametrize(
    "page", [{"items": 7}, {"items": "ab"}, {"items": {"a": 1}}, {"metadata": [1]}, {"metadata": "x"}], ids=str
)
async def test_a_list_that_is_none_is_read_again_and_does_not_end_the_informer(page: dict[str, Any]) -> None:
    async with running_api() as api, client_of(api) as client:
        await put_job(api, "a")
        answers = [{"metadata": {"resourceVersion": "100"}, "items": [], **page}]
        honest = client.request

        async def lying_once(method: str, path: str, **options: Any) -> dict[str, Any]:
            return answers.pop() if answers else await honest(method, path, **options)

        client.request = lying_once  # type: ignore[method-assign]
        jobs = JobInformer(client=client, **FAST)
        async with in_background(jobs.run):
            await asyncio.wait_for(jobs.synced(), 60)
            assert [job.name for job in jobs.list()] == ["a"]


@pytest.mark.parametrize("version", ["\u0661\u0662", "\u00b2", "9" * 5000])
async def test_a_resource_version_that_is_no_number_of_kubernetes_does_not_end_the_informer(version: str) -> None:
    async with running_api() as api:
        await put_job(api, "a")
        line = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
        api.bad_watch_line = json.dumps(line).encode() + b"\n"
        async with informed(api) as jobs:
            await put_job(api, "b")
            await eventually(lambda: jobs.get("b") is not None, within=60)


async def test_a_job_with_an_endless_number_is_left_out() -> None:
    async with running_api() as api:
        await put_job(api, "a", metadata={"name": "a", "generation": float("inf")})
        await put_job(api, "b")
        async with informed(api) as jobs:
            assert [job.name for job in jobs.list()] == ["b"]
