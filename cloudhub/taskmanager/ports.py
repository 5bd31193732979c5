"""What the taskManager needs of the rest of the hub, as it sees it.

The adapters (`cloudhub.sessions`, `cloudhub.kube`) satisfy these protocols by their shape and the composition root
wires them; the taskManager imports neither. Errors that cross this line are the classes below, by what the caller does
next: `Unavailable` is tried again, `Gone` ends it, `NotFound` and `Forbidden` are the user's to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.wire import Feature, Message, NodeInfo


class KubeError(Exception):
    """Base of what the Kubernetes adapter raises; its text is safe to show."""


class Unavailable(KubeError):
    """The API did not answer, or answered 429 or 5xx: try again later."""


class NotFound(KubeError):
    """404: there is no such object."""


class Gone(KubeError):
    """The object that was meant is no more, or another one has its name (another uid)."""


class Forbidden(KubeError):
    """401 or 403: the hub's account may not do this; the text names verb and resource."""


class Rejected(KubeError):
    """The API refused what was sent (400, 409 on create, 422); the text is its message."""


@dataclass(frozen=True, slots=True)
class JobObject:
    """An ImagePrePullJob as the API server holds it; ``spec`` and ``status`` are as they came, not validated."""

    uid: str
    name: str
    generation: int
    resource_version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    created: str = ""
    deleting: bool = False
    """It has a deletionTimestamp: finalizers hold it."""
    held: bool = False
    """One of them is that of KubeEdge's controller, whose place we take."""


@dataclass(frozen=True, slots=True)
class NodeObject:
    name: str
    labels: Mapping[str, str]
    kubelet_version: str = ""


@dataclass(frozen=True, slots=True)
class SecretObject:
    type: str
    data: Mapping[str, bytes] = field(repr=False)
    uid: str = ""
    resource_version: str = ""


class Jobs(Protocol):
    """The informer's view of jobs, by name, and the writes that we make."""

    @property
    def status_keys(self) -> Set[str] | None:
        """The top-level keys of a status that the API keeps; None when that is not known. Others need not be made."""
        ...

    @property
    def keeps_progress(self) -> bool:
        """Whether it is known that the API keeps ``progress`` in the entries of a status."""
        ...

    def get(self, name: str) -> JobObject | None: ...
    def list(self) -> Iterable[JobObject]: ...
    def on_change(self, callback: Callable[[str], None]) -> None:
        """``callback(name)`` after each add, update or delete, and for each object of a re-list; cheap, sync."""
        ...

    async def synced(self) -> None:
        """Returns once the first list is in."""
        ...

    def lost_status(self, name: str) -> bool:
        """Whether someone has written the job since our last write of its status, in a version of the API that does
        not know all of it, so that what it does not know is gone."""
        ...

    async def patch_status(self, *, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Merge-patch the status subresource; a key with None is removed. Raises `Gone` when the job of this uid is
        no more (404, or 409 on the uid precondition), `Unavailable`, `Forbidden`, `Rejected`."""
        ...

    async def release(self, *, name: str, uid: str) -> None:
        """Take KubeEdge's finalizer off the job of this uid, and no other. Raises `Unavailable`, `Forbidden`,
        `Rejected`."""
        ...


class Nodes(Protocol):
    """The informer's view of Nodes."""

    def get(self, name: str) -> NodeObject | None: ...
    def list(self) -> Iterable[NodeObject]: ...
    async def synced(self) -> None: ...


class Secrets(Protocol):
    async def get(self, namespace: str, name: str) -> SecretObject:
        """Raises `NotFound`, `Forbidden`, `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One live session. ``serial`` tells sessions of one node apart: a later one has a larger number."""

    node: str
    serial: int
    features: frozenset[Feature]
    info: NodeInfo | None
    """None from a real EdgeCore."""


class Sessions(Protocol):
    """Who is connected, and how to send."""

    def get(self, node: str) -> SessionInfo | None: ...
    def connected(self) -> Iterable[str]: ...
    def send(self, node: str, message: Message) -> bool:
        """Queue for sending. False when the node has no session or its outbound queue is full; then nothing was
        queued. True promises no delivery: the link may break."""
        ...


class SessionWatcher(Protocol):
    """What the sessions tell who wants to know of them. Runs on the event loop, in order for each node."""

    def session_opened(self, session: SessionInfo) -> None: ...
    def session_closed(self, session: SessionInfo) -> None:
        """Not called for a session that a newer one of the same node replaced."""
        ...


class SessionListener(SessionWatcher, Protocol):
    """What the sessions tell their owner."""

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        """What arrived together, in order. Awaited before more of this session is handed over: a slow owner slows the
        sender, nothing piles up. Keepalives are not passed on. Must not raise."""
        ...
