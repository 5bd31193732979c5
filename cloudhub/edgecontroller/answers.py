"""How KubeEdge words what a kubelet wants through it, and what its client reads out of an answer.

A question is a message of group ``meta`` whose resource is ``<namespace>/<kind>/<name>``; Nodes have the namespace
``null``. To writes, and to whatever is about a Lease, the answer is ``{"Object": ..., "Err": ...}`` with operation
``response``: of the two one is null, and ``Err`` is ``{"ErrStatus": <metav1.Status>}``, from which the kubelet tells
'there is one already' from 'there is none' and goes on accordingly. A queried Node is the plain object, for EdgeCore
keeps what comes; so an error there must not look like one, and has operation ``error``. The older status report is
answered with ``OK``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from cloudhub.edgecontroller.rules import LEASE_NAMESPACE, Refused
from cloudhub.kube.errors import Conflict
from cloudhub.taskmanager.ports import Forbidden, KubeError, NotFound, Rejected
from shared.wire import Group, Message, Operation, Source, new_message

_RESOURCE: Final = re.compile(r"(?P<namespace>[-a-z0-9]{1,63})/(?P<kind>[a-z]{1,32})/(?P<name>[^/]{1,253})")
_MAX_TEXT: Final = 1000


class Asked(StrEnum):
    """What is served: kind and operation."""

    NODE_INSERT = "node insert"
    NODE_QUERY = "node query"
    NODE_PATCH = "nodepatch patch"
    LEASE_QUERY = "lease query"
    LEASE_INSERT = "lease insert"
    LEASE_UPDATE = "lease update"
    STATUS_INSERT = "nodestatus insert"
    STATUS_UPDATE = "nodestatus update"


_ASKED: Final = {str(asked): asked for asked in Asked}
_OF_LEASES: Final = frozenset({Asked.LEASE_QUERY, Asked.LEASE_INSERT, Asked.LEASE_UPDATE})
_LEGACY: Final = frozenset({Asked.STATUS_INSERT, Asked.STATUS_UPDATE})


@dataclass(frozen=True, slots=True)
class Question:
    asked: Asked
    name: str
    message: Message

    @property
    def kind(self) -> str:
        return "Lease" if self.asked in _OF_LEASES else "Node"


def question_of(message: Message) -> Question | None:
    """None when it is none of what is served here."""
    route = message.route
    if route.group != Group.META:
        return None
    match = _RESOURCE.fullmatch(route.resource)
    asked = _ASKED.get(f"{match['kind']} {route.operation}") if match is not None else None
    if match is None or asked is None or (asked in _OF_LEASES) != (match["namespace"] == LEASE_NAMESPACE):
        return None
    return Question(asked, match["name"], message)


def answer(question: Question, found: dict[str, Any]) -> Message:
    """``found`` is the object as the API holds it now."""
    content: Any = {"Object": found, "Err": None}
    if question.asked in _LEGACY:
        content = "OK"
    elif question.asked is Asked.NODE_QUERY:
        content = found
    version = str((found.get("metadata") or {}).get("resourceVersion") or "")
    return _message(question, Operation.RESPONSE, content, version)


def refusal(question: Question, error: Refused | KubeError) -> Message:
    text = str(error)[:_MAX_TEXT]
    if question.asked in _LEGACY or question.asked is Asked.NODE_QUERY:
        return _message(question, Operation.ERROR, text)
    code, reason = _class_of(question, error)
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": text,
        "reason": reason,
        "details": {"name": question.name, "kind": "leases" if question.kind == "Lease" else "nodes"},
        "code": code,
    }
    return _message(question, Operation.RESPONSE, {"Object": None, "Err": {"ErrStatus": status}})


def _class_of(question: Question, error: Refused | KubeError) -> tuple[int, str]:
    match error:
        case Refused():
            return error.code, error.reason
        case NotFound():
            return 404, "NotFound"
        case Forbidden():
            return 403, "Forbidden"
        case Conflict():
            return 409, "AlreadyExists" if question.message.route.operation == "insert" else "Conflict"
        case Rejected():
            return 422, "Invalid"
        case _:
            return 503, "ServiceUnavailable"


def _message(question: Question, operation: Operation, content: Any, version: str = "") -> Message:
    return new_message(
        source=Source.EDGE_CONTROLLER,
        group=Group.RESOURCE,
        resource=question.message.route.resource,
        operation=operation,
        content=content,
        parent=question.message.header.msg_id,
        resourceversion=version,
    )
