"""The agent's composition root: opens lock, certificate, runtime and journal, runs link and tasks, closes in reverse.

Guarantee: each root task has a name; when one dies, the agent stops with its error. When told to stop, it ends within
`STOP_WITHIN` seconds and says what still ran; a result that is being committed is committed first. A task that was cut
short by the stop is the hub's to ask again, and images that came meanwhile are not fetched again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from edgehub.config import EdgeCoreConfig, LoadedConfig
from edgehub.identity import ensure_identity, identity_files
from edgehub.link.connection import Link, LinkSettings
from edgehub.link.identity import Certificate
from edgehub.link.join import renew
from edgehub.link.rotation import Rotation
from edgehub.runtime import open_runtime
from edgehub.runtime.base import ImageRuntime, ImageRuntimeError, RuntimeVersion
from edgehub.status import STATUS_FILE, FolderLock, StatusWriter
from edgehub.tasks.journal import Journal
from edgehub.tasks.live import LiveTask
from edgehub.tasks.outbox import Outbox
from edgehub.tasks.prechecks import Limits, PreChecks, ThisMachine
from edgehub.tasks.pulls import Puller
from edgehub.tasks.runner import Runner
from edgehub.tasks.secrets import Credentials
from edgehub.tasks.service import FinishedTask, TaskService
from edgehub.version import VERSION
from shared import wire
from shared.files import remove_leftovers
from shared.wire import NodeInfo

log = structlog.get_logger(__name__)

STOP_WITHIN: Final = 6.0
CLOSE_WITHIN: Final = 1.0
RUNTIME_LOOK: Final = 60.0
RUNTIME_LOOK_AGAIN: Final = 5.0
RUNTIME_ANSWERS: Final = 3.0
JOURNAL_FILE: Final = "journal.db"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def configured_runtime(config: EdgeCoreConfig) -> ImageRuntime:
    edged = config.modules.edged
    return open_runtime(
        edged.tailoredKubeletConfig.containerRuntimeEndpoint,
        image_store=config.image_store,
        insecure_registries=edged.insecureRegistries,
        query_timeout=edged.tailoredKubeletConfig.runtimeRequestTimeout,
    )


async def run_agent(
    loaded: LoadedConfig,
    *,
    stop: asyncio.Event,
    runtime: Callable[[EdgeCoreConfig], ImageRuntime] = configured_runtime,
    stop_within: float = STOP_WITHIN,
) -> None:
    """Runs until ``stop`` is set. Raises what ended it before."""
    config = loaded.config
    if loaded.ignored:
        log.info("keys of edgecore.yaml that mean nothing to this agent", keys=list(loaded.ignored))
    lock = FolderLock(config.data_dir)
    await lock.acquire()
    files = identity_files(config)
    remove_leftovers(loaded.path, config.data_dir / STATUS_FILE, files.ca, files.certificate, files.key)
    try:
        if not await _or_stop(ensure_identity(loaded), stop, stop_within):
            return
        async with _opened(config, runtime(config)) as agent:
            await _or_stop(agent.run(), stop, stop_within)
    finally:
        lock.release()


async def _or_stop(work: Coroutine[Any, Any, None], stop: asyncio.Event, stop_within: float) -> bool:
    """Whether ``work`` came to its end before ``stop`` was set. Raises what it raises."""
    task = asyncio.create_task(work, name="agent")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not task.done():
            log.info("stopping")
            task.cancel()
            await asyncio.wait({task}, timeout=stop_within)
            if not task.done():
                left = sorted(other.get_name() for other in asyncio.all_tasks() if not other.done())
                log.error("still running", tasks=left, after=stop_within)
    if task.done() and not task.cancelled():
        task.result()
        return not stop.is_set()
    return False


@contextlib.asynccontextmanager
async def _opened(config: EdgeCoreConfig, runtime: ImageRuntime) -> AsyncIterator[Agent]:
    journal = Journal(config.data_dir / JOURNAL_FILE)
    try:
        yield Agent(config=config, runtime=runtime, journal=journal)
    finally:
        for name, close in (("runtime", runtime.close), ("journal", journal.close)):
            try:
                async with asyncio.timeout(CLOSE_WITHIN):
                    await close()
            except TimeoutError:
                log.error("does not close", part=name, after=CLOSE_WITHIN)
            except Exception:
                log.exception("not closed", part=name)  # and the next part all the same


class Agent:
    def __init__(self, *, config: EdgeCoreConfig, runtime: ImageRuntime, journal: Journal) -> None:
        self._config = config
        self._runtime = runtime
        self._files = identity_files(config)
        self._started = time.time()
        self._certificate: Certificate | None = None
        self._runtime_version: RuntimeVersion | None = None
        self._runtime_error = ""
        self._status = StatusWriter(folder=config.data_dir, snapshot=self.snapshot)
        self._outbox = Outbox(journal=journal, first_report_delay=config.modules.taskManager.firstReportDelay)
        self._service = self._new_service(journal)
        self._link = self._new_link()
        self._renewed = asyncio.Event()
        self._rotation = Rotation(
            load=self._load_certificate,
            renew=lambda: renew(server=config.modules.edgeHub.httpServer, node=config.node, files=self._files),
            renewed=lambda _: self._renewed.set(),
            sleep=asyncio.sleep,
        )

    def _new_service(self, journal: Journal) -> TaskService:
        settings = self._config.modules.taskManager
        prechecks = PreChecks(
            limits=Limits(**settings.limits.model_dump()),
            filesystem=self._runtime.filesystem,
            machine=ThisMachine(),
            cpu_sample=settings.cpuSampleSeconds,
        )
        credentials = Credentials(query_timeout=self._config.modules.metaManager.remoteQueryTimeout)
        puller = Puller(runtime=self._runtime, credentials=credentials, parallel=settings.parallelPulls)
        return TaskService(
            node=self._config.node,
            journal=journal,
            outbox=self._outbox,
            runner=Runner(prechecks=prechecks, puller=puller, put=self._outbox.put, parallel=settings.parallelTasks),
            credentials=credentials,
            max_tasks=settings.parallelTasks + settings.queueLength,
            task_timeout=settings.taskTimeout,
            enabled=settings.enable,
            progress_interval=settings.progressInterval,
            changed=self._status.changed,
        )

    def _new_link(self) -> Link:
        hub = self._config.modules.edgeHub
        host, port = self._config.websocket_address
        return Link(
            settings=LinkSettings(
                host=host,
                port=port,
                node=self._config.node,
                project_id=hub.projectID,
                heartbeat=hub.heartbeat,
                handshake_timeout=hub.websocket.handshakeTimeout,
                read_deadline=hub.websocket.readDeadline,
                write_deadline=hub.websocket.writeDeadline,
                first_delay=hub.reconnect.firstDelay,
                max_delay=hub.reconnect.maxDelay,
                message_qps=hub.messageQPS,
                message_burst=hub.messageBurst,
            ),
            context=self._files.client_context,
            node_info=self.node_info,
            listener=self._service,
            changed=self._status.changed,
        )

    async def run(self) -> None:
        self._certificate = self._files.load(self._config.node)
        await self._look_at_runtime()  # so that the handshake can name the runtime
        log.info("agent", node=self._config.node, runtime=str(self._runtime_version or self._runtime_error))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._service.run(), name="tasks")
            group.create_task(self._outbox.run(), name="outbox")
            group.create_task(self._status.run(), name="status")
            group.create_task(self._watch_runtime(), name="runtime watch")
            group.create_task(self._link.run(), name="link")
            hub = self._config.modules.edgeHub
            if hub.rotateCertificates and hub.httpServer:
                group.create_task(self._rotation.run(), name="certificate rotation")
                group.create_task(self._reconnect_when_renewed(), name="reconnect after rotation")

    def _load_certificate(self) -> Certificate:
        self._certificate = self._files.load(self._config.node)
        self._status.changed()
        return self._certificate

    async def _reconnect_when_renewed(self) -> None:
        while True:
            await self._renewed.wait()
            self._renewed.clear()
            await self._link.reconnect("the certificate is a new one")

    async def _watch_runtime(self) -> None:
        while True:
            await asyncio.sleep(RUNTIME_LOOK if self._runtime_version is not None else RUNTIME_LOOK_AGAIN)
            await self._look_at_runtime()

    async def _look_at_runtime(self) -> None:
        before = self._runtime_version
        try:
            async with asyncio.timeout(RUNTIME_ANSWERS):
                self._runtime_version, self._runtime_error = await self._runtime.version(), ""
        except ImageRuntimeError as error:
            self._runtime_version, self._runtime_error = None, str(error)
        except TimeoutError:
            self._runtime_version, self._runtime_error = None, f"the runtime does not answer in {RUNTIME_ANSWERS:g} s"
        if self._runtime_version != before:
            log.info("runtime", version=str(self._runtime_version or ""), error=self._runtime_error or None)
            self._status.changed()

    def node_info(self) -> NodeInfo:
        machine = platform.machine()
        return NodeInfo(
            architecture=_ARCHITECTURES.get(machine, machine),
            operatingSystem=platform.system().lower(),
            osImage=_os_image(),
            kernelVersion=platform.release()[:200],
            containerRuntimeVersion=self._runtime_version.node_info[:200] if self._runtime_version else "",
            kubeletVersion=f"edgehub-v{VERSION}",
        )

    def snapshot(self) -> dict[str, Any]:
        """The status document; its keys are for programs, and documented in docs."""
        link, runtime, certificate = self._link.state, self._runtime_version, self._certificate
        host, port = self._config.websocket_address
        return {
            "node": self._config.node,
            "version": VERSION,
            "pid": os.getpid(),
            "startedAt": _time(self._started),
            "updatedAt": _time(time.time()),
            "connection": {
                "connected": link.connected,
                "server": f"{host}:{port}",
                "since": _time(link.since),
                "features": sorted(link.features),
                "failures": link.failures,
                "lastError": link.last_error or None,
            },
            "certificate": {
                "notAfter": wire.rfc3339(certificate.not_after) if certificate else None,
                "renewAt": wire.rfc3339(self._rotation.renew_at) if self._rotation.renew_at else None,
            },
            "runtime": {
                "endpoint": self._config.modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint or "builtin",
                "name": runtime.name if runtime else None,
                "version": runtime.version if runtime else None,
                "error": self._runtime_error or None,
            },
            "unacknowledgedReports": self._outbox.waiting,
            "tasks": [_live(live) for live in self._service.live],
            "finished": [_finished(task) for task in self._service.finished],
        }


def _live(live: LiveTask) -> dict[str, Any]:
    return {
        "job": live.task.job,
        "jobUID": live.task.job_uid or None,
        "attempt": live.task.attempt or None,
        "state": str(live.phase),
        "since": _time(live.since),
        "deadline": _time(time.time() + live.seconds_left()),
        "images": [
            {
                "image": image.image,
                "state": str(image.state),
                "tries": image.tries,
                "bytesDone": image.done_bytes,
                "bytesTotal": image.total_bytes,
                "reason": image.reason or None,
            }
            for image in live.images.values()
        ],
    }


def _finished(task: FinishedTask) -> dict[str, Any]:
    report = task.report
    state = "Cancelled" if report is None else "Successful" if report.succ else "Failed"
    return {
        "job": task.task.job,
        "jobUID": task.task.job_uid or None,
        "attempt": task.task.attempt or None,
        "state": state,
        "reason": (report.reason or None) if report else None,
        "time": wire.rfc3339(task.at),
        "images": [
            {"image": image.image, "state": "Successful" if image.ok else "Failed", "reason": image.reason or None}
            for image in (report.images() if report else [])
        ],
    }


def _time(seconds: float) -> str:
    return wire.rfc3339(datetime.fromtimestamp(seconds, UTC))


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")[:200]
    except OSError:
        return ""
