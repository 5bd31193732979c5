"""What an EdgeCore asks its hub for besides tasks, and the answers: the Secret of a task that it runs, else an error.

EdgeCore asks through its session for objects that CloudCore's edgeController would serve: Secrets, Nodes, Leases,
ConfigMaps and more (group ``meta``, source ``edged`` and others; facts: KubeEdge's ``edge/pkg/metamanager/client``). It
waits a minute for each answer and asks up to three times, so no question is left without one: an answer with operation
``error`` and a text ends it at once, and, unlike an error in the shape of an object, is never kept as if it were one.

Guarantee: a Secret goes out only while the asking node, by its certificate, runs a task of a job that names this very
Secret; and of it only the credentials for that job's images. Its ``.dockerconfigjson`` has ``auths``, as kubelet and
our own agents read it, and beside it the flat keys that EdgeCore reads as its runtime's AuthConfig; ``auths`` it does
not know. These have room for one registry: that of the first image with a credential, and ``server_address`` binds
them to it.

Not here: anything else that edgeController does.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from cloudhub.taskmanager.ports import SessionInfo, Sessions
from shared.images import parse_reference
from shared.wire import Group, Message, Operation, Source, new_message

log = structlog.get_logger(__name__)

ASKING: Final = frozenset({"query", "insert", "update", "patch", "delete"})
_SECRET = re.compile(r"(?P<namespace>[a-z0-9][-a-z0-9]{0,62})/secret/(?P<name>[a-z0-9][-.a-z0-9]{0,252})")

Credentials = Mapping[str, Mapping[str, str]]
"""By image: the fields of a `shared.wire.Credential` that are not empty."""
FindCredentials = Callable[[str, str, str], tuple[str, Credentials] | None]
"""Node, namespace and name to an id of the Secret's use, and the credentials; None when the node may not have it."""


class Queries:
    """A `cloudhub.taskmanager.ports.SessionListener`. ``find`` is None where no tasks are served."""

    def __init__(self, *, sessions: Sessions, find: FindCredentials | None) -> None:
        self._sessions = sessions
        self._find = find

    def session_opened(self, session: SessionInfo) -> None:
        return

    def session_closed(self, session: SessionInfo) -> None:
        return

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.route.group == Group.META and message.route.operation in ASKING:
                self._sessions.send(session.node, self._answer(session.node, message))

    def _answer(self, node: str, query: Message) -> Message:
        route = query.route
        match = _SECRET.fullmatch(route.resource) if route.operation == Operation.QUERY else None
        if match is None:
            log.debug("query not served", node=node, operation=route.operation[:32], resource=route.resource[:128])
            return _error(query, f"cloudhub does not serve {route.operation} of {route.resource[:256]}")
        found = self._find(node, match["namespace"], match["name"]) if self._find is not None else None
        if found is None:
            log.warning("secret refused", node=node, secret=route.resource[:320])
            return _error(query, f"secret {match['namespace']}/{match['name']} is of no task that this node runs")
        log.info("secret sent", node=node, secret=route.resource)
        uid, credentials = found
        return new_message(
            source=Source.EDGE_CONTROLLER,
            group=Group.RESOURCE,
            resource=route.resource,
            operation=Operation.RESPONSE,
            content=_secret(match["namespace"], match["name"], uid, credentials),
            parent=query.header.msg_id,
            resourceversion="1",
        )


def _error(query: Message, text: str) -> Message:
    return new_message(
        source=Source.EDGE_CONTROLLER,
        group=Group.RESOURCE,
        resource=query.route.resource,
        operation=Operation.ERROR,
        content=text,
        parent=query.header.msg_id,
    )


def _secret(namespace: str, name: str, uid: str, credentials: Credentials) -> dict[str, Any]:
    document = json.dumps(_docker_config(credentials)).encode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": "1"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(document).decode()},
    }


def _docker_config(credentials: Credentials) -> dict[str, Any]:
    document: dict[str, Any] = {"auths": {found["registry"]: _auth(found) for found in credentials.values()}}
    for image, found in credentials.items():
        # A URL: containerd takes an address without a scheme for one without a host, and sends nothing.
        document["server_address"] = f"https://{parse_reference(image).api_host}"
        document |= {key: found[key] for key in ("username", "password", "identity_token") if key in found}
        break
    return document


def _auth(found: Mapping[str, str]) -> dict[str, str]:
    entry = {key: found[key] for key in ("username", "password") if key in found}
    if entry:
        pair = f"{entry.get('username', '')}:{entry.get('password', '')}"
        entry["auth"] = base64.b64encode(pair.encode()).decode()
    if "identity_token" in found:
        entry["identitytoken"] = found["identity_token"]
    return entry
