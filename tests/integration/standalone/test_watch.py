"""Watches: every change once and in order, from any revision that the history reaches, and 410 beyond it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cloudhub.standalone import watch as watch_module
from cloudhub.standalone.server import StandaloneAPI
from tests.integration.standalone.rest import CONFIG_MAPS, JOBS, NODES, TABLE, Rest, WatchStream, config_map, job, node


async def test_a_watch_without_a_revision_begins_with_what_is_there(rest: Rest) -> None:
    await rest.post(NODES, node("a"))
    async with rest.watch(NODES) as watch:
        assert await watch.next_name() == ("ADDED", "a")
        await rest.post(NODES, node("b"))
        assert await watch.next_name() == ("ADDED", "b")
        await rest.merge(f"{NODES}/a", {"metadata": {"labels": {"x": "y"}}})
        kind, changed = await watch.next()
        assert (kind, changed["metadata"]["labels"]) == ("MODIFIED", {"x": "y"})
        deleted = await rest.delete(f"{NODES}/a")
        assert deleted.code == 200
        kind, last = await watch.next()
        assert (kind, last["metadata"]["name"]) == ("DELETED", "a")
        assert int(last["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])


async def test_a_watch_from_a_list_misses_nothing(rest: Rest) -> None:
    await rest.post(NODES, node("a"))
    revision = (await rest.get(NODES)).revision
    await rest.post(NODES, node("b"))
    await rest.delete(f"{NODES}/a")
    async with rest.watch(NODES, resourceVersion=revision) as watch:
        assert await watch.next_name() == ("ADDED", "b")
        assert await watch.next_name() == ("DELETED", "a")
        await rest.post(NODES, node("c"))
        assert await watch.next_name() == ("ADDED", "c")


async def test_a_long_backlog_comes_once_and_in_order(rest: Rest) -> None:
    await rest.post(NODES, node("a"))
    revision = (await rest.get(NODES)).revision
    for at in range(150):
        assert (await rest.merge(f"{NODES}/a", {"metadata": {"labels": {"at": str(at)}}})).code == 200
    async with rest.watch(NODES, resourceVersion=revision) as watch:
        seen = [(await watch.next())[1]["metadata"]["labels"]["at"] for _ in range(150)]
        assert seen == [str(at) for at in range(150)]
        await rest.post(NODES, node("b"))
        assert await watch.next_name() == ("ADDED", "b")


async def test_watchers_at_once_see_the_same_order(rest: Rest) -> None:
    async def follow() -> list[str]:
        async with rest.watch(NODES) as watch:
            started.release()
            seen = []
            for _ in range(30):
                kind, obj = await watch.next()
                assert kind == "ADDED"
                seen.append(obj["metadata"]["resourceVersion"])
            return seen

    started = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(follow()) for _ in range(5)]
    for _ in watchers:
        await started.acquire()
    await asyncio.gather(*(rest.post(NODES, node(f"n{at}")) for at in range(30)))
    seen = await asyncio.gather(*watchers)
    assert seen[0] == sorted(seen[0], key=int)
    assert all(other == seen[0] for other in seen)


async def test_a_selector_turns_changes_into_added_and_deleted(rest: Rest) -> None:
    await rest.post(NODES, node("a", color="blue"))
    revision = (await rest.get(NODES)).revision
    async with rest.watch(NODES, labelSelector="color=red", resourceVersion=revision) as watch:
        await rest.merge(f"{NODES}/a", {"metadata": {"labels": {"color": "red"}}})
        assert await watch.next_name() == ("ADDED", "a")
        await rest.merge(f"{NODES}/a", {"metadata": {"labels": {"size": "big"}}})
        assert await watch.next_name() == ("MODIFIED", "a")
        answer = await rest.merge(f"{NODES}/a", {"metadata": {"labels": {"color": "blue"}}})
        kind, last = await watch.next()
        assert (kind, last["metadata"]["labels"]["color"]) == ("DELETED", "red")
        assert int(last["metadata"]["resourceVersion"]) == answer.revision


async def test_one_object_can_be_watched_by_its_name(rest: Rest) -> None:
    async with rest.watch(CONFIG_MAPS, fieldSelector="metadata.name=b") as watch:
        for name in ("a", "b", "c"):
            await rest.post(CONFIG_MAPS, config_map(name))
        assert await watch.next_name() == ("ADDED", "b")
        await rest.delete(f"{CONFIG_MAPS}/a")
        await rest.delete(f"{CONFIG_MAPS}/b")
        assert await watch.next_name() == ("DELETED", "b")
    async with rest.watch(f"{CONFIG_MAPS}/c") as watch:
        assert await watch.next_name() == ("ADDED", "c")


async def test_a_watch_stays_in_its_namespace(rest: Rest) -> None:
    async with rest.watch(CONFIG_MAPS) as one, rest.watch("/api/v1/configmaps") as every:
        await rest.post("/api/v1/namespaces/kubeedge/configmaps", config_map("elsewhere"))
        await rest.post(CONFIG_MAPS, config_map("here"))
        assert await one.next_name() == ("ADDED", "here")
        assert await every.next_name() == ("ADDED", "elsewhere")


async def test_a_revision_before_the_start_is_gone(rest: Rest, api: StandaloneAPI) -> None:
    await rest.post(NODES, node("a"))
    old = (await rest.get(NODES)).revision
    await rest.post(NODES, node("b"))
    await api.stop()
    await api.start()
    async with rest.watch(NODES, resourceVersion=old) as watch:
        kind, status = await watch.next()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert status["message"].startswith(f"too old resource version: {old} (")
        assert await watch.ended()
    async with rest.watch(NODES, resourceVersion=(await rest.get(NODES)).revision) as watch:
        await rest.post(NODES, node("c"))
        assert await watch.next_name() == ("ADDED", "c")


async def test_a_revision_of_another_data_directory_is_gone(rest: Rest) -> None:
    async with rest.watch(NODES, resourceVersion=1_000_000) as watch:
        kind, status = await watch.next()
        assert (kind, status["code"]) == ("ERROR", 410)


async def test_initial_events_end_with_a_bookmark(rest: Rest) -> None:
    for name in ("a", "b"):
        await rest.post(NODES, node(name))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with rest.watch(NODES, **query) as watch:
        assert await watch.next_name() == ("ADDED", "a")
        assert await watch.next_name() == ("ADDED", "b")
        kind, bookmark = await watch.next()
        assert (kind, bookmark["kind"]) == ("BOOKMARK", "Node")
        assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(bookmark["metadata"]["resourceVersion"]) == (await rest.get(NODES)).revision
        await rest.post(NODES, node("c"))
        assert await watch.next_name() == ("ADDED", "c")
    del query["resourceVersionMatch"]
    refused = await rest.get(NODES, watch="true", **query)
    assert refused.code == 422


async def test_no_initial_events_means_from_now_on(rest: Rest) -> None:
    await rest.post(NODES, node("a"))
    query = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    async with rest.watch(NODES, **query) as watch:
        await rest.post(NODES, node("b"))
        assert await watch.next_name() == ("ADDED", "b")


async def test_bookmarks_bring_the_revision_forward(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BOOKMARK_INTERVAL", 0.05)
    async with rest.watch(NODES, allowWatchBookmarks="true") as watch:
        other = await rest.post(CONFIG_MAPS, config_map("elsewhere"))
        seen = 0
        while seen < other.revision:
            kind, bookmark = await watch.next()
            assert kind == "BOOKMARK"
            seen = int(bookmark["metadata"]["resourceVersion"])
        await rest.post(NODES, node("a"))
        while kind == "BOOKMARK":
            kind, _ = await watch.next()
        assert kind == "ADDED"


async def test_a_watch_ends_after_its_timeout(rest: Rest) -> None:
    async with rest.watch(NODES, timeoutSeconds=1) as watch:
        assert await watch.ended()


async def test_a_watch_shows_tables(jobs: Rest) -> None:
    await jobs.post(JOBS, job("a"))
    async with jobs.watch(JOBS, accept=TABLE) as watch:
        _, first = await watch.next()
        assert first["kind"] == "Table"
        assert first["columnDefinitions"][0]["name"] == "Name"
        assert first["rows"][0]["cells"][0] == "a"
        await jobs.post(JOBS, job("b"))
        _, second = await watch.next()
        assert second["rows"][0]["cells"][0] == "b"


async def test_a_watcher_that_does_not_read_holds_up_nobody(jobs: Rest) -> None:
    await jobs.post(JOBS, job())
    entry = {"nodeStatus": {"nodeName": "edge", "state": "Failed", "reason": "x" * 1000}}
    async with jobs.watch(JOBS), jobs.watch(NODES) as lively:
        # More than sockets buffer, so the first watch's handler waits in its write.
        for at in range(20):
            big = [entry] * 400 + [{"nodeStatus": {"nodeName": f"n{at}", "state": "Init"}}]
            answer = await jobs.merge(f"{JOBS}/job/status", {"status": {"status": big}})
            assert answer.code == 200, answer.body
        await jobs.post(NODES, node("a"))
        assert await lively.next_name() == ("ADDED", "a")


async def read_until_dropped(watch: WatchStream) -> int:
    seen = 0
    try:
        while True:
            await watch.next()
            seen += 1
    except (aiohttp.ClientError, AssertionError):
        return seen


async def test_a_watcher_that_does_not_read_is_dropped_in_the_end(jobs: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "WRITE_TIMEOUT", 0.2)
    await jobs.post(JOBS, job())
    entry = {"nodeStatus": {"nodeName": "edge", "state": "Failed", "reason": "x" * 1000}}
    async with jobs.watch(JOBS) as watch:
        await watch.next()
        transport = watch.stop_reading()
        for at in range(30):
            big = [entry] * 400 + [{"nodeStatus": {"nodeName": f"n{at}", "state": "Init"}}]
            assert (await jobs.merge(f"{JOBS}/job/status", {"status": {"status": big}})).code == 200
        transport.resume_reading()
        seen = await read_until_dropped(watch)
        assert seen < 30


async def test_stopping_ends_watches_at_once(rest: Rest, api: StandaloneAPI) -> None:
    async with rest.watch(NODES) as watch:
        await rest.post(NODES, node("a"))
        assert await watch.next_name() == ("ADDED", "a")
        async with asyncio.timeout(2):
            await api.stop()
        assert await watch.ended()


async def test_a_client_that_goes_leaves_no_watch_behind(rest: Rest, api: StandaloneAPI) -> None:
    async with rest.watch(NODES) as watch:
        await rest.post(NODES, node("a"))
        await watch.next()
        watch.response.close()
    async with asyncio.timeout(2):
        await api.stop()
