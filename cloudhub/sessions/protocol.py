"""The rules of one session, without sockets and without a clock.

`check_handshake` decides who a peer is; `SessionRules` is fed frames and 'time passed' and says what follows from them.
The shell (`cloudhub.sessions.connection`) moves bytes and does what these events say.

Guarantees: a session belongs to the node that its certificate names, whatever the peer says in headers or path. Only
KubeEdge's ``keepalive`` operation proves that a node lives; other traffic does not. A frame that is no message ends the
session with a reason; a message that nobody here acts on is counted and ignored. More messages than the rate allows
are not lost: reading is delayed.

Not done here: what a report means (`cloudhub.taskmanager`), and the check of the certificate's chain, which TLS has
done before the first byte of HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from cryptography import x509
from pydantic import ValidationError
from websockets.datastructures import Headers

from cloudhub.pki.names import NotANode, node_of
from shared import prepull
from shared.wire import (
    HEADER_CONNECTION_USE,
    HEADER_FEATURES,
    HEADER_NODE_ID,
    HEADER_NODE_INFO,
    HEADER_PROJECT_ID,
    Feature,
    Group,
    Message,
    NodeInfo,
    Operation,
    Route,
    WireError,
    decode,
    first_problem,
    new_message,
    parse_features,
    task_resource,
)

MAX_NODE_INFO_BYTES: Final = 1024
MAX_PATH: Final = 1024
_PATH: Final = re.compile(r"/(?P<project>[^/?#]{1,253})/(?P<node>[^/?#]{1,253})/events")

VIADUCT_CONTROL: Final = frozenset({"config", "ping", "pong"})
"""Operations that KubeEdge's transport answers by itself, with content ``ack``."""
DELIVERED: Final = frozenset(
    {
        Operation.REPORT,
        Operation.PROGRESS,
        prepull.OPERATION,
        Operation.QUERY,
        Operation.RESPONSE,
        Operation.ERROR,
    }
)
"""Operations that the owner of the sessions gets to see; besides all of group ``meta``, which want an answer."""
KNOWN_OPERATIONS: Final = frozenset(
    {
        *(operation.value for operation in Operation),
        *("get", "list", "insert", "update", "delete", "patch", "publish", "upload", "start", "stop", "prepull"),
        *("upgrade", "rollback", "node_connection", "responseerror"),
    }
)
"""What may be the value of a metric's label; all else is counted as ``other``, so that a peer cannot choose labels."""

REQUIRED_FEATURE: Final = {
    Operation.ACK: Feature.ACK,
    Operation.CANCEL: Feature.CANCEL,
    Operation.PROGRESS: Feature.PROGRESS,
}
"""Operations of ours, never sent to a node that did not announce them."""
V1ALPHA2_ACTIONS: Final = frozenset({Operation.CHECK, Operation.PULL})
STOCK_ANSWERS: Final = frozenset({Operation.RESPONSE, Operation.ERROR, Operation.UPDATE})
"""What a stock node is sent besides tasks."""
_V1ALPHA2_PREFIX: Final = task_resource("", "").partition("//")[0] + "/"
_V1ALPHA1_PREFIX: Final = prepull.resource_down("", "").partition("//")[0] + "/"


class CloseCode:
    """RFC 6455's codes, as used here."""

    GOING_AWAY: Final = 1001
    INVALID_DATA: Final = 1007
    POLICY: Final = 1008
    INTERNAL_ERROR: Final = 1011
    SERVICE_RESTART: Final = 1012


class HandshakeRefused(Exception):
    """The peer gets ``status`` and this text and no session; ``reason`` is the metric's label."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who the peer of an accepted handshake is."""

    node: str
    features: frozenset[Feature]
    info: NodeInfo | None
    expires_at: float
    """When its certificate ends, seconds since the epoch."""
    certificate: int
    """Its serial number."""


def check_handshake(*, path: str, headers: Headers, certificate: x509.Certificate | None) -> Greeting:
    """The node of a handshake request. Raises `HandshakeRefused`: 401 for who the peer is, 403 for whom it claims to
    be, 400 for a malformed header, 404 for another path."""
    if certificate is None:
        raise HandshakeRefused(401, "certificate", "a client certificate is required")
    try:
        node = node_of(certificate)
    except NotANode as error:
        raise HandshakeRefused(401, "certificate", f"client certificate: {error}") from None
    match = _PATH.fullmatch(path) if len(path) <= MAX_PATH else None
    if match is None:
        raise HandshakeRefused(404, "path", "path is not /<project id>/<node name>/events")
    claimed = _header(headers, HEADER_NODE_ID)
    if claimed is None:
        raise HandshakeRefused(400, "headers", f"header {HEADER_NODE_ID} is missing")
    for where, name in ((f"header {HEADER_NODE_ID}", claimed), ("path", match["node"])):
        if name != node:
            raise HandshakeRefused(403, "identity", f"{where} says node {name[:64]!r}, the certificate is of {node!r}")
    _header(headers, HEADER_PROJECT_ID)
    use = _header(headers, HEADER_CONNECTION_USE)
    if use not in (None, "msg"):
        raise HandshakeRefused(400, "headers", f"header {HEADER_CONNECTION_USE} is {use[:64]!r}, not 'msg'")
    return Greeting(
        node=node,
        features=parse_features(_header(headers, HEADER_FEATURES) or ""),
        info=_node_info(_header(headers, HEADER_NODE_INFO)),
        expires_at=certificate.not_valid_after_utc.timestamp(),
        certificate=certificate.serial_number,
    )


def _header(headers: Headers, name: str) -> str | None:
    values = headers.get_all(name)
    if len(values) > 1:
        raise HandshakeRefused(400, "headers", f"header {name} is there {len(values)} times")
    return values[0] if values else None


def _node_info(text: str | None) -> NodeInfo | None:
    if text is None:
        return None
    if len(text) > MAX_NODE_INFO_BYTES:
        raise HandshakeRefused(
            400, "headers", f"header {HEADER_NODE_INFO} has {len(text)} bytes, more than {MAX_NODE_INFO_BYTES}"
        )
    try:
        # HTTP headers arrive as Latin-1, JSON is UTF-8: these are the bytes that were sent.
        return NodeInfo.model_validate_json(text.encode("latin-1", errors="replace"))
    except ValidationError as error:
        raise HandshakeRefused(400, "headers", f"header {HEADER_NODE_INFO}: {first_problem(error)}") from None


# --- What follows from a frame, or from time ----------------------------------------------------------------------


class KeptAlive(NamedTuple):
    """The node lives; its timer starts anew."""


class Deliver(NamedTuple):
    """For the owner of the sessions."""

    message: Message


class Answer(NamedTuple):
    """To be sent back; the owner does not hear of it."""

    message: Message


class Ignored(NamedTuple):
    """Counted under ``operation``, nothing else."""

    operation: str


class Close(NamedTuple):
    """The session ends, now: ``reason`` is told to the peer, ``label`` is for logs."""

    code: int
    reason: str
    label: str


Event = KeptAlive | Deliver | Answer | Ignored | Close

_KEPT_ALIVE: Final = KeptAlive()
_BYTES_A_TOKEN: Final = 16 * 1024
_CONTINUATION_COST: Final = 1 / 16
_WORTHY_PIECE: Final = 512
"""Bytes. Go's clients send pieces of 4 KiB, but for the last; smaller ones cost the hub what a message costs it."""


class SessionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class WrongState(RuntimeError):
    """A session was fed something that its state does not allow: a fault of the caller."""


class SessionRules:
    """One session's state. ``now`` is any clock that only goes forward, the same in all calls."""

    __slots__ = ("_burst", "_filled_at", "_keepalive_interval", "_last_keepalive", "_rate", "_state", "_tokens")

    def __init__(
        self, *, now: float, keepalive_interval: float, messages_per_second: float, message_burst: int
    ) -> None:
        self._state = SessionState.OPEN
        self._keepalive_interval = keepalive_interval
        self._last_keepalive = now
        self._rate = messages_per_second
        self._burst = float(message_burst)
        self._tokens = self._burst
        self._filled_at = now

    @property
    def state(self) -> SessionState:
        return self._state

    def frame_arrived(self, size: int, now: float, *, continued: bool = False) -> None:
        """A frame of any kind was read. It costs tokens of the rate by what it costs the hub: most for being a message
        (or a ping to be answered), some for each byte; large messages come in many small pieces from Go."""
        self._fill(now)
        self._tokens -= (_CONTINUATION_COST if continued and size >= _WORTHY_PIECE else 1.0) + size / _BYTES_A_TOKEN

    def receive(self, document: str | bytes, now: float) -> Event:
        """What follows from one whole message."""
        self._require_open("a message")
        try:
            message = decode(document)
        except WireError as error:
            return self._close(CloseCode.INVALID_DATA, str(error), "malformed")
        operation = message.route.operation
        if operation == Operation.KEEPALIVE:
            self._last_keepalive = now
            return _KEPT_ALIVE
        if operation in DELIVERED or message.route.group == Group.META or asks_for_twin(message):
            return Deliver(message)
        if operation in VIADUCT_CONTROL:
            return Answer(_control_answer(message))
        return Ignored(operation if operation in KNOWN_OPERATIONS else "other")

    def may_read(self, now: float) -> bool:
        """Whether the rate allows another frame. The debt of what was read in one go with the last is worked off
        first."""
        if self._tokens < 1.0:
            self._fill(now)
        return self._tokens >= 1.0

    def time_passed(self, now: float) -> Close | None:
        self._require_open("time")
        # The same expression as in `cloudhub.sessions.deadlines`, so that rounding cannot make the two disagree.
        if self._last_keepalive >= now - self._keepalive_interval:
            return None
        return self._close(
            CloseCode.POLICY, f"no keepalive for more than {self._keepalive_interval:g} seconds", "keepalive"
        )

    def end(self) -> None:
        """The session is over for a reason from outside: replaced, stopped, broken, its certificate expired."""
        self._state = SessionState.CLOSED

    def _close(self, code: int, reason: str, label: str) -> Close:
        self.end()
        return Close(code, reason, label)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now

    def _require_open(self, what: str) -> None:
        if self._state is not SessionState.OPEN:
            raise WrongState(f"{what} fed to a session that is {self._state}")


def asks_for_twin(message: Message) -> bool:
    """EdgeCore's deviceTwin asks for its devices, again and again until it is answered."""
    return (message.route.operation, message.route.resource) == ("get", "membership/detail")


def _control_answer(message: Message) -> Message:
    return new_message(
        source=message.route.source,
        group=message.route.group,
        resource=message.route.resource,
        operation=Operation.RESPONSE,
        content="ack",
        parent=message.header.msg_id,
    )


def may_send(route: Route, features: frozenset[Feature]) -> bool:
    """Whether a node with these features understands what is sent there. A stock node has none; an operation that it
    does not know kills an EdgeCore, so it is sent nothing but what is listed here."""
    operation = route.operation
    if features:
        required = REQUIRED_FEATURE.get(operation)  # type: ignore[call-overload]
        return required is None or required in features
    if route.group == Group.TASK_MANAGER:
        if operation in V1ALPHA2_ACTIONS:
            return route.resource.startswith(_V1ALPHA2_PREFIX)
        return operation == prepull.OPERATION and route.resource.startswith(_V1ALPHA1_PREFIX)
    return route.group == Group.RESOURCE and operation in STOCK_ANSWERS
