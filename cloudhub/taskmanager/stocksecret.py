"""A job's Secret as stock nodes are given it: one object for kubelet's eyes and for EdgeCore's. Pure.

EdgeCore takes the value of ``.dockerconfigjson`` for its runtime's AuthConfig: the flat keys ``username``,
``password``, ``identity_token``, ``server_address``. It knows nothing of ``auths``, as kubectl writes it, which kubelet
and our agents read. Both can stand in one document. The flat keys have room for one registry: that of the part of the
job that the node is at. `server_address` binds them to it, so that a runtime that minds it sends them nowhere else.

Of the Secret there are only the credentials for the job's images.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cloudhub.taskmanager.parts import Credentials, Part
from cloudhub.taskmanager.spec import SecretName
from shared.wire import Group, Message, Operation, Source, new_message

_FIRST: Final = "1"


class SecretVersion(NamedTuple):
    """Which Secret the credentials were read from; EdgeCore wants both of any object that it keeps."""

    uid: str
    resource_version: str


NO_VERSION: Final = SecretVersion("", "")


def secret_message(
    name: SecretName,
    version: SecretVersion,
    *,
    credentials: Credentials,
    part: Part | None,
    operation: Operation,
    parent: str = "",
) -> Message:
    """``operation`` is ``response`` to a question, whose id is ``parent``, or ``update``."""
    return new_message(
        source=Source.EDGE_CONTROLLER,
        group=Group.RESOURCE,
        resource=f"{name.namespace}/secret/{name.name}",
        operation=operation,
        content=_secret(name, version, credentials, part),
        parent=parent,
        resourceversion=version.resource_version or _FIRST,
    )


def _secret(name: SecretName, version: SecretVersion, credentials: Credentials, part: Part | None) -> dict[str, Any]:
    document = {
        "auths": {found["registry"]: _auth(found) for found in credentials.values()},
        **(part.flat if part is not None else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name.name,
            "namespace": name.namespace,
            "uid": version.uid,
            "resourceVersion": version.resource_version or _FIRST,
        },
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()},
    }


def _auth(found: Mapping[str, str]) -> dict[str, str]:
    entry = {key: found[key] for key in ("username", "password") if key in found}
    if entry:
        pair = f"{entry.get('username', '')}:{entry.get('password', '')}"
        entry["auth"] = base64.b64encode(pair.encode()).decode()
    if "identity_token" in found:
        entry["identitytoken"] = found["identity_token"]
    return entry
