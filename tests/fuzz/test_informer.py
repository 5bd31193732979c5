"""An API server, or a proxy before it, that sends nonsense on a watch: the view is right again afterwards."""

from __future__ import annotations

from functools import partial

from structlog.testing import capture_logs

from cloudhub.kube.jobs import JobInformer
from tests.fuzz.mutate import texts_of
from tests.fuzz.runs import drawn, ran, slow_fuzzing
from tests.fuzz.targets import SPEC
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api
from tests.unit.kube.test_informer import FAST, put_job

_JOB = {
    "apiVersion": "operations.kubeedge.io/v1alpha1",
    "kind": "ImagePrePullJob",
    "metadata": {"name": "ghost", "uid": "u", "resourceVersion": "5", "generation": 1},
    "spec": SPEC,
    "status": {"state": "Pulling"},
}
EVENTS = (
    {"type": "ADDED", "object": _JOB},
    {"type": "MODIFIED", "object": _JOB},
    {"type": "DELETED", "object": _JOB},
    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    {"type": "ERROR", "object": {"kind": "Status", "code": 500, "reason": "Internal", "message": "x"}},
)


async def test_whatever_a_watch_brings_the_view_is_right_again() -> None:
    async with running_api() as api:
        await put_job(api, "a")
        async with client_of(api) as client:
            jobs = JobInformer(client=client, **FAST)
            with capture_logs() as logs:
                async with in_background(jobs.run) as running:
                    await jobs.synced()
                    for number, line in enumerate(drawn(texts_of(EVENTS), slow_fuzzing)):
                        before = api.requests["WATCH"]
                        api.bad_watch_line = line.replace(b"\n", b" ") + b"\n"
                        await api.end_watches()
                        await eventually(partial(_watched_again, api, before), within=60)
                        await api.forget_history()
                        await api.end_watches()
                        name = f"good-{number}"
                        await put_job(api, name)
                        await eventually(partial(_knows, jobs, name), within=60)
                        ran("watch lines", refused=False)
                        assert not running.done()
            assert {job.name for job in jobs.list()} == set(
                api.objects["/apis/operations.kubeedge.io/v1alpha1/imageprepulljobs"]
            )
            assert [entry for entry in logs if entry.get("exc_info")] == []


def _watched_again(api: ScriptedAPI, before: int) -> bool:
    return api.requests["WATCH"] > before


def _knows(jobs: JobInformer, name: str) -> bool:
    return jobs.get(name) is not None
