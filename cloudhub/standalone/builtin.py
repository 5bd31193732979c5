"""The built-in kinds and their schemas."""

from __future__ import annotations

from dataclasses import dataclass

from cloudhub.standalone.schema import ResourceSchema


@dataclass(frozen=True, slots=True)
class BuiltinResource:
    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    """Has a status subresource."""


RESOURCES: tuple[BuiltinResource, ...] = (
    BuiltinResource("", "v1", "Namespace", "namespaces", "namespace", False, ("ns",), (), True),
    BuiltinResource("", "v1", "Node", "nodes", "node", False, ("no",), (), True),
    BuiltinResource("", "v1", "Secret", "secrets", "secret", True),
    BuiltinResource("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",)),
    BuiltinResource("", "v1", "Event", "events", "event", True, ("ev",)),
    BuiltinResource("events.k8s.io", "v1", "Event", "events", "event", True, ("ev",)),
    BuiltinResource("coordination.k8s.io", "v1", "Lease", "leases", "lease", True),
    BuiltinResource(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
        "customresourcedefinition", False, ("crd", "crds"), ("api-extensions",), True,
    ),
)  # fmt: skip
"""events.k8s.io/v1 serves the same stored events as core v1 (kubectl describe and get events use core v1)."""


def schema_of(group: str, version: str, kind: str) -> ResourceSchema:
    """The compiled schema of a built-in kind; KeyError if there is none."""
    raise NotImplementedError
