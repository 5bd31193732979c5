"""ImagePrePullJobs: the informer, and what we write to them: their status, and that KubeEdge's finalizer goes.

The status patch is meant for one job, not for a name: a job that was deleted and made again has another uid, and must
not get its predecessor's status. Kubernetes ignores ``metadata.uid`` in a patch of a custom resource's status, so each
patch carries the resourceVersion that we know of this uid, and a conflict is resolved by asking whose it is now.

What the informer keeps of a status leaves out the entries by node: nobody reads them back, and of a few hundred large
jobs they would fill the memory.

Which version of the API is spoken follows from the installed definition (`cloudhub.kube.jobapi`). Someone who writes a
job in another version, even its labels, takes out of the stored status what that version's schema does not know: the
API server reads the object in that version, which drops it, and stores what it read. `lost_status` tells of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import structlog

from cloudhub.kube.client import MERGE_PATCH, METADATA_ONLY, KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.kube.informer import Informer
from cloudhub.kube.jobapi import JobAPI, path_of
from cloudhub.taskmanager.ports import Gone, JobObject, NotFound, Rejected, Unavailable
from shared.jobs import API_VERSION, FINALIZER

log = structlog.get_logger(__name__)

JOBS_PATH: Final = path_of(API_VERSION)
"""In the guide's version."""
_TRIES: Final = 4
_ENTRIES: Final = ("status", "nodeStatus")
_ALWAYS_WRITTEN: Final = ("state", "phase")


def job_object(item: Mapping[str, Any]) -> JobObject:
    """Raises KeyError or TypeError when it is no object."""
    about = item["metadata"]
    status = item.get("status")
    return JobObject(
        uid=str(about["uid"]),
        name=str(about["name"]),
        generation=int(about.get("generation") or 0),
        resource_version=str(about["resourceVersion"]),
        spec=_mapping(item.get("spec")),
        status={key: value for key, value in _mapping(status).items() if key not in _ENTRIES},
        created=str(about.get("creationTimestamp") or ""),
        deleting="deletionTimestamp" in about,
        held=FINALIZER in (about.get("finalizers") or ()),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class JobInformer(Informer[JobObject]):
    """`cloudhub.taskmanager.ports.Jobs`."""

    def __init__(self, *, client: KubeClient, api: JobAPI | None = None, **options: Any) -> None:
        self._api = api or JobAPI()
        super().__init__(client=client, path=self._api.path, convert=job_object, **options)
        self._jobs = client
        self._written: dict[str, tuple[str, str]] = {}
        """By name: uid and resourceVersion of our own last write, which may be ahead of the watch."""
        self.on_change(self._forget)

    @property
    def status_keys(self) -> frozenset[str] | None:
        return self._api.status_keys

    @property
    def keeps_progress(self) -> bool:
        return self._api.keeps_progress

    def speak(self, api: JobAPI) -> None:
        """From now on; what was seen in another version is read again."""
        if api == self._api:
            return
        log.info("the definition of jobs has changed", version=api.version, before=self._api.version)
        self._api = api
        # What we wrote so far was what the former definition kept; `lost_status` shall look at it.
        self._written.clear()
        self.move(api.path)

    def lost_status(self, name: str) -> bool:
        seen = self.get(name)
        if seen is None or seen.deleting or self.status_keys is None:
            return False
        if all(key in seen.status for key in _ALWAYS_WRITTEN if key in self.status_keys):
            return False
        # What we wrote ourselves is not looked at: a server that drops it whatever we do is not written to for ever.
        uid, version = self._written.get(name, ("", ""))
        return uid != seen.uid or _rank(seen.resource_version) > _rank(version)

    async def patch_status(self, *, name: str, uid: str, status: Mapping[str, Any]) -> None:
        keys = self.status_keys
        kept = {key: value for key, value in status.items() if keys is None or key in keys}
        answer = await self._patch(name, uid, self._path_of(name, "/status"), body={"status": kept})
        self._wrote(name, uid, answer)

    async def release(self, *, name: str, uid: str) -> None:
        versions = (self._api.version, *self._api.others)
        for place, version in enumerate(versions, start=1):
            try:
                await self._release(name, uid, f"{path_of(version)}/{quote(name, safe='')}")
            except Gone:
                return
            except Rejected:
                # A status that another program wrote in another version may lack what this one's schema requires.
                if place == len(versions):
                    raise
            else:
                return

    async def _release(self, name: str, uid: str, path: str) -> None:
        about = await self._metadata(name, uid)
        finalizers = about.get("finalizers") or ()
        others = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
        if len(others) == len(finalizers):
            return
        # The list as a whole: only as of the version that it was read of.
        await self._patch(name, uid, path, body={"metadata": {"finalizers": others}}, version=_version_of(about))

    async def _patch(
        self, name: str, uid: str, path: str, *, body: Mapping[str, Any], version: str | None = None
    ) -> Mapping[str, Any]:
        """``version``: the only one that may be changed; else whichever the job of this uid has."""
        tries, given = (1, version) if version is not None else (_TRIES, self._known_version(name, uid))
        for _ in range(tries):
            about = {**body.get("metadata", {}), "uid": uid}
            about["resourceVersion"] = given or await self._current_version(name, uid)
            try:
                return await self._jobs.request(
                    "PATCH",
                    path,
                    body={**body, "metadata": about},
                    content_type=MERGE_PATCH,
                    accept=METADATA_ONLY,
                )
            except NotFound as error:
                raise Gone(f"job {name} of uid {uid} is no more") from error
            except Conflict:
                given = None
                continue
            except Rejected:
                await self._current_version(name, uid)  # refused for another job's sake? then it is Gone
                raise
        raise Unavailable(f"job {name} was changed by others {tries} times in a row")

    def _known_version(self, name: str, uid: str) -> str | None:
        """The newest resourceVersion that we know of this uid."""
        seen = self.get(name)
        versions = [seen.resource_version] if seen is not None and seen.uid == uid else []
        written = self._written.get(name)
        if written is not None and written[0] == uid:
            versions.append(written[1])
        return max(versions, key=_rank, default=None)

    async def _current_version(self, name: str, uid: str) -> str:
        return _version_of(await self._metadata(name, uid))

    async def _metadata(self, name: str, uid: str) -> Mapping[str, Any]:
        try:
            found = await self._jobs.request("GET", self._path_of(name), accept=METADATA_ONLY)
        except NotFound as error:
            raise Gone(f"job {name} of uid {uid} is no more") from error
        about = _mapping(found.get("metadata"))
        if about.get("uid") != uid:
            raise Gone(f"job {name} of uid {uid} is no more; another one has its name")
        return about

    def _wrote(self, name: str, uid: str, answer: Mapping[str, Any]) -> None:
        version = _mapping(answer.get("metadata")).get("resourceVersion")
        if isinstance(version, str):
            self._written[name] = (uid, version)

    def _forget(self, name: str) -> None:
        seen = self.get(name)
        written = self._written.get(name)
        if written is not None and (seen is None or seen.uid != written[0]):
            del self._written[name]

    def _path_of(self, name: str, subresource: str = "") -> str:
        return f"{self._api.path}/{quote(name, safe='')}{subresource}"


def _version_of(about: Mapping[str, Any]) -> str:
    return str(about.get("resourceVersion") or "")


def _rank(version: str) -> tuple[int, str]:
    """Versions are numbers, as text."""
    return len(version), version
