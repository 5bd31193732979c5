"""ImagePrePullJob, API group ``operations.kubeedge.io``, versions v1alpha1 and v1alpha2: its spec and its status.

Names are KubeEdge's (``staging/src/github.com/kubeedge/api/apis/operations``). A spec is what a user wrote and is the
same in both versions; it is validated where the job is reconciled, in words that name field and value. The status is
written by us alone, as one object with the keys of both versions side by side: a cluster stores one object for both and
converts nothing, each version shows the keys that its schema knows. Times are RFC 3339 text, UTC, whole seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

API_GROUP: Final = "operations.kubeedge.io"
API_VERSION: Final = "v1alpha1"
"""Of the user's guide: what YAML that we write is in."""
LATER_VERSION: Final = "v1alpha2"
"""KubeEdge has it since 1.21, stores it, and kubectl shows it where no version is asked for."""
API_VERSIONS: Final = (LATER_VERSION, API_VERSION)
"""Those that we can speak, the preferred one first."""
FINALIZER: Final = "kubeedge.io/imageprepulljob-controller"
"""KubeEdge's controller puts it on every job, and waits for it when the job is deleted."""
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


class JobPhase(StrEnum):
    """v1alpha2's word for what a job is at."""

    INIT = "Init"
    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILURE = "Failure"


ENDED_PHASES: Final = frozenset({JobPhase.COMPLETED.value, JobPhase.FAILURE.value, "Complated"})
"""The last is how early editions of KubeEdge's v1alpha2 spell it."""


class NodePhase(StrEnum):
    """v1alpha2's word for what a node task is at. Unknown: nothing was heard of it in time."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCESSFUL = "Successful"
    FAILURE = "Failure"
    UNKNOWN = "Unknown"


class _Status(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ImageStatus(_Status):
    image: str
    state: State
    reason: str | None = None


class PullProgress(_Status):
    """How far the node has said that it is, while it pulls. Ours, in both versions."""

    images: int
    totalImages: int
    bytes: int
    totalBytes: int | None = None
    """Not known yet when it is missing."""
    time: str


class NodeStatus(_Status):
    nodeName: str
    state: State
    event: Event | None = None
    action: Action | None = None
    reason: str | None = None
    time: str | None = None
    progress: PullProgress | None = None


class NodeEntry(_Status):
    """One element of ``status.status``."""

    nodeStatus: NodeStatus
    imageStatus: list[ImageStatus] | None = None


class ActionResult(_Status):
    """v1alpha2: one element of ``actionFlow``. ``status`` is True or False, as text."""

    action: Event
    status: str
    reason: str | None = None
    time: str | None = None


class ImageResult(_Status):
    """v1alpha2: one element of a node's ``imageStatus``."""

    image: str
    status: str
    reason: str | None = None


class NodeResult(_Status):
    """v1alpha2: one element of ``status.nodeStatus``."""

    nodeName: str
    phase: NodePhase
    reason: str | None = None
    progress: PullProgress | None = None
    actionFlow: list[ActionResult] | None = None
    imageStatus: list[ImageResult] | None = None


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
    """``status``: v1alpha1's six keys, v1alpha2's besides, then ours. `dump` leaves out what is not set."""

    state: State | None = None
    event: Event | None = None
    action: Action | None = None
    reason: str | None = None
    time: str | None = None
    status: list[NodeEntry] = Field(default_factory=list)

    phase: JobPhase | None = None
    nodeStatus: list[NodeResult] | None = None

    counts: Counts | None = None
    startTime: str | None = None
    completionTime: str | None = None
    observedGeneration: int | None = None
    conditions: list[Condition] = Field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)
