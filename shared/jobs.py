"""ImagePrePullJob, API group ``operations.kubeedge.io``, version v1alpha1: its spec and its status.

Names are KubeEdge's (``staging/src/github.com/kubeedge/api/apis/operations/v1alpha1``). A spec is what a user wrote
and is validated where the job is reconciled, in words that name field and value; the status is written by us alone.
Times are RFC 3339 text, UTC, whole seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

API_GROUP: Final = "operations.kubeedge.io"
API_VERSION: Final = "v1alpha1"
KIND: Final = "ImagePrePullJob"
PLURAL: Final = "imageprepulljobs"
EDGE_LABEL: Final = "node-role.kubernetes.io/edge"

DEFAULT_CONCURRENCY: Final = 1
DEFAULT_FAILURE_TOLERATE: Final = "0.1"
DEFAULT_TIMEOUT_SECONDS: Final = 300
DEFAULT_RETRY_TIMES: Final = 0
DEFAULT_CHECK_ITEMS: Final = ("disk",)


class CheckItem(StrEnum):
    CPU = "cpu"
    MEM = "mem"
    DISK = "disk"


class State(StrEnum):
    """Of a job and of a node task."""

    INIT = "Init"
    CHECKING = "Checking"
    PULLING = "Pulling"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"

    @property
    def finished(self) -> bool:
        return self in (State.SUCCESSFUL, State.FAILED)


class Event(StrEnum):
    INIT = "Init"
    CHECK = "Check"
    PULL = "Pull"
    TIME_OUT = "TimeOut"


class Action(StrEnum):
    SUCCESS = "Success"
    FAILURE = "Failure"


class _Status(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ImageStatus(_Status):
    image: str
    state: State
    reason: str | None = None


class NodeStatus(_Status):
    nodeName: str
    state: State
    event: Event | None = None
    action: Action | None = None
    reason: str | None = None
    time: str | None = None


class NodeEntry(_Status):
    """One element of ``status.status``."""

    nodeStatus: NodeStatus
    imageStatus: list[ImageStatus] | None = None


class Counts(_Status):
    """Node tasks by what they are at; ``total`` is the sum of the others."""

    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0


class Condition(_Status):
    """metav1.Condition."""

    type: str
    status: str
    reason: str
    message: str
    lastTransitionTime: str
    observedGeneration: int | None = None


class JobStatus(_Status):
    """``status``: KubeEdge's six keys, then ours. `dump` leaves out what is not set."""

    state: State | None = None
    event: Event | None = None
    action: Action | None = None
    reason: str | None = None
    time: str | None = None
    status: list[NodeEntry] = Field(default_factory=list)

    counts: Counts | None = None
    startTime: str | None = None
    completionTime: str | None = None
    observedGeneration: int | None = None
    conditions: list[Condition] = Field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)
