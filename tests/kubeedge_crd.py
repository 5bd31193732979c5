"""The definitions of ImagePrePullJob that KubeEdge's releases install, rebuilt from what is known of them.

None of them has printer columns, defaults, rules or our additions to spec and status.

- ``first``: 1.16 to 1.20, v1alpha1 alone;
- ``both``: 1.21 and later, v1alpha2 stored beside it. Its status requires ``phase``, and still knows v1alpha1's keys,
  which KubeEdge calls deprecated;
- ``later``: the same without these keys, as KubeEdge announces for its future.
"""

from __future__ import annotations

from typing import Any, Final, Literal

Edition = Literal["first", "both", "later"]
EDITIONS: Final[tuple[Edition, ...]] = ("first", "both", "later")

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_NUMBER: Final = {"type": "integer", "format": "int32"}


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def _objects(**properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


_REQUIREMENT: Final = _object({"key": _TEXT, "operator": _TEXT, "values": _TEXTS}, required=["key", "operator"])
_TEMPLATE: Final = _object(
    {
        "images": _TEXTS,
        "nodeNames": _TEXTS,
        "labelSelector": _object(
            {
                "matchLabels": {"type": "object", "additionalProperties": _TEXT},
                "matchExpressions": {"type": "array", "items": _REQUIREMENT},
            }
        ),
        "checkItems": _TEXTS,
        "failureTolerate": _TEXT,
        "concurrency": _NUMBER,
        "timeoutSeconds": _NUMBER,
        "imageSecrets": _TEXT,
        "retryTimes": _NUMBER,
    }
)
_FIRST_KEYS: Final = {
    "state": _TEXT,
    "event": _TEXT,
    "action": _TEXT,
    "reason": _TEXT,
    "time": _TEXT,
    "status": _objects(
        nodeStatus=_object(dict.fromkeys(("nodeName", "state", "event", "action", "reason", "time"), _TEXT)),
        imageStatus=_objects(image=_TEXT, state=_TEXT, reason=_TEXT),
    ),
}
_LATER_KEYS: Final = {
    "phase": _TEXT,
    "reason": _TEXT,
    "nodeStatus": _objects(
        nodeName=_TEXT,
        phase=_TEXT,
        reason=_TEXT,
        actionFlow=_objects(action=_TEXT, status=_TEXT, reason=_TEXT, time=_TEXT),
        imageStatus=_objects(image=_TEXT, status=_TEXT, reason=_TEXT),
    ),
}


def _version(name: str, status: dict[str, Any], *, stored: bool) -> dict[str, Any]:
    properties = {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "spec": _object({"imagePrePullTemplate": _TEMPLATE}),
        "status": status,
    }
    return {
        "name": name,
        "served": True,
        "storage": stored,
        "schema": {"openAPIV3Schema": _object(properties, required=["spec"])},
        "subresources": {"status": {}},
    }


def kubeedge_crd(edition: Edition = "both") -> dict[str, Any]:
    versions = [_version("v1alpha1", _object(_FIRST_KEYS), stored=edition == "first")]
    if edition != "first":
        keys = {**_LATER_KEYS, **_FIRST_KEYS} if edition == "both" else _LATER_KEYS
        versions.append(_version("v1alpha2", _object(keys, required=["phase"]), stored=True))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "imageprepulljobs.operations.kubeedge.io",
            "annotations": {"controller-gen.kubebuilder.io/version": "v0.17.3"},
        },
        "spec": {
            "group": "operations.kubeedge.io",
            "scope": "Cluster",
            "names": {
                "kind": "ImagePrePullJob",
                "listKind": "ImagePrePullJobList",
                "plural": "imageprepulljobs",
                "singular": "imageprepulljob",
            },
            "versions": versions,
        },
    }
