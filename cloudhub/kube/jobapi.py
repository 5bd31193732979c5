"""Which version of the jobs' API to speak, and which keys of a status the installed definition keeps.

The problem: the definition may be ours, KubeEdge's of any release, or anyone's. KubeEdge 1.16 to 1.20 have v1alpha1
alone; from 1.21 on v1alpha2 is stored beside it, and knows v1alpha1's keys of the status only for as long as KubeEdge
keeps them. Nothing is converted between versions: a write is pruned by the schema of the version that it is made in,
and again by that of the stored version; a read is pruned by both as well. So the stored version is the one to speak,
where it is served: whatever can be kept at all is kept, in one write, and each version shows its part of it.

`find_job_api` looks at the definition, or, without the right to that, at what the API server says it serves; then no
key is left out, and the server drops what it does not know. `follow_job_api` goes on looking, for a definition may be
replaced under a running hub: by an upgrade of KubeEdge, or by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from cloudhub.kube.client import KubeClient
from cloudhub.taskmanager.ports import Forbidden, KubeError, NotFound
from shared.jobs import API_GROUP, API_VERSION, API_VERSIONS, PLURAL

log = structlog.get_logger(__name__)

CRD_PATH: Final = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{API_GROUP}"
LOOK_AGAIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class JobAPI:
    version: str = API_VERSION
    """The one to list, watch and write."""
    others: tuple[str, ...] = ()
    """Served besides."""
    status_keys: frozenset[str] | None = None
    """The top-level keys of a status that are kept; None when that is not known."""
    keeps_progress: bool = False
    """``progress`` is kept in the entries. False when that is not known: each write of it might be in vain."""

    @property
    def path(self) -> str:
        return path_of(self.version)


def path_of(version: str) -> str:
    return f"/apis/{API_GROUP}/{version}/{PLURAL}"


async def find_job_api(client: KubeClient) -> JobAPI | None:
    """None when jobs are not served (yet) in a version that is known here. Raises `KubeError` when the API does not
    answer."""
    try:
        return _of_definition(await client.request("GET", CRD_PATH))
    except NotFound:
        return None
    except Forbidden:
        return await _of_discovery(client)


def _of_definition(crd: Mapping[str, Any]) -> JobAPI | None:
    versions = {
        str(version.get("name")): version
        for version in _list(_mapping(crd.get("spec")).get("versions"))
        if isinstance(version, dict)
    }
    stored = next((name for name, version in versions.items() if version.get("storage")), "")
    served = [name for name in API_VERSIONS if versions.get(name, {}).get("served")]
    if not served:
        return None
    spoken = stored if stored in served else served[0]
    deciding = [versions[name] for name in {spoken, stored} if name in versions]
    keys = [_status_keys(version) for version in deciding]
    known = [found for found in keys if found is not None]
    return JobAPI(
        version=spoken,
        others=tuple(name for name in served if name != spoken),
        status_keys=frozenset.intersection(*known) if known else None,
        keeps_progress=all(_keeps_progress(version) for version in deciding),
    )


def _status_keys(version: Mapping[str, Any]) -> frozenset[str] | None:
    """None for a schema that keeps every key."""
    schema, status = _status_schema(version)
    for part in (schema, status):
        if part.get("x-kubernetes-preserve-unknown-fields"):
            return None
    return frozenset(_mapping(status.get("properties")))


def _status_schema(version: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """That of the object, and of its status."""
    schema = _mapping(_mapping(version.get("schema")).get("openAPIV3Schema"))
    return schema, _mapping(_mapping(schema.get("properties")).get("status"))


def _keeps_progress(version: Mapping[str, Any]) -> bool:
    """In v1alpha1's entries and in v1alpha2's, those of them that the schema has."""
    keys = _status_keys(version)
    if keys is None:
        return True
    _, status = _status_schema(version)
    first = _item_properties(status, "status").get("nodeStatus")
    entries = [_mapping(_mapping(first).get("properties"))] if "status" in keys else []
    entries += [_item_properties(status, "nodeStatus")] if "nodeStatus" in keys else []
    return bool(entries) and all("progress" in known for known in entries)


def _item_properties(status: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    entries = _mapping(_mapping(status.get("properties")).get(key))
    return _mapping(_mapping(entries.get("items")).get("properties"))


async def _of_discovery(client: KubeClient) -> JobAPI | None:
    try:
        group = await client.request("GET", f"/apis/{API_GROUP}")
    except NotFound:
        return None
    listed = {str(_mapping(version).get("version")) for version in _list(group.get("versions"))}
    served = [name for name in API_VERSIONS if name in listed]
    return JobAPI(version=served[0], others=tuple(served[1:])) if served else None


async def follow_job_api(
    client: KubeClient,
    speak: Callable[[JobAPI], None],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    every: float = LOOK_AGAIN_SECONDS,
) -> None:
    """Until cancelled: calls ``speak`` with what is found, also when it is what was found before."""
    while True:
        await sleep(every)
        try:
            found = await find_job_api(client)
        except KubeError as error:
            log.debug("the definition of jobs cannot be looked at now", reason=str(error))
            continue
        if found is not None:
            speak(found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
