"""ImagePrePullJobs: the informer, and the one write that we make to them, their status.

The status patch is meant for one job, not for a name: a job that was deleted and made again has another uid, and must
not get its predecessor's status. Kubernetes ignores ``metadata.uid`` in a patch of a custom resource's status, so each
patch carries the resourceVersion that we know of this uid, and a conflict is resolved by asking whose it is now.

What the informer keeps of a status leaves out the entries by node: nobody reads them back, and of a few hundred large
jobs they would fill the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from cloudhub.kube.client import MERGE_PATCH, METADATA_ONLY, KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.kube.informer import Informer
from cloudhub.taskmanager.ports import Gone, JobObject, NotFound, Rejected, Unavailable
from shared.jobs import API_GROUP, API_VERSION, PLURAL

JOBS_PATH: Final = f"/apis/{API_GROUP}/{API_VERSION}/{PLURAL}"
_TRIES: Final = 4
_ENTRIES: Final = "status"


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
        status={key: value for key, value in _mapping(status).items() if key != _ENTRIES},
        created=str(about.get("creationTimestamp") or ""),
        deleting="deletionTimestamp" in about,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class JobInformer(Informer[JobObject]):
    """`cloudhub.taskmanager.ports.Jobs`."""

    def __init__(self, *, client: KubeClient, **options: Any) -> None:
        super().__init__(client=client, path=JOBS_PATH, convert=job_object, **options)
        self._jobs = client
        self._written: dict[str, tuple[str, str]] = {}
        """By name: uid and resourceVersion of our own last write, which may be ahead of the watch."""
        self.on_change(self._forget)

    async def patch_status(self, *, name: str, uid: str, status: Mapping[str, Any]) -> None:
        version = self._known_version(name, uid)
        for _ in range(_TRIES):
            if version is None:
                version = await self._current_version(name, uid)
            try:
                answer = await self._jobs.request(
                    "PATCH",
                    f"{_path(name)}/status",
                    body={"metadata": {"uid": uid, "resourceVersion": version}, "status": dict(status)},
                    content_type=MERGE_PATCH,
                    accept=METADATA_ONLY,
                )
            except NotFound as error:
                raise Gone(f"job {name} of uid {uid} is no more") from error
            except Conflict:
                version = None
                continue
            except Rejected:
                await self._current_version(name, uid)  # refused for another job's sake? then it is Gone
                raise
            self._wrote(name, uid, answer)
            return
        raise Unavailable(f"the status of job {name} was changed by others {_TRIES} times in a row")

    def _known_version(self, name: str, uid: str) -> str | None:
        """The newest resourceVersion that we know of this uid."""
        seen = self.get(name)
        versions = [seen.resource_version] if seen is not None and seen.uid == uid else []
        written = self._written.get(name)
        if written is not None and written[0] == uid:
            versions.append(written[1])
        return max(versions, key=lambda version: (len(version), version), default=None)

    async def _current_version(self, name: str, uid: str) -> str:
        try:
            found = await self._jobs.request("GET", _path(name), accept=METADATA_ONLY)
        except NotFound as error:
            raise Gone(f"job {name} of uid {uid} is no more") from error
        about = _mapping(found.get("metadata"))
        if about.get("uid") != uid:
            raise Gone(f"job {name} of uid {uid} is no more; another one has its name")
        return str(about.get("resourceVersion") or "")

    def _wrote(self, name: str, uid: str, answer: Mapping[str, Any]) -> None:
        version = _mapping(answer.get("metadata")).get("resourceVersion")
        seen = self.get(name)
        if isinstance(version, str) and (seen is None or seen.resource_version != version):
            self._written[name] = (uid, version)

    def _forget(self, name: str) -> None:
        seen = self.get(name)
        written = self._written.get(name)
        if written is not None and (seen is None or seen.resource_version == written[1] or seen.uid != written[0]):
            del self._written[name]


def _path(name: str) -> str:
    return f"{JOBS_PATH}/{quote(name, safe='')}"
