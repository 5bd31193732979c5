"""KubeEdge's messages, as both sides of the WebSocket send and read them.

One JSON document a text frame: ``header``, ``route``, ``content``. The field names and the omitted-when-empty rule
are KubeEdge's (beehive ``pkg/core/model/message.go``); the node-task shapes are its v1alpha2 task messages
(``pkg/nodetask/message``). What this project adds stands in keys of its own (``task`` beside KubeEdge's keys) and in
operations that are sent only to a peer that announced the feature in the handshake, so that a real EdgeCore or
CloudCore never meets a thing it does not know.

Everything here is untrusted on arrival: `decode` is the one way in, it bounds sizes and raises `WireError` with a
reason that is safe to log (no content of the message is repeated in it beyond names, and those are cut).
"""

from __future__ import annotations

import itertools
import os
import re
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import to_json

MAX_FRAME_BYTES: Final = 1 << 20
"""Largest frame that either side reads. A Kubernetes Secret, the largest thing sent, ends at 1 MiB."""

WEBSOCKET_PATH: Final = "/{project_id}/{node}/events"
DEFAULT_PROJECT_ID: Final = "e632aba927ea4ac2b575ec1603d56f10"

HEADER_NODE_ID: Final = "node_id"
HEADER_PROJECT_ID: Final = "project_id"
HEADER_CONNECTION_USE: Final = "ConnectionUse"
HEADER_FEATURES: Final = "X-Edgehub-Features"
"""Request and response header of the handshake: comma-separated `Feature` values that the sender understands."""
HEADER_NODE_INFO: Final = "X-Edgehub-Node-Info"
"""Request header of the handshake: a `NodeInfo` as JSON, at most 1 KiB. Absent from a real EdgeCore."""


class Feature(StrEnum):
    """What our own programs understand beyond KubeEdge; anything not announced is never sent."""

    ACK = "ack"
    CANCEL = "cancel"
    CREDENTIALS = "credentials"
    PROGRESS = "progress"


class Source(StrEnum):
    WEBSOCKET = "websocket"
    TASK_MANAGER = "taskmanager"
    EDGED = "edged"
    EDGE_CONTROLLER = "edgecontroller"


class Group(StrEnum):
    RESOURCE = "resource"
    TASK_MANAGER = "taskmanager"
    HUB = "hub"
    META = "meta"


class Operation(StrEnum):
    """Operations that we send or act on. A message with another one is counted and ignored."""

    KEEPALIVE = "keepalive"
    CHECK = "Check"
    PULL = "Pull"
    REPORT = "UpdateNodeActionStatus"
    QUERY = "query"
    UPDATE = "update"
    RESPONSE = "response"
    ERROR = "error"
    # Ours, each behind the feature of the same name.
    ACK = "ReportAck"
    CANCEL = "Cancel"
    PROGRESS = "Progress"


ShortText = Annotated[str, StringConstraints(max_length=256)]
ResourceText = Annotated[str, StringConstraints(max_length=1024)]
MAX_REASON: Final = 4096


def _cut(reason: Any) -> Any:
    return reason[:MAX_REASON] if isinstance(reason, str) else reason


ReasonText = Annotated[str, BeforeValidator(_cut)]
"""Cut, not refused: a node that repeats a whole page of its proxy has still ended its task."""
Attempt = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
"""Both sides keep it in a database, whose integers end somewhere."""


class WireError(ValueError):
    """A frame that is no message of this protocol. Its text is safe to log and to send as a close reason."""


class _Wire(BaseModel):
    # Peers of other versions send keys that we do not know; KubeEdge ignores such, and so do we.
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Header(_Wire):
    msg_id: ShortText
    parent_msg_id: ShortText = ""
    timestamp: int = 0
    """Milliseconds since the epoch."""
    resourceversion: ShortText = ""
    sync: bool = False
    type: ShortText = ""


class Route(_Wire):
    source: ShortText = ""
    destination: ShortText = ""
    group: ShortText = ""
    operation: ShortText = ""
    resource: ResourceText = ""


class Message(_Wire):
    header: Header
    route: Route = Route()
    content: Any = None


_ID_PREFIX: Final = str(uuid.uuid4())[:-12]
_ids = itertools.count(int.from_bytes(os.urandom(4), "big"))


def _fresh_id() -> str:
    """A UUID by its form, and as unique: the process's own random part, then a number. Asking the kernel for new random
    bytes each time took a tenth of what a node task costs."""
    return f"{_ID_PREFIX}{next(_ids) % (1 << 48):012x}"


def new_message(
    *,
    source: str,
    group: str,
    resource: str,
    operation: str,
    content: Any = None,
    parent: str = "",
    resourceversion: str = "",
    sync: bool = False,
) -> Message:
    """A message with a fresh id and the present time. ``parent`` is the ``msg_id`` that it answers."""
    # Validation in one go is twice as fast as putting the models together.
    return Message.model_validate(
        {
            "header": {
                "msg_id": _fresh_id(),
                "parent_msg_id": parent,
                "timestamp": time.time_ns() // 1_000_000,
                "resourceversion": resourceversion,
                "sync": sync,
            },
            "route": {"source": source, "group": group, "operation": operation, "resource": resource},
            "content": content,
        }
    )


def encode(message: Message) -> str:
    """The frame's text. KubeEdge omits empty header and route fields, and so does this."""
    return encode_bytes(message).decode()


def encode_bytes(message: Message) -> bytes:
    """As `encode`, in UTF-8: what a text frame carries."""
    header, route = message.header, message.route
    head: dict[str, Any] = {"msg_id": header.msg_id}
    if header.parent_msg_id:
        head["parent_msg_id"] = header.parent_msg_id
    head["timestamp"] = header.timestamp
    if header.resourceversion:
        head["resourceversion"] = header.resourceversion
    if header.sync:
        head["sync"] = True
    if header.type:
        head["type"] = header.type
    where = {
        key: value
        for key, value in (
            ("source", route.source),
            ("destination", route.destination),
            ("group", route.group),
            ("operation", route.operation),
            ("resource", route.resource),
        )
        if value
    }
    # A third of the time of the standard library's encoder, and the same bytes.
    return to_json({"header": head, "route": where, "content": message.content})


def decode(frame: str | bytes) -> Message:
    """The message of one frame. Raises `WireError` when it is too large, no JSON, or not of the shape."""
    size = len(frame) if isinstance(frame, bytes) or 4 * len(frame) <= MAX_FRAME_BYTES else _utf8_size(frame)
    if size > MAX_FRAME_BYTES:
        raise WireError(f"frame of {size} bytes, more than {MAX_FRAME_BYTES}")
    try:
        return Message.model_validate_json(frame)
    except ValidationError as error:
        raise WireError(f"not a message: {first_problem(error)}") from None
    except RecursionError:
        raise WireError("not a message: nested too deep") from None


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def first_problem(error: ValidationError) -> str:
    """The first thing wrong, as ``field: what``; never the value, which may be a secret."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])[:128] or "document"
    # The library would name a class of ours.
    what = "Input should be a JSON object" if problem["type"] == "model_type" else problem["msg"]
    return f"{where}: {what[:200]}"


# --- Node tasks, v1alpha2 -------------------------------------------------------------------------------------

_TASK_RESOURCE = re.compile(
    r"operations\.kubeedge\.io/v1alpha2/imageprepulljob/(?P<job>[-.a-z0-9]{1,253})/node/(?P<node>[-.a-z0-9]{1,253})"
)


def task_resource(job: str, node: str) -> str:
    return f"operations.kubeedge.io/v1alpha2/imageprepulljob/{job}/node/{node}"


def parse_task_resource(resource: str) -> tuple[str, str]:
    """Job name and node name. Split by position, so that a job named ``node`` is no trap. Raises `WireError`."""
    match = _TASK_RESOURCE.fullmatch(resource)
    if match is None:
        raise WireError(f"resource {resource[:128]!r} is no node task")
    return match["job"], match["node"]


class Credential(_Wire):
    """What one registry wants of us; the names are those of CRI's AuthConfig. Never logged: repr hides it."""

    registry: ShortText
    """``host[:port]`` or ``host[:port]/path``: the key of ``.dockerconfigjson`` that matched."""
    username: str = Field(default="", max_length=4096, repr=False)
    password: str = Field(default="", max_length=65536, repr=False)
    identity_token: str = Field(default="", max_length=65536, repr=False)


class TaskExtras(_Wire):
    """What our hub adds to KubeEdge's dispatch under the key ``task``: an agent of ours needs it, an EdgeCore
    ignores it."""

    job_uid: ShortText
    attempt: Attempt
    timeout_seconds: int = Field(ge=1)
    """Whole seconds left until the hub gives the task up, counted from when this message was sent."""
    credentials: dict[str, Credential] = Field(default_factory=dict, max_length=1000, repr=False)
    """By image reference as it stands in the template. Only sent to peers with `Feature.CREDENTIALS`."""


class PullTemplate(_Wire):
    """The keys of ``imagePrePullTemplate`` that a node uses (KubeEdge's EdgeCore uses just these four)."""

    images: list[ResourceText] = Field(min_length=1, max_length=1000)
    checkItems: list[ShortText] = Field(default_factory=list, max_length=16)
    imageSecrets: ResourceText = ""
    retryTimes: int = Field(default=0, ge=0, le=1000)


class Dispatch(_Wire):
    """Content of a dispatch: route source and group ``taskmanager``, resource `task_resource`, operation
    ``Check`` (checks, then pulls) or ``Pull`` (pulls only)."""

    imagePrePullTemplate: PullTemplate
    task: TaskExtras | None = None


class ImageResult(_Wire):
    image: ResourceText
    status: Annotated[str, StringConstraints(pattern="^(True|False)$")]
    reason: ReasonText = ""

    @property
    def ok(self) -> bool:
        return self.status == "True"


_IMAGE_RESULTS = TypeAdapter(Annotated[list[ImageResult], Field(max_length=1000)])


class ReportExtras(_Wire):
    """What our agent adds to KubeEdge's report: which job and attempt it speaks of."""

    job_uid: ShortText
    attempt: Attempt


class Report(_Wire):
    """Content of a report: route source ``websocket``, group ``hub``, operation ``UpdateNodeActionStatus``.

    A successful ``Check`` is followed by the node's own ``Pull``; a failed one ends the task. For ``Pull``, ``extend``
    is JSON text of a list of `ImageResult`, and may be empty or ``null`` on early errors."""

    action: ShortText
    succ: bool
    finishTime: ShortText = ""
    reason: ReasonText = ""
    extend: str = Field(default="", max_length=MAX_FRAME_BYTES)
    task: ReportExtras | None = None

    def images(self) -> list[ImageResult]:
        """The results by image. Raises `WireError` when ``extend`` is not of the shape."""
        return image_results(self.extend)


def image_results(extend: str) -> list[ImageResult]:
    """What `Report.extend` says. Raises `WireError` when it is not of the shape."""
    if extend in ("", "null"):
        return []
    try:
        return _IMAGE_RESULTS.validate_json(extend)
    except ValidationError as error:
        raise WireError(f"extend: {first_problem(error)}") from None


class Cancel(_Wire):
    """Content of `Operation.CANCEL` (hub to agent, `Feature.CANCEL`): stop this task and forget it."""

    job_uid: ShortText
    attempt: Attempt
    reason: ReasonText = ""


MAX_AMOUNT: Final = (1 << 53) - 1
"""Bytes. Beyond it a reader with floating point numbers, and kubectl is one at times, would show another number."""
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT)]


class Progress(_Wire):
    """Content of `Operation.PROGRESS` (agent to hub, `Feature.PROGRESS`): how far a task's pulls are. Route as a
    report's. Nothing depends on it: it may be lost, and is never sent twice."""

    job_uid: ShortText
    attempt: Attempt
    done_images: int = Field(ge=0, le=1000)
    """That are on the node."""
    total_images: int = Field(ge=1, le=1000)
    done_bytes: Amount = 0
    """Of the images, that are on the node. A CRI runtime tells them of an image when it is there, and not before."""
    total_bytes: Amount = 0
    """0 until the sizes of all images are known."""

    @model_validator(mode="after")
    def _no_more_than_all(self) -> Self:
        if self.done_images > self.total_images or (self.total_bytes and self.done_bytes > self.total_bytes):
            raise ValueError("there is more here than there is in all")
        return self


def parse_progress(content: Any) -> Progress:
    """Raises `WireError` that names the field."""
    try:
        return Progress.model_validate(content)
    except ValidationError as error:
        raise WireError(first_problem(error)) from None


class NodeInfo(_Wire):
    """What our agent says of its machine in the handshake; the names are those of Kubernetes' NodeSystemInfo."""

    architecture: ShortText = ""
    operatingSystem: ShortText = ""
    osImage: ShortText = ""
    kernelVersion: ShortText = ""
    containerRuntimeVersion: ShortText = ""
    kubeletVersion: ShortText = ""


def parse_features(text: str) -> frozenset[Feature]:
    """The known features of a handshake header; unknown names are of a newer peer and mean nothing here."""
    named = {part.strip() for part in text[:1024].split(",")}
    return frozenset(feature for feature in Feature if feature.value in named)


def keepalive() -> Message:
    return new_message(
        source=Source.WEBSOCKET,
        group=Group.RESOURCE,
        resource="node",
        operation=Operation.KEEPALIVE,
        content="ping",
    )


def rfc3339(moment: datetime) -> str:
    """UTC to the second with ``Z``, as Kubernetes prints times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
