"""The embedded Kubernetes API server: one object to start, to stop, and to take a kubeconfig from.

Opens in order (folder, certificates, token, database, storage, socket) and closes in reverse. Runs on the caller's
event loop, beside the hub: no request holds the loop for long, large answers are sent in pieces. What every request
passes through is here: the token, and the turning of every error into a Status object. Connections that have not shown
the token are few, and live for seconds (`LIMITS`). `cloudhub.standalone` lists how
it differs from a cluster's API server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import structlog
import yaml
from aiohttp import web

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.admission import address_group
from cloudhub.listen.http import HTTPListener
from cloudhub.standalone import discovery, errors, openapiproto
from cloudhub.standalone.auth import Authenticator, load_token
from cloudhub.standalone.certificates import ServerIdentity, open_identity
from cloudhub.standalone.cleanup import Cleanup
from cloudhub.standalone.errors import StatusError
from cloudhub.standalone.history import Event, ObjectKey, StoredObject
from cloudhub.standalone.offload import Offload
from cloudhub.standalone.options import WriteOptions
from cloudhub.standalone.resources import CRD_RESOURCE, NAMESPACES, Catalog, dump
from cloudhub.standalone.rest import MAX_BODY_BYTES, ResourceEndpoints
from cloudhub.standalone.storage import Storage
from cloudhub.standalone.writes import Request, Writer
from cloudhub.store.engine import open_database
from cloudhub.store.objects import ObjectStore
from shared.files import write_atomically

log = structlog.get_logger(__name__)

FIRST_NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system", "kubeedge")
_CLUSTER: Final = "cloudhub-standalone"
_SHUTDOWN_SECONDS: Final = 3.0
LIMITS: Final = AcceptLimits(turn=20.0, running=64, running_per_address=48, waiting=1024, waiting_per_address=896)
"""Until a connection has shown the token once; who has it may have as many connections as it wants, for as long."""


class StandaloneAPI:
    """``extra_names`` are DNS names and addresses that clients reach it by, beside loopback and ``host``."""

    def __init__(
        self,
        *,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        extra_names: Sequence[str] = (),
        limits: AcceptLimits = LIMITS,
    ) -> None:
        self._data_dir = data_dir
        self._host = host
        self._wanted_port = port
        self._extra_names = tuple(extra_names)
        self._limits = limits
        self._closers = contextlib.AsyncExitStack()
        self._port: int | None = None
        self._ca_pem = b""
        self._token = ""
        self._storage: Storage | None = None

    async def start(self) -> None:
        """Raises `cloudhub.store.errors.StoreError` for a database that cannot be used, `OSError` for folder or port,
        `ValueError` for a token or certificate file that is none. Nothing is left running then."""
        if self._port is not None:
            raise RuntimeError("the embedded API server is started already")
        try:
            await self._open()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends watches, waits shortly for other requests, closes the database."""
        self._port = None
        await self._closers.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError("the embedded API server is not running")
        return self._port

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        return f"https://{_url_host(self._host)}:{self.port}"

    @property
    def ca_pem(self) -> str:
        return self._ca_pem.decode()

    @property
    def token(self) -> str:
        return self._token

    def problem(self) -> str | None:
        """For readiness: why objects cannot be written now."""
        return self._storage.problem() if self._storage is not None else None

    def write_kubeconfig(self, path: Path, *, server: str | None = None) -> None:
        """A kubeconfig of mode 0600. ``server``: another URL than `url`, for clients on other machines."""
        write_atomically(path, self._kubeconfig(server or self.url).encode())

    def _kubeconfig(self, server: str) -> str:
        user, context = f"{_CLUSTER}-admin", _CLUSTER
        cluster = {"server": server, "certificate-authority-data": base64.b64encode(self._ca_pem).decode()}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": _CLUSTER, "cluster": cluster}],
                "users": [{"name": user, "user": {"token": self._token}}],
                "contexts": [{"name": context, "context": {"cluster": _CLUSTER, "user": user, "namespace": "default"}}],
                "current-context": context,
            },
            sort_keys=False,
        )

    async def _open(self) -> None:
        names = [self._host, *self._extra_names] if not _is_wildcard(self._host) else list(self._extra_names)
        identity, self._token = await asyncio.to_thread(_open_files, self._data_dir, names)
        self._ca_pem = identity.ca_pem
        store = ObjectStore(await open_database(self._data_dir / "objects.db", "objects"))
        self._closers.push_async_callback(store.close)
        catalog = Catalog()
        storage = self._storage = Storage(rows=store)
        cleanup = Cleanup(storage=storage)
        storage.on_commit(_followers(catalog, cleanup))
        await storage.start()
        self._closers.push_async_callback(storage.stop)
        for stored in storage.collection(CRD_RESOURCE).objects.values():
            _install(catalog, stored)
        offload = Offload()
        self._closers.callback(offload.close)
        await _ensure_namespaces(storage, Writer(storage=storage, catalog=catalog, offload=offload), catalog)
        task = asyncio.create_task(cleanup.run(), name="standalone-cleanup")
        self._closers.push_async_callback(_end_task, task)
        await self._listen(
            Endpoints(storage=storage, catalog=catalog, offload=offload, token=self._token), identity.context
        )

    async def _listen(self, endpoints: Endpoints, context: ssl.SSLContext) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", endpoints.serve)
        listener = HTTPListener(
            app,
            host=self._host,
            port=self._wanted_port,
            ssl_context=context,
            limits=self._limits,
            refused=_connection_refused,
            # A watch ends when its client goes: its handler is cancelled.
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        endpoints.keep = listener.keep
        await listener.start()
        self._closers.push_async_callback(listener.stop)
        self._closers.callback(endpoints.close)
        endpoints.address = f"{self._host}:{listener.port}"
        self._port = listener.port
        log.info("serving the Kubernetes API", host=self._host, port=self._port)


def _connection_refused(reason: str, address: str, detail: str) -> None:
    log.debug("API connection ended", reason=reason, address=address, detail=detail)


class Endpoints:
    """From a request to its answer: the token first, then discovery, documents or resources; errors become Status."""

    def __init__(self, *, storage: Storage, catalog: Catalog, offload: Offload, token: str) -> None:
        self._storage = storage
        self._catalog = catalog
        self._authenticator = Authenticator(token=token)
        self._resources = ResourceEndpoints(storage=storage, catalog=catalog, offload=offload)
        self.address = ""
        self.keep: Callable[[web.Request], None] = lambda _: None
        """Told of requests with the token: their connections may stay."""

    def close(self) -> None:
        self._resources.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            if not self._authenticator.admits(request.path, request.headers.get("Authorization", "")):
                return self._turn_away(request)
            if "Authorization" in request.headers:
                self.keep(request)
            return await self._route(request)
        except StatusError as error:
            return _status_response(error)
        except web.HTTPRequestEntityTooLarge:
            return _status_response(errors.request_too_large(MAX_BODY_BYTES))
        except (ConnectionError, asyncio.CancelledError, web.HTTPException):
            raise
        except Exception:
            log.exception("request_failed", method=request.method, path=request.path)
            return _status_response(errors.internal("the server failed on this request; its log says more"))

    def _turn_away(self, request: web.Request) -> web.Response:
        """401, and the end of the connection: guessing on costs whoever does it a TLS handshake each time."""
        address, known = address_group(request.remote or ""), "Authorization" in request.headers
        log.warning("request without the token", address=address, method=request.method[:16], other_token=known)
        response = _status_response(errors.unauthorized())
        response.force_close()
        return response

    async def _route(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")[1:]
        if parts[-1] == "":
            parts.pop()
        match parts:
            case ["api", _, _, *_] | ["apis", _, _, _, *_]:
                return await self._resources.handle(request, parts)
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        return self._document(request, parts)

    def _document(self, request: web.Request, parts: list[str]) -> web.Response:
        catalog = self._catalog
        match parts:
            case []:
                return _json(discovery.root_paths(catalog))
            case ["api"] | ["apis"]:
                return self._groups(request, core=parts == ["api"])
            case ["api", version]:
                return _json_or_404(discovery.resource_list(catalog, "", version))
            case ["apis", group]:
                return _json_or_404(discovery.api_group(catalog, group))
            case ["apis", group, version]:
                return _json_or_404(discovery.resource_list(catalog, group, version))
            case ["version"]:
                return _json(discovery.version_document())
            case ["healthz" | "livez" | "readyz", *_]:
                return web.Response(text="ok")
            case ["openapi", "v2"]:
                return self._openapi_v2(request)
            case ["openapi", "v3"]:
                return _tagged(request, catalog.openapi.v3_index(), None)
            case ["openapi", "v3", *group_version]:
                found = catalog.openapi.v3("/".join(group_version))
                if found is not None:
                    return _tagged(request, *found)
        raise errors.no_such_path()

    def _openapi_v2(self, request: web.Request) -> web.Response:
        """As protobuf for who asks for that: Kubernetes' clients read nothing else."""
        documents = self._catalog.openapi
        if openapiproto.wanted(request.headers.get("Accept", "")):
            return _tagged(request, *documents.v2_protobuf(), openapiproto.MEDIA_TYPE)
        return _tagged(request, *documents.v2())

    def _groups(self, request: web.Request, *, core: bool) -> web.Response:
        version = discovery.wants_aggregated(request.headers.get("Accept", ""))
        if version is not None:
            body = discovery.aggregated(self._catalog, core=core, version=version)
            return _tagged(request, body, discovery.etag(body), discovery.aggregated_type(version))
        if core:
            return _json(discovery.api_versions(self.address))
        return _json(discovery.group_list(self._catalog))


def _open_files(directory: Path, names: Sequence[str]) -> tuple[ServerIdentity, str]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open_identity(directory, names), load_token(directory / "token")


def _install(catalog: Catalog, stored: StoredObject) -> None:
    try:
        catalog.install(stored)
    except Exception:
        # Accepted by an earlier version of this program, perhaps: the others are served, and it can be mended.
        log.exception("definition_not_served", name=stored.key.name)


def _followers(catalog: Catalog, cleanup: Cleanup) -> Callable[[Event], None]:
    def follow(event: Event) -> None:
        if event.object.key.resource == CRD_RESOURCE:
            catalog.follow(event)
        cleanup.follow(event)

    return follow


async def _ensure_namespaces(storage: Storage, writer: Writer, catalog: Catalog) -> None:
    resource = catalog.get("", "v1", "namespaces")
    for name in FIRST_NAMESPACES:
        if storage.get(ObjectKey(NAMESPACES, "", name)) is None:
            request = Request(resource, "", "", WriteOptions(manager=_CLUSTER))
            await writer.create(request, {"metadata": {"name": name}})


async def _end_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _status_response(error: StatusError) -> web.Response:
    # In ASCII: a message may quote text that cannot be encoded.
    return web.Response(
        body=json.dumps(error.status).encode(),
        status=error.code,
        headers=error.headers,
        content_type="application/json",
    )


def _json(document: object) -> web.Response:
    return web.Response(body=dump(document), content_type="application/json")


def _json_or_404(document: object | None) -> web.Response:
    if document is None:
        raise errors.no_such_path()
    return _json(document)


def _tagged(request: web.Request, body: bytes, tag: str | None, content_type: str = "application/json") -> web.Response:
    """With an ETag a client that has the document already gets 304."""
    headers = {"Content-Type": content_type, "Vary": "Accept", "Cache-Control": "public"}
    if tag is not None:
        tag = tag if tag.startswith('"') else f'"{tag}"'
        headers["ETag"] = tag
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _url_host(host: str) -> str:
    """All addresses is no address to connect to; an IPv6 address stands in brackets."""
    if _is_wildcard(host):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
