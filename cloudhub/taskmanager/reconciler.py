"""Makes the store agree with the jobs that the API has.

Called with a job's name as often as anyone likes, it reads what the informer and the store have of it and does what
is missing: admit a new job (validate, read its Secret, choose its nodes, store it with all of its node tasks in one
transaction), take over edits, forget a job that is no more. A job is its uid: another object of the same name is
another job, and what the first one left goes.

Guarantees: doing it twice changes nothing; no node is touched for a job whose spec is wrong, which is stored as
failed with the reason instead; a job that already ended by its status, and of which the store knows nothing (another
hub's, a CloudCore's, or an earlier data folder's), is left alone; a deleted job that KubeEdge's finalizer holds goes as
soon as its rows are gone. Credentials go from the Secret into memory (`LiveJob`) and nowhere
else.
"""

from __future__ import annotations

from typing import Any, Final

import structlog

from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Job, NewJob, NewTask
from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.controller import DONE, Again, Result, Retry
from cloudhub.taskmanager.live import LiveJob, LiveJobs, credentials_of
from cloudhub.taskmanager.parts import Credentials
from cloudhub.taskmanager.ports import (
    Forbidden,
    JobObject,
    Jobs,
    KubeError,
    Nodes,
    NotFound,
    Rejected,
    Secrets,
    Sessions,
)
from cloudhub.taskmanager.scheduler import Scheduler
from cloudhub.taskmanager.selection import select
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, SecretName, parse_spec
from cloudhub.taskmanager.stocksecret import SecretVersion
from shared.credentials import DockerConfig, InvalidDockerConfig, credentials_from_secret
from shared.jobs import ENDED_PHASES, FINALIZER, State

_log = structlog.get_logger(__name__)

_FINAL: Final = {state.value for state in State if state.finished}
_REFUSED_SECONDS: Final = 60.0
"""Until what the API refused is tried again: roles are mended while we run."""


class Reconciler:
    def __init__(
        self,
        *,
        store: TaskQueue,
        live: LiveJobs,
        jobs: Jobs,
        nodes: Nodes,
        secrets: Secrets,
        sessions: Sessions,
        scheduler: Scheduler,
        clock: Clock,
    ) -> None:
        self._store = store
        self._live = live
        self._jobs = jobs
        self._nodes = nodes
        self._secrets = secrets
        self._sessions = sessions
        self._scheduler = scheduler
        self._clock = clock

    async def reconcile(self, name: str) -> Result:
        found = self._jobs.get(name)
        # Finalizers of others may hold a deleted job for long; for us it is no more.
        wanted = found if found is not None and not found.deleting else None
        try:
            await self._reconcile(name, wanted)
            if found is not None and found.deleting and found.held:
                return await self._release(found)
            return DONE
        except StoreUnavailable as error:
            return Retry(str(error))
        except KubeError as error:
            # What the user has to mend was dealt with where it came up.
            return Retry(str(error))

    async def _reconcile(self, name: str, wanted: JobObject | None) -> None:
        if wanted is not None and self._is_settled(wanted):
            return
        stored = await self._store.job_named(name)
        if stored is not None and (wanted is None or wanted.uid != stored.uid):
            await self._store.remove(stored.uid)
            _log.info("job is no more", job=name, uid=stored.uid)
            stored = None
        if wanted is not None and stored is None and not _has_ended(wanted):
            await self._admit(wanted)
        elif wanted is not None and stored is not None:
            await self._follow(wanted, stored)

    async def _release(self, found: JobObject) -> Result:
        try:
            await self._jobs.release(name=found.name, uid=found.uid)
        except (Forbidden, Rejected) as error:
            _log.error("a deleted job stays: its finalizer cannot be removed", job=found.name, reason=str(error))
            return Again(_REFUSED_SECONDS)
        _log.info("a deleted job was let go", job=found.name, uid=found.uid, finalizer=FINALIZER)
        return DONE

    def _is_settled(self, wanted: JobObject) -> bool:
        """Without a query: most events are the echo of our own writes of the status."""
        live = self._live.get(wanted.uid)
        return live is not None and live.ready and live.job.generation == wanted.generation

    # --- A new job --------------------------------------------------------------------------------------------------

    async def _admit(self, wanted: JobObject) -> None:
        try:
            spec = parse_spec(wanted.spec)
            credentials, version = await self._credentials(spec)
            targets = select(spec, nodes=self._nodes, connected=lambda node: self._sessions.get(node) is not None)
        except InvalidSpec as error:
            _log.info("job refused", job=wanted.name, uid=wanted.uid, reason=str(error))
            await self._store.admit(self._new_job(wanted, spec="", refusal=str(error)))
            return
        job = await self._store.admit(
            self._new_job(
                wanted,
                spec=spec.to_json(),
                concurrency=spec.concurrency,
                failure_tolerate=spec.failure_tolerate,
                timeout_seconds=spec.timeout_seconds,
                tasks=[NewTask(target.node, target.refusal) for target in targets],
            )
        )
        _log.info("job admitted", job=job.name, uid=job.uid, nodes=len(targets), images=len(spec.images))
        live = LiveJob(job=job, spec=spec)
        live.set_credentials(credentials, version)
        self._live.add(live)
        self._scheduler.ready(job.uid)

    def _new_job(self, wanted: JobObject, **values: Any) -> NewJob:
        return NewJob(uid=wanted.uid, name=wanted.name, generation=wanted.generation, at=self._clock.time(), **values)

    async def _credentials(self, spec: JobSpec) -> tuple[Credentials, SecretVersion | None]:
        """Raises `InvalidSpec` for what the user has to mend."""
        name = spec.image_secrets
        if name is None:
            return credentials_of(spec, DockerConfig()), None
        try:
            secret = await self._secrets.get(name.namespace, name.name)
            config = credentials_from_secret(secret.type, secret.data)
            return credentials_of(spec, config), SecretVersion(secret.uid, secret.resource_version)
        except InvalidDockerConfig as error:
            raise _wrong_secret(name, str(error)) from None
        except NotFound:
            raise _wrong_secret(name, "there is no such Secret") from None
        except Forbidden as error:
            raise _wrong_secret(name, f"it cannot be read: {error}") from None

    # --- A job that is known ----------------------------------------------------------------------------------------

    async def _follow(self, wanted: JobObject, stored: Job) -> None:
        if stored.generation != wanted.generation:
            await self._edit(wanted, stored)
        live = self._live.get(stored.uid) or await self._adopt(stored)
        if live is None or live.ready:
            return
        # First seen since the start, or stored with an error. The Secret may have gone meanwhile: then what runs may
        # end, and nothing more can begin.
        try:
            live.set_credentials(*await self._credentials(live.spec))
        except InvalidSpec as error:
            _log.warning("job stopped", job=stored.name, uid=stored.uid, reason=str(error))
            await self._store.stop(stored.uid, reason=str(error), at=self._clock.time())
            live.set_credentials({})
        self._scheduler.ready(stored.uid)

    async def _adopt(self, stored: Job) -> LiveJob | None:
        """A job that was admitted although the store said that it could not be."""
        spec = (await self._store.specs([stored.uid])).get(stored.uid)
        if stored.finished or not spec:
            return None
        live = LiveJob(job=stored, spec=JobSpec.from_json(spec))
        self._live.add(live)
        return live

    async def _edit(self, wanted: JobObject, stored: Job) -> None:
        editable = stored.concurrency, stored.failure_tolerate, stored.timeout_seconds
        try:
            edited = parse_spec(wanted.spec)
        except InvalidSpec as error:
            _log.warning("edit ignored", job=wanted.name, reason=str(error))
        else:
            editable = edited.editable
            spec = (await self._store.specs([stored.uid])).get(stored.uid)
            if spec and not JobSpec.from_json(spec).same_work(edited):
                _log.warning("edit of images or nodes ignored: they are those of the first spec", job=wanted.name)
        concurrency, failure_tolerate, timeout_seconds = editable
        await self._store.edit(
            stored.uid,
            generation=wanted.generation,
            concurrency=concurrency,
            failure_tolerate=failure_tolerate,
            timeout_seconds=timeout_seconds,
            at=self._clock.time(),
        )
        if timeout_seconds > stored.timeout_seconds:
            self._scheduler.prolonged(stored.uid)


def _has_ended(job: JobObject) -> bool:
    """By its status, whoever wrote it. A CloudCore of before 1.21 writes the one, one of after the other."""
    return job.status.get("state") in _FINAL or job.status.get("phase") in ENDED_PHASES


def _wrong_secret(name: SecretName, problem: str) -> InvalidSpec:
    return InvalidSpec("imagePrePullTemplate.imageSecrets", f"{name}: {problem}")
