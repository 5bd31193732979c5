"""A thin HTTP client for the embedded API: paths and JSON, nothing hidden."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

import cloudhub.kube
from cloudhub.standalone.server import StandaloneAPI

JOBS = "/apis/operations.kubeedge.io/v1alpha1/imageprepulljobs"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SECRETS = "/api/v1/namespaces/default/secrets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@dataclass(slots=True)
class Answer:
    code: int
    body: Any
    headers: Mapping[str, str] = field(repr=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        return str(self.body["message"])

    @property
    def reason(self) -> str:
        return str(self.body["reason"])

    @property
    def revision(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


class Rest:
    def __init__(self, api: StandaloneAPI, session: aiohttp.ClientSession) -> None:
        self.api = api
        self.session = session

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        token: str | None = None,
        **query: str | int,
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.api.token if token is None else token}", **(headers or {})}
        if token == "":
            del sent["Authorization"]
        data = None
        if body is not None:
            sent["Content-Type"] = content_type
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(method, self.api.url + path, data=data, headers=sent, params=query) as response:
            raw = await response.read()
            is_json = response.headers.get("Content-Type", "").startswith("application/json")
            warnings = response.headers.getall("Warning", [])
            return Answer(response.status, json.loads(raw) if is_json and raw else raw, response.headers, warnings)

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.call("POST", path, body, **more)

    async def put(self, path: str, body: Any, **more: Any) -> Answer:
        return await self.call("PUT", path, body, **more)

    async def delete(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.call("DELETE", path, body, **more)

    async def merge(self, path: str, patch: Any, **more: Any) -> Answer:
        return await self.call("PATCH", path, patch, content_type="application/merge-patch+json", **more)

    @asynccontextmanager
    async def watch(self, path: str, **query: str | int) -> AsyncIterator[WatchStream]:
        accept = str(query.pop("accept", "application/json"))
        headers = {"Authorization": f"Bearer {self.api.token}", "Accept": accept}
        query["watch"] = "true"
        async with self.session.get(self.api.url + path, headers=headers, params=query) as response:
            yield WatchStream(response)


class WatchStream:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(60):
            line = await self.response.content.readline()
        assert line, "the watch ended"
        event = json.loads(line)
        return event["type"], event["object"]

    async def next_name(self) -> tuple[str, str]:
        kind, obj = await self.next()
        return kind, obj["metadata"]["name"]

    def stop_reading(self) -> Any:
        """The transport, paused. Sockets' buffers hold some; from then on the server's writes wait."""
        transport: Any = self.response.connection and self.response.connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        transport.pause_reading()
        return transport

    async def ended(self) -> bool:
        async with asyncio.timeout(60):
            return await self.response.content.readline() == b""


@asynccontextmanager
async def connected(api: StandaloneAPI) -> AsyncIterator[Rest]:
    context = ssl.create_default_context(cadata=api.ca_pem)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=4 * 1024 * 1024) as session:
        yield Rest(api, session)


def job_crd() -> dict[str, Any]:
    text = (Path(cloudhub.kube.__file__).parent / "crds" / "imageprepulljobs.yaml").read_text(encoding="utf-8")
    crd: dict[str, Any] = yaml.safe_load(text)
    return crd


def job(name: str = "job", **template: Any) -> dict[str, Any]:
    return {
        "apiVersion": "operations.kubeedge.io/v1alpha1",
        "kind": "ImagePrePullJob",
        "metadata": {"name": name},
        "spec": {"imagePrePullTemplate": {"images": ["nginx"], "nodeNames": ["edge"], **template}},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """For what a background task of the server does. Sixty seconds at most."""
    for _ in range(6000):
        if await check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass within sixty seconds")
