"""The jobs that have not ended, in memory: what dispatching needs of them and no query should be made for.

Counts and settings are those of the last commit (`LiveJobs.committed`). Credentials are here and nowhere else: they are
read from the Secret when the job is admitted, or first seen after a start, and go away with the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from cloudhub.store.records import Job
from cloudhub.taskmanager.parts import Credentials, Part, parts_of
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec
from cloudhub.taskmanager.stocksecret import NO_VERSION, SecretVersion
from shared.credentials import DockerConfig
from shared.images import parse_reference
from shared.wire import MAX_FRAME_BYTES, Dispatch, PullTemplate

_ENVELOPE: Final = 4096
"""Bytes of a dispatch beside images and credentials; no name in it is longer than 253."""


def credentials_of(spec: JobSpec, config: DockerConfig) -> Credentials:
    """For each image the one credential that is for its registry; nothing else of the Secret is kept. Raises
    `InvalidSpec` when the job's message would be too large for any node."""
    best = {image: config.best(parse_reference(image)) for image in spec.images}
    chosen = {image: found.model_dump(exclude_defaults=True) for image, found in best.items() if found is not None}
    size = len(to_json([spec.images, chosen])) + _ENVELOPE
    if size > MAX_FRAME_BYTES:
        raise InvalidSpec(
            "imagePrePullTemplate.images",
            f"{len(spec.images)} images with their credentials make a message of {size} bytes: "
            f"it must be at most {MAX_FRAME_BYTES}; make more than one job of it",
        )
    return chosen


@dataclass(slots=True, kw_only=True)
class LiveJob:
    job: Job
    spec: JobSpec
    ready: bool = False
    """Its credentials have been read, or it needs none. Before, nothing is sent for it."""
    credentials: Credentials = field(default_factory=dict, repr=False)
    """By image; only images for which there is one."""
    secret_version: SecretVersion = NO_VERSION
    """Of the Secret that they are from."""
    parts: tuple[Part, ...] = ()
    """The job's images as stock nodes are asked for them."""
    keys: frozenset[str] = frozenset()
    """`Part.key` of all parts that have a credential."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """What nodes are sent, but for what is a node's own."""
    contents: dict[tuple[tuple[str, ...], str, bool], Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """What stock nodes are sent: see `cloudhub.taskmanager.dispatch`."""

    def __post_init__(self) -> None:
        self.template = Dispatch(
            imagePrePullTemplate=PullTemplate(
                images=list(self.spec.images),
                checkItems=list(self.spec.check_items),
                retryTimes=self.spec.retry_times,
            )
        ).model_dump(exclude_none=True)
        self._cut()

    @property
    def room(self) -> int:
        """How many more may be in flight."""
        if not self.ready or self.job.stopped or self.job.finished:
            return 0
        return max(0, min(self.job.concurrency - self.job.tally.in_flight, self.job.tally.pending))

    def set_credentials(self, credentials: Credentials, version: SecretVersion | None = None) -> None:
        self.credentials = credentials
        # The uid of the job, if nothing better is known: EdgeCore minds only that there is one.
        self.secret_version = SecretVersion(
            (version.uid if version is not None else "") or self.job.uid,
            version.resource_version if version is not None else "",
        )
        self._cut()
        self.ready = True

    def _cut(self) -> None:
        self.parts = parts_of(self.spec.images, self.credentials)
        self.keys = frozenset(part.key for part in self.parts if part.key)


class LiveJobs:
    def __init__(self) -> None:
        self._by_uid: dict[str, LiveJob] = {}
        self._by_name: dict[str, LiveJob] = {}

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(self._by_uid.values())

    def __len__(self) -> int:
        return len(self._by_uid)

    def get(self, uid: str) -> LiveJob | None:
        return self._by_uid.get(uid)

    def named(self, name: str) -> LiveJob | None:
        return self._by_name.get(name)

    def move_to_end(self, uid: str) -> None:
        """It had its turn: when all are gone through next, it is the last."""
        live = self._by_uid.pop(uid, None)
        if live is not None:
            self._by_uid[uid] = live

    def add(self, live: LiveJob) -> None:
        if not live.job.finished:
            self._by_uid[live.job.uid] = self._by_name[live.job.name] = live

    def committed(self, job: Job) -> None:
        """The job as a transaction left it."""
        live = self._by_uid.get(job.uid)
        if live is not None:
            live.job = job
            if job.finished:
                self.discard(job.uid)

    def discard(self, uid: str) -> None:
        live = self._by_uid.pop(uid, None)
        if live is not None and self._by_name.get(live.job.name) is live:
            del self._by_name[live.job.name]
