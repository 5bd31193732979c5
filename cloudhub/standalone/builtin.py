"""The built-in kinds: how they are served, and their compiled schemas."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from cloudhub.standalone.definitions import CORE, EVENTS_V1, EXTENSIONS, resolved
from cloudhub.standalone.kinds import defaults_of, faults_of
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
    definition: str = ""
    """Name of its schema in OpenAPI documents."""

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES: Final[tuple[BuiltinResource, ...]] = (
    BuiltinResource("", "v1", "Namespace", "namespaces", "namespace", False, ("ns",), (), True, CORE + "Namespace"),
    BuiltinResource("", "v1", "Node", "nodes", "node", False, ("no",), (), True, CORE + "Node"),
    BuiltinResource("", "v1", "Secret", "secrets", "secret", True, definition=CORE + "Secret"),
    BuiltinResource("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",), definition=CORE + "ConfigMap"),
    BuiltinResource("", "v1", "Event", "events", "event", True, ("ev",), definition=CORE + "Event"),
    BuiltinResource("events.k8s.io", "v1", "Event", "events", "event", True, ("ev",), definition=EVENTS_V1),
    BuiltinResource(
        "coordination.k8s.io", "v1", "Lease", "leases", "lease", True, definition="io.k8s.api.coordination.v1.Lease"
    ),
    BuiltinResource(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
        False,
        ("crd", "crds"),
        ("api-extensions",),
        True,
        EXTENSIONS + "CustomResourceDefinition",
    ),
)


@functools.cache
def schema_of(group: str, version: str, kind: str) -> ResourceSchema:
    """The compiled schema of a built-in kind; KeyError if there is none."""
    for item in RESOURCES:
        if (item.group, item.version, item.kind) == (group, version, kind):
            return ResourceSchema(
                resolved(item.definition),
                group=group,
                version=version,
                kind=kind,
                core=True,
                defaults=defaults_of(kind if group != "events.k8s.io" else ""),
                faults=faults_of(kind if group != "events.k8s.io" else ""),
            )
    raise KeyError(f"{group}/{version} {kind}")
