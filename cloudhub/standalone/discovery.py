"""What the server has: the discovery documents, plain and aggregated, and its version.

kubectl 1.37 asks for the aggregated form by Accept header and takes the plain one from older servers; both are made
from the catalog at each request, so a CustomResourceDefinition shows as soon as it is committed.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from typing import Any, Final

from cloudhub.standalone.media import parse_accept
from cloudhub.standalone.resources import STATUS_VERBS, Catalog, Resource, dump

MAJOR: Final = "1"
MINOR: Final = "37"
GIT_VERSION: Final = f"v{MAJOR}.{MINOR}.0+cloudhub.standalone"
_AGGREGATED: Final = ("v2", "v2beta1")


def version_document() -> dict[str, Any]:
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{platform.machine()}",
    }


def wants_aggregated(accept: str) -> str | None:
    """The version of apidiscovery.k8s.io that is asked for before plain JSON."""
    for accepted in parse_accept(accept):
        parameters = accepted.parameters
        if accepted.media_type not in ("application/json", "*/*", "application/*"):
            continue
        if parameters.get("as") != "APIGroupDiscoveryList":
            return None
        if parameters.get("g") == "apidiscovery.k8s.io" and parameters.get("v") in _AGGREGATED:
            return parameters["v"]
    return None


def aggregated_type(version: str) -> str:
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def etag(body: bytes) -> str:
    return f'"{hashlib.sha512(body).hexdigest().upper()[:64]}"'


def aggregated(catalog: Catalog, *, core: bool, version: str) -> bytes:
    """``core``: of ``/api``; else of ``/apis``."""
    groups = {group: versions for group, versions in catalog.groups().items() if (group == "") is core}
    return dump(
        {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": [_group_discovery(group, versions) for group, versions in groups.items()],
        }
    )


def _group_discovery(group: str, versions: dict[str, list[Resource]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"creationTimestamp": None}
    if group:
        metadata["name"] = group
    return {
        "metadata": metadata,
        "versions": [
            {
                "version": version,
                "resources": [_resource_discovery(resource) for resource in resources],
                "freshness": "Current",
            }
            for version, resources in versions.items()
        ],
    }


def _resource_discovery(resource: Resource) -> dict[str, Any]:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    document: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        document["shortNames"] = list(resource.short_names)
    if resource.categories:
        document["categories"] = list(resource.categories)
    if resource.status:
        document["subresources"] = [
            {"subresource": "status", "responseKind": kind, "verbs": list(STATUS_VERBS)},
        ]
    return document


def api_versions(address: str) -> dict[str, Any]:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(catalog: Catalog) -> dict[str, Any]:
    groups = [api_group(catalog, group) for group in catalog.groups() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(catalog: Catalog, group: str) -> dict[str, Any] | None:
    versions = catalog.groups().get(group)
    if versions is None or not group:
        return None
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": listed,
        "preferredVersion": listed[0],
    }


def resource_list(catalog: Catalog, group: str, version: str) -> dict[str, Any] | None:
    resources = catalog.groups().get(group, {}).get(version)
    if resources is None:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for resource in resources for entry in _entries(resource)],
    }


def _entries(resource: Resource) -> Iterable[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    yield entry
    if resource.status:
        yield {
            "name": f"{resource.plural}/status",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(STATUS_VERBS),
        }


def root_paths(catalog: Catalog) -> dict[str, Any]:
    paths = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
    for group, versions in catalog.groups().items():
        if group:
            paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
    return {"paths": sorted(paths)}
