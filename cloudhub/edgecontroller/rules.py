"""What a node may write of its Node and its Lease: checked, and cut down to that, before anything goes to the API.

The API server sees the hub's account, which may write every Node; its own check of what a kubelet may do (the admission
plugin NodeRestriction) never runs. So its spirit is kept here: a node writes the Node and the Lease of its own name
and no other. Registering it says labels, annotations, taints and whether pods may be scheduled, but no labels that
Kubernetes keeps for others (`node-role.kubernetes.io/...` but KubeEdge's two, `node-restriction.kubernetes.io/...`).
After that it writes its status alone: whatever else stands in a patch is left out, as the API server does with the
spec in a write of the status.

Not checked is what only concerns the node itself and the API server checks: the form of quantities, conditions, times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import PydanticSerializationError, from_json, to_json

from shared.jobs import EDGE_LABEL

MAX_BYTES: Final = 256 * 1024
"""Of one object or patch; a kubelet's Node with the 50 images that it lists has some 30 KB."""
MAX_NAMES: Final = 64
"""Labels or annotations of one Node."""
LEASE_NAMESPACE: Final = "kube-node-lease"
OURS: Final = "cloudhub.kubeedge.io/"
"""Prefix of annotations by which the hub knows what is its own."""

_ROLES: Final = frozenset({EDGE_LABEL, "node-role.kubernetes.io/agent"})
_KUBELET_LABELS: Final = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_KUBELET_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_LEASE_SPEC: Final = ("acquireTime", "holderIdentity", "leaseDurationSeconds", "leaseTransitions", "renewTime")


class Refused(Exception):
    """With the code and reason that the API server would give; the text is safe to show."""

    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


def own(node: str, name: str, what: str) -> None:
    """Raises `Refused` unless ``name`` is the node's own."""
    if name != node:
        raise Refused(403, "Forbidden", f"node {node} may not touch {what} {name[:253]}: only its own")


def new_node(node: str, content: Any) -> dict[str, Any]:
    """The Node that is made of what a kubelet registers with."""
    given = _document(content, "Node")
    about = _part(given, "metadata")
    own(node, str(about.get("name") or node), "Node")
    labels = _texts(about, "labels")
    refused = sorted(key for key, value in labels.items() if not _may_set(key, value))
    if refused:
        shown = ", ".join(key[:64] for key in refused[:5])
        raise Refused(403, "Forbidden", f"node {node} may not set these labels on its Node: {shown}")
    annotations = {key: value for key, value in _texts(about, "annotations").items() if not key.startswith(OURS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "labels": labels, "annotations": annotations},
        "spec": _node_spec(_part(given, "spec")),
        "status": dict(_part(given, "status")),
    }


def status_patch(node: str, content: Any) -> dict[str, Any]:
    """The strategic merge patch of a Node's status that is left of a kubelet's."""
    given = _document(content, "patch")
    about = _part(given, "metadata")
    own(node, str(about.get("name") or node), "Node")
    patch: dict[str, Any] = {"status": dict(_part(given, "status"))}
    kept = _preconditions(about)
    return patch | ({"metadata": kept} if kept else {})


def lease(node: str, content: Any, *, new: bool) -> dict[str, Any]:
    """The Lease that a node makes or renews."""
    given = _document(content, "Lease")
    about, spec = _part(given, "metadata"), _part(given, "spec")
    own(node, str(about.get("name") or node), "Lease")
    if about.get("namespace") not in (None, "", LEASE_NAMESPACE):
        raise Refused(403, "Forbidden", f"node {node} may only have a Lease in namespace {LEASE_NAMESPACE}")
    if spec.get("holderIdentity") not in (None, node):
        raise Refused(403, "Forbidden", f"node {node} may hold no Lease for another")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node,
            "namespace": LEASE_NAMESPACE,
            **({} if new else _preconditions(about)),
            **_owner(node, about.get("ownerReferences")),
        },
        "spec": {key: spec[key] for key in _LEASE_SPEC if spec.get(key) is not None},
    }


def legacy_status(content: Any) -> dict[str, Any]:
    """The merge patch of KubeEdge's older status report, which has Go's names. The attached volumes are the
    controller's to say."""
    given = _document(content, "status")
    status = next((value for key, value in given.items() if key.lower() == "status"), None)
    if not isinstance(status, dict):
        raise Refused(400, "BadRequest", "the status report has no status")
    return {"status": {key: value for key, value in status.items() if key != "volumesAttached"}}


# --- Parts ----------------------------------------------------------------------------------------------------


def _document(content: Any, what: str) -> Mapping[str, Any]:
    """A Go string is taken as the bytes of the document, as KubeEdge does."""
    try:
        size = len(content.encode()) if isinstance(content, str) else len(to_json(content))
        document = from_json(content) if isinstance(content, str) and size <= MAX_BYTES else content
    except (ValueError, PydanticSerializationError):
        raise Refused(400, "BadRequest", f"the {what} is no JSON") from None
    if size > MAX_BYTES:
        raise Refused(413, "RequestEntityTooLarge", f"the {what} has {size} bytes, more than {MAX_BYTES}")
    if not isinstance(document, dict):
        raise Refused(400, "BadRequest", f"the {what} is no JSON object")
    return document


def _part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = document.get(key)
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise Refused(400, "BadRequest", f"{key} is no JSON object")
    return part


def _texts(about: Mapping[str, Any], key: str) -> dict[str, str]:
    given = _part(about, key)
    if len(given) > MAX_NAMES or not all(isinstance(value, str) for value in given.values()):
        raise Refused(400, "BadRequest", f"metadata.{key} is no map of at most {MAX_NAMES} texts")
    return dict(given)


def _may_set(label: str, value: str) -> bool:
    domain = label.partition("/")[0] if "/" in label else ""
    if not _within(domain, "kubernetes.io") and not _within(domain, "k8s.io"):
        return True
    if label in _ROLES:
        return value == ""
    return label in _KUBELET_LABELS or any(_within(domain, known) for known in _KUBELET_DOMAINS)


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


def _node_spec(given: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if isinstance(given.get("taints"), list):
        kept["taints"] = given["taints"]
    if given.get("unschedulable") is True:
        kept["unschedulable"] = True
    if isinstance(given.get("providerID"), str) and given["providerID"]:
        kept["providerID"] = given["providerID"]
    return kept


def _preconditions(about: Mapping[str, Any]) -> dict[str, str]:
    """By these the API server refuses a write that is meant for another version, or another object of this name."""
    return {key: about[key] for key in ("resourceVersion", "uid") if isinstance(about.get(key), str) and about[key]}


def _owner(node: str, references: Any) -> dict[str, Any]:
    """A Lease goes with its Node; other owners are none of a node's business."""
    kept = [
        {"apiVersion": "v1", "kind": "Node", "name": node, "uid": reference["uid"]}
        for reference in (references if isinstance(references, list) else [])
        if isinstance(reference, dict)
        and (reference.get("apiVersion"), reference.get("kind"), reference.get("name")) == ("v1", "Node", node)
        and isinstance(reference.get("uid"), str)
    ]
    return {"ownerReferences": kept[:1]} if kept else {}
