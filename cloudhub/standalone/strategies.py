"""What the server itself sets in an object, by kind, before it is validated and kept.

The rules of Kubernetes' registry strategies for our kinds: identity and times in metadata, the generation, which half
of an object an endpoint may write, and what each kind gets (a Namespace its phase, a CustomResourceDefinition its
conditions); what depends on the object alone stands in `cloudhub.standalone.kinds`. Pure but for the random uid and
suffix of generateName.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cloudhub.standalone import crdstatus
from cloudhub.standalone.resources import Resource

CRD_FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5
_MAX_GENERATED: Final = 63
# Metadata that only the server writes. managedFields are handled where the writer is known.
_SERVER_METADATA: Final = ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "uid")


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generate_name(prefix: str) -> str:
    suffix = "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))
    return prefix[: _MAX_GENERATED - _SUFFIX_LENGTH] + suffix


def prepare_create(resource: Resource, obj: dict[str, Any], *, namespace: str, now: str) -> None:
    metadata = obj["metadata"]
    for name in (*_SERVER_METADATA, "selfLink", "generation", "resourceVersion"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = now
    if resource.counts_generation:
        metadata["generation"] = 1
    if resource.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if resource.custom and resource.status:
        obj.pop("status", None)
    _prepare_kind(resource, obj, None, now)


def prepare_update(resource: Resource, new: dict[str, Any], live: Mapping[str, Any], *, status: bool, now: str) -> None:
    """``new`` as the writer wants it, made into what this endpoint may do to ``live``."""
    _keep_server_metadata(new["metadata"], live["metadata"])
    if status:
        _keep_all_but_status(new, live)
    elif resource.status:
        _keep(new, live, "status")
    _prepare_kind(resource, new, live, now)
    if resource.counts_generation and not status and _spec_changed(resource, new, live):
        new["metadata"]["generation"] = live["metadata"].get("generation", 1) + 1


def mark_deleted(obj: dict[str, Any], now: str) -> None:
    """The object is to go when its finalizers are done."""
    metadata = obj["metadata"]
    metadata["deletionTimestamp"] = now
    metadata["deletionGracePeriodSeconds"] = 0
    if "generation" in metadata:
        metadata["generation"] += 1


def _keep_server_metadata(metadata: dict[str, Any], live: Mapping[str, Any]) -> None:
    metadata.pop("selfLink", None)
    for name in (*_SERVER_METADATA, "generation", "namespace", "resourceVersion", "generateName"):
        if name in live:
            metadata[name] = live[name]
        else:
            metadata.pop(name, None)


def _keep_all_but_status(new: dict[str, Any], live: Mapping[str, Any]) -> None:
    """The status endpoint writes the status. managedFields are set later, from what it changed."""
    for name in [*new, *live]:
        if name not in ("status", "metadata"):
            _keep(new, live, name)
    new["metadata"] = dict(live["metadata"])


def _keep(new: dict[str, Any], live: Mapping[str, Any], name: str) -> None:
    if name in live:
        new[name] = live[name]
    else:
        new.pop(name, None)


def _spec_changed(resource: Resource, new: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    ignored = {"metadata", "status"} if resource.status else {"metadata"}
    return any(new.get(name) != live.get(name) for name in {*new, *live} - ignored)


def _prepare_kind(resource: Resource, obj: dict[str, Any], live: Mapping[str, Any] | None, now: str) -> None:
    if resource.custom:
        return
    match resource.kind:
        case "Namespace":
            _prepare_namespace(obj, live)
        case "CustomResourceDefinition":
            crdstatus.prepare(obj, live, now)


def _prepare_namespace(obj: dict[str, Any], live: Mapping[str, Any] | None) -> None:
    if live is None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    else:
        # spec.finalizers are written through the finalize subresource in a cluster: never here.
        _keep(obj, live, "spec")
