"""The composition root: what a hub is made of, opened in order and closed in reverse.

`run_hub` works against a Kubernetes API server, `run_standalone` brings one along, in this process; what lies between
is the same. A root task that dies ends the process with its error (`cloudhub.process`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import structlog

from cloudhub.collector import Settling, settle
from cloudhub.config import CloudCoreConfig, LoadedConfig, parse_config
from cloudhub.edgecontroller.controller import EdgeController
from cloudhub.health import Health, HealthServer
from cloudhub.jointoken import PKI_FOLDER
from cloudhub.kube import (
    EdgeNodes,
    JobAPI,
    JobInformer,
    KubeClient,
    LeaseKeeper,
    NodeInformer,
    NodeRegistrar,
    SecretReader,
    ensure_crd,
    find_job_api,
    follow_job_api,
)
from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.descriptors import bounded, bounded_api, raise_limit, warn_if_few
from cloudhub.loopwatch import watch_loop
from cloudhub.metrics import Metrics
from cloudhub.pki.join import JoinLimits, JoinServer
from cloudhub.pki.setup import PKI, PKISources, open_pki
from cloudhub.process import Roots, process, started
from cloudhub.revocations import Revocations
from cloudhub.sessions.queries import Queries
from cloudhub.sessions.server import SessionServer
from cloudhub.settings import ConfigError
from cloudhub.standalone.server import LIMITS as API_LIMITS
from cloudhub.standalone.server import StandaloneAPI
from cloudhub.store.engine import open_database
from cloudhub.store.queue import TaskQueue
from cloudhub.store.revocations import FILE, RevocationStore
from cloudhub.taskmanager.manager import TaskManager, TaskManagerSettings
from cloudhub.taskmanager.ports import SessionInfo, SessionListener, SessionWatcher, Unavailable
from shared.wire import Message

log = structlog.get_logger(__name__)
T = TypeVar("T")

KUBECONFIG: Final = "kubeconfig"
ENDPOINTS: Final = "endpoints.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneOptions:
    data_dir: Path
    address: str = "127.0.0.1"
    advertise: tuple[str, ...] = ()
    api_port: int = 6443
    websocket_port: int = 10000
    https_port: int = 10002
    metrics_address: str = "127.0.0.1:9091"
    node_limit: int = 1000


# --- The two ways to run --------------------------------------------------------------------------------------


async def run_hub(loaded: LoadedConfig, *, kubeconfig: Path | None = None) -> None:
    """Until it is told to stop. Raises what keeps it from starting."""
    config = loaded.config
    if loaded.ignored:
        log.info("keys of the configuration that mean nothing here", keys=list(loaded.ignored))
    hub = config.modules.cloudHub
    if not hub.enable:
        raise ConfigError(key="modules.cloudHub.enable", problem="is false, and this program is nothing else")
    async with process() as told, _Hub(config) as parts:
        await parts.connect(kubeconfig=str(kubeconfig or config.kubeAPIConfig.kubeConfig))
        sources = PKISources(
            ca_file=Path(hub.tlsCAFile),
            ca_key_file=Path(hub.tlsCAKeyFile),
            server_file=Path(hub.tlsCertFile),
            server_key_file=Path(hub.tlsPrivateKeyFile),
            store=parts.secrets,
        )
        await parts.open(sources, register="unschedulable" if hub.registerNodes else "no")
        await told.wait()


async def run_standalone(options: StandaloneOptions) -> None:
    """As `run_hub`, with the API server in this process."""
    folder = options.data_dir
    await asyncio.to_thread(_private_folder, folder)
    (folder / ENDPOINTS).unlink(missing_ok=True)
    addresses, names = _names(options)
    async with process() as told:
        api = StandaloneAPI(
            data_dir=folder,
            host=options.address,
            port=options.api_port,
            extra_names=[*addresses, *names],
            limits=bounded_api(API_LIMITS, descriptors=raise_limit()),
        )
        async with started(api):
            api.write_kubeconfig(folder / KUBECONFIG)
            async with _Hub(_standalone_config(options, addresses, names)) as parts:
                parts.health.add("objects", api.problem)
                await parts.connect(kubeconfig=str(folder / KUBECONFIG))
                await parts.open(PKISources(folder=folder / PKI_FOLDER), register="schedulable")
                _announce(options, api.url, parts)
                await told.wait()


# --- What a hub is made of ------------------------------------------------------------------------------------


class _Hub:
    """The parts, each opened by `_open` steps in the order in which they need one another. As a context manager it
    closes them in reverse."""

    def __init__(self, config: CloudCoreConfig) -> None:
        self._config = config
        self.metrics = Metrics()
        self.health = Health()
        self._starting: str | None = "starting"
        self._stack = contextlib.AsyncExitStack()
        self._roots = Roots()
        self.client: KubeClient
        self.secrets: SecretReader
        self.revocations: Revocations
        self.pki: PKI
        self.sessions: SessionServer
        self.join: JoinServer
        self._nodes: NodeInformer | None = None
        self.monitor: HealthServer

    async def __aenter__(self) -> _Hub:
        host, port = self._config.commonConfig.monitorServer.address
        self.health.add("start", lambda: self._starting)
        self.monitor = HealthServer(health=self.health, metrics=self.metrics, host=host, port=port)
        try:
            # First of all, so that one can ask why the rest does not come up; and last to go.
            await self._stack.enter_async_context(started(self.monitor))
            await self._stack.enter_async_context(self._roots)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        self.health.stopping()
        return await self._stack.__aexit__(*error)  # type: ignore[arg-type]

    async def connect(self, *, kubeconfig: str) -> None:
        """A client to the API server; nothing is asked of it yet."""
        settings = self._config.kubeAPIConfig
        self.client = await KubeClient.connect(
            kubeconfig=kubeconfig,
            master=settings.master,
            qps=self._config.api_qps,
            burst=self._config.api_burst,
            metrics=self.metrics,
        )
        self._stack.push_async_callback(self.client.close)
        self.health.add("api", lambda: self.client.check(after=settings.unavailableAfter))
        self.secrets = SecretReader(client=self.client)

    async def open(self, sources: PKISources, *, register: str) -> None:
        """``register``: whether nodes without a Node object get one: ``no``, ``schedulable``, ``unschedulable``."""
        config = self._config
        hub = config.modules.cloudHub
        tasks = config.modules.taskManager
        # The store before all that answers nodes: a hub that cannot keep what they say must not hear them.
        folder = Path(tasks.dataDir)
        self.revocations = await self._open_revocations(folder)
        queue = await self._open_queue(folder) if tasks.enable else None
        self.pki = await self._open_pki(sources)
        self._root("pki", self.pki.run())
        descriptors = raise_limit()
        warn_if_few(descriptors=descriptors, sessions=hub.nodeLimit)
        fits = partial(bounded, descriptors=descriptors, sessions=hub.nodeLimit, servers=2)
        self.sessions = SessionServer(
            host=hub.websocket.address,
            port=hub.websocket.port,
            ssl_context=self.pki.server_context_mtls(),
            metrics=self.metrics,
            keepalive_interval=hub.keepaliveInterval,
            node_limit=hub.nodeLimit,
            write_timeout=hub.writeTimeout,
            accept_limits=fits(AcceptLimits()),
            revoked=self.revocations,
        )
        self._root("revocations", self.revocations.run(self.sessions.disconnect))
        watchers: list[SessionWatcher] = [Settling()]
        listeners: list[SessionListener] = []
        manager: TaskManager | None = None
        if queue is not None or register != "no":
            nodes = self._nodes = NodeInformer(client=self.client)
            self.health.add("nodes", lambda: nodes.check(after=config.kubeAPIConfig.unavailableAfter))
            self._root("nodes", nodes.run())
            if register != "no":
                registrar = NodeRegistrar(client=self.client, nodes=nodes, unschedulable=register == "unschedulable")
                watchers.append(registrar)
                self._root("registrar", registrar.run())
                if register == "unschedulable":
                    # A cluster's node controller calls a Node without a Lease Unknown; ours has no such controller.
                    self._root("leases", LeaseKeeper(client=self.client, names=registrar.managed).run())
            if queue is not None:
                await self._when_the_api_serves(lambda: ensure_crd(self.client))
                api = await self._when_the_api_serves(lambda: find_job_api(self.client))
                if api is None:
                    log.warning("the API serves no jobs yet; is the CRD installed?")
                else:
                    log.info("jobs are read and written", version=api.version, besides=list(api.others))
                manager = self._open_task_manager(queue, nodes, api)
                listeners.append(manager)
        if queue is None:
            log.info("modules.taskManager.enable is false: sessions are served, ImagePrePullJobs are left alone")
        queries = Queries(sessions=self.sessions, find=manager.secret_for if manager is not None else None)
        listeners.append(self._open_edge_controller(queries) if config.modules.edgeController.enable else queries)
        self.sessions.listener = _FanOut(watchers, listeners)
        if hub.websocket.enable:
            await self._stack.enter_async_context(started(self.sessions))
        if hub.https.enable:
            self.join = JoinServer(
                ca=self.pki.ca,
                tokens=self.pki.tokens,
                ssl_context=self.pki.server_context_join(),
                host=hub.https.address,
                port=hub.https.port,
                certificate_life=timedelta(days=hub.edgeCertSigningDuration),
                node_exists=self._node_exists,
                limits=JoinLimits(accept=fits(JoinLimits().accept)),
                metrics=self.metrics,
                revoked=self.revocations,
            )
            await self._stack.enter_async_context(started(self.join))
        self._starting = None
        settle(2)
        self._root("loop-watch", watch_loop(self.metrics))
        log.info("ready")

    async def _open_revocations(self, folder: Path) -> Revocations:
        # A `cloudhub revoke` may be at it just now.
        store = RevocationStore(await open_database(folder / FILE, "revocations", patience=5.0))
        self._stack.push_async_callback(store.close)
        revocations = Revocations(store=store, metrics=self.metrics)
        await revocations.load()
        self.health.add("revocations", revocations.problem)
        return revocations

    async def _open_queue(self, folder: Path) -> TaskQueue:
        engine = await open_database(folder / "queue.db", "queue")
        queue = TaskQueue(engine=engine, observe_commit=self.metrics.commit_seconds.observe)
        self._stack.push_async_callback(queue.close)
        self.health.add("store", queue.problem)
        return queue

    def _open_task_manager(self, queue: TaskQueue, nodes: NodeInformer, api: JobAPI | None) -> TaskManager:
        settings = self._config.modules.taskManager
        jobs = JobInformer(client=self.client, api=api)
        self.health.add("jobs", lambda: jobs.check(after=self._config.kubeAPIConfig.unavailableAfter))
        manager = TaskManager(
            store=queue,
            jobs=jobs,
            nodes=nodes,
            secrets=self.secrets,
            sessions=self.sessions,
            settings=TaskManagerSettings(
                status_entries=settings.statusEntries,
                publish_interval=settings.publishInterval,
                progress_interval=settings.progressInterval,
                dialect_timeout=settings.dialectTimeout,
            ),
            metrics=self.metrics,
        )
        self._root("jobs", jobs.run())
        self._root("job-api", follow_job_api(self.client, jobs.speak))
        self._root("taskmanager", manager.run())
        return manager

    def _open_edge_controller(self, rest: SessionListener) -> SessionListener:
        controller = EdgeController(
            sessions=self.sessions,
            api=EdgeNodes(client=self.client),
            rest=rest,
            metrics=self.metrics,
            node_limit=self._config.modules.cloudHub.nodeLimit,
        )
        self._root("edge-controller", controller.run())
        # KubeEdge's own files turn it on, and whoever starts a hub beside a CloudCore with such a file should know.
        log.info("nodes' Nodes and Leases are served here (modules.edgeController.enable); no CloudCore may do it too")
        return controller

    async def _open_pki(self, sources: PKISources) -> PKI:
        hub = self._config.modules.cloudHub
        # Waits for an API server that is away: its Secrets hold the CA, and another CA would lock every node out.
        return await self._when_the_api_serves(
            lambda: open_pki(
                sources=sources,
                addresses=hub.advertiseAddress,
                dns_names=hub.dnsNames,
                token_refresh=timedelta(hours=hub.tokenRefreshDuration),
            )
        )

    async def _when_the_api_serves(self, work: Callable[[], Awaitable[T]]) -> T:
        delay = 1.0
        while True:
            try:
                return await work()
            except Unavailable as error:
                self._starting = f"waiting for the Kubernetes API: {error}"
                log.warning("waiting for the Kubernetes API", reason=str(error), seconds=delay)
            await asyncio.sleep(delay)
            delay = min(30.0, 2 * delay)

    def _node_exists(self, name: str) -> bool:
        return self.sessions.get(name) is not None or (self._nodes is not None and self._nodes.get(name) is not None)

    def _root(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._roots.start(name, work)


class _FanOut:
    """One listener for the sessions, several who want to know. Each takes the messages that are for it."""

    def __init__(self, watchers: Sequence[SessionWatcher], listeners: Sequence[SessionListener]) -> None:
        self._watchers = (*watchers, *listeners)
        self._listeners = tuple(listeners)

    def session_opened(self, session: SessionInfo) -> None:
        for watcher in self._watchers:
            watcher.session_opened(session)

    def session_closed(self, session: SessionInfo) -> None:
        for watcher in self._watchers:
            watcher.session_closed(session)

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        for listener in self._listeners:
            await listener.messages_received(session, messages)


# --- Standalone -----------------------------------------------------------------------------------------------


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _names(options: StandaloneOptions) -> tuple[list[str], list[str]]:
    """Addresses and names by which this hub may be dialled: what it was told, what it listens on, and loopback."""
    addresses, names = ["127.0.0.1", "::1"], ["localhost"]
    for given in (options.address, *options.advertise):
        try:
            address = ipaddress.ip_address(given)
        except ValueError:
            names.append(given)
            continue
        if address.is_unspecified:
            addresses += _addresses_of_this_machine()
        else:
            addresses.append(str(address))
    return list(dict.fromkeys(addresses)), list(dict.fromkeys(names))


def _addresses_of_this_machine() -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    found = (entry for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in families)
    # A link-local IPv6 address carries its interface (fe80::1%eth0), which no certificate can.
    return [entry.address for entry in found if "%" not in entry.address]


def _standalone_config(options: StandaloneOptions, addresses: list[str], names: list[str]) -> CloudCoreConfig:
    document = {
        "apiVersion": "cloudcore.config.kubeedge.io/v1alpha2",
        "kind": "CloudCore",
        "commonConfig": {"monitorServer": {"bindAddress": options.metrics_address}},
        "modules": {
            "cloudHub": {
                "nodeLimit": options.node_limit,
                "advertiseAddress": addresses,
                "dnsNames": names,
                "websocket": {"address": options.address, "port": options.websocket_port},
                "https": {"address": options.address, "port": options.https_port},
            },
            "taskManager": {"enable": True, "dataDir": str(options.data_dir)},
        },
    }
    return parse_config(document).config


def _announce(options: StandaloneOptions, api_url: str, parts: _Hub) -> None:
    """Says, to people and in `ENDPOINTS` to programs, where everything is."""
    dialled = next(iter(options.advertise), None)
    if dialled is None:
        outside = [address for address in _names(options)[0] if not ipaddress.ip_address(address).is_loopback]
        dialled = outside[0] if outside else "127.0.0.1"
    host = f"[{dialled}]" if ":" in dialled else dialled
    join, websocket = f"https://{host}:{parts.join.port}", f"{host}:{parts.sessions.port}"
    kubeconfig = options.data_dir / KUBECONFIG
    endpoints = {
        "api": api_url,
        "join": join,
        "websocket": websocket,
        "metrics": f"{options.metrics_address.rpartition(':')[0]}:{parts.monitor.port}",
        "kubeconfig": str(kubeconfig),
    }
    path = options.data_dir / ENDPOINTS
    path.with_suffix(".tmp").write_text(json.dumps(endpoints, indent=2) + "\n")
    path.with_suffix(".tmp").replace(path)
    away = "" if parts.sessions.port == 10000 else f" --websocket-server {websocket}"
    print(  # noqa: T201 - this is the command's output
        f"cloudhub is ready; the API server is {api_url}\n\n"
        f"  export KUBECONFIG={kubeconfig}\n"
        f"  kubectl get nodes\n\n"
        f"Join a node: make a token here, and use it on the node:\n\n"
        f"  cloudhub token --data-dir {options.data_dir}\n"
        f"  edgehub join --server {join}{away} --node-name NAME --token TOKEN\n",
        flush=True,
    )
