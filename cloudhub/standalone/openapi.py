"""OpenAPI v2 and v3 documents, as far as kubectl asks: explain, validation, apply, completion.

v3 is one document for each group and version behind an index with hashes, so that a client fetches a document again
only when it changed. v2 is one document for all. Both are generated from the built-in schemas and the installed CRDs,
when they are first asked for; a new `OpenAPIDocuments` is made when a CRD changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cloudhub.standalone import openapiproto
from cloudhub.standalone.builtin import RESOURCES
from cloudhub.standalone.definitions import GVK, META, definitions, object_fields
from cloudhub.standalone.openapipaths import ServedKind, paths_of

_TITLE: Final = "cloudhub standalone"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"


class OpenAPIDocuments:
    """The documents of a server with these CRDs."""

    def __init__(self, crds: Iterable[Mapping[str, Any]] = ()) -> None:
        self._kinds: dict[str, list[ServedKind]] = {}
        self._components: dict[str, dict[str, Any]] = dict(definitions())
        for item in RESOURCES:
            self._serve(ServedKind.of_builtin(item))
        for crd in crds:
            self._add_crd(crd)
        self._v3: dict[str, tuple[bytes, str]] = {}
        self._v2: tuple[bytes, str] | None = None
        self._v2_protobuf: tuple[bytes, str] | None = None

    def _serve(self, kind: ServedKind) -> None:
        self._kinds.setdefault(kind.path, []).append(kind)
        self._components[kind.list_definition] = kind.list_schema()

    def _add_crd(self, crd: Mapping[str, Any]) -> None:
        for version in crd["spec"]["versions"]:
            if version.get("served"):
                kind = ServedKind.of_crd(crd["spec"], version)
                self._components[kind.definition] = _custom_schema(kind, version["schema"]["openAPIV3Schema"])
                self._serve(kind)

    def v3_index(self) -> bytes:
        """JSON body of ``/openapi/v3``."""
        paths = {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._document(path)[1]}"} for path in self._kinds
        }
        return _dump({"paths": paths})

    def v3(self, group_version: str) -> tuple[bytes, str] | None:
        """JSON body and hash (ETag) for ``api/v1``, ``apis/apiextensions.k8s.io/v1``...; None: 404."""
        return self._document(group_version) if group_version in self._kinds else None

    def _document(self, path: str) -> tuple[bytes, str]:
        if path not in self._v3:
            kinds = self._kinds[path]
            wanted = [name for kind in kinds for name in (kind.definition, kind.list_definition)]
            names = _reachable(self._components, [*wanted, META + "Status", META + "DeleteOptions"])
            document = {
                "openapi": "3.0.0",
                "info": {"title": _TITLE, "version": "unversioned"},
                "paths": {url: item for kind in kinds for url, item in paths_of(kind).items()},
                "components": {"schemas": {name: _v3_schema(self._components[name]) for name in names}},
            }
            self._v3[path] = _hashed(_dump(document))
        return self._v3[path]

    def v2(self) -> tuple[bytes, str]:
        """JSON body and ETag of ``/openapi/v2``."""
        if self._v2 is None:
            self._v2 = _hashed(_dump(self._v2_document()))
        return self._v2

    def v2_protobuf(self) -> tuple[bytes, str]:
        """The same as protobuf (`openapiproto.MEDIA_TYPE`), and its ETag."""
        if self._v2_protobuf is None:
            self._v2_protobuf = _hashed(openapiproto.encode(self._v2_document()))
        return self._v2_protobuf

    def _v2_document(self) -> dict[str, Any]:
        kinds = [kind for kinds in self._kinds.values() for kind in kinds]
        return {
            "swagger": "2.0",
            "info": {"title": _TITLE, "version": "unversioned"},
            "paths": {url: item for kind in kinds for url, item in paths_of(kind, v2=True).items()},
            "definitions": {name: _v2_schema(schema) for name, schema in sorted(self._components.items())},
        }


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _hashed(body: bytes) -> tuple[bytes, str]:
    return body, hashlib.sha256(body).hexdigest().upper()


def _custom_schema(kind: ServedKind, schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {**(schema.get("properties") or {}), **object_fields()}
    gvk = [{"group": kind.group, "kind": kind.kind, "version": kind.version}]
    return {**schema, "properties": properties, GVK: gvk}


def _reachable(components: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(components[name])
    return sorted(found)


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [name for item in value.values() for name in _references(item)]


_LITERAL: Final = frozenset(("default", "enum", "example"))


def _v3_schema(schema: Any, *, names: bool = False) -> Any:
    """With references into this document, and OpenAPI's words for Kubernetes' mixed types. ``names``: the keys are
    property names, not keywords."""
    if isinstance(schema, list):
        return [_v3_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: _v3_schema(item) for key, item in schema.items()}
    if isinstance(schema.get("$ref"), str):
        return {"$ref": f"#/components/schemas/{schema['$ref']}"}
    made = {
        key: item if key in _LITERAL else _v3_schema(item, names=key == "properties") for key, item in schema.items()
    }
    if made.get(_INT_OR_STRING) is True:
        made.setdefault("oneOf", [{"type": "integer"}, {"type": "string"}])
    return made


_NOT_IN_V2: Final = frozenset(("nullable", "oneOf", "anyOf", "not"))


def _v2_schema(schema: Any, *, names: bool = False) -> Any:
    """Swagger 2 knows less: what it cannot say is left out. ``names``: the keys are property names, not keywords."""
    if isinstance(schema, list):
        return [_v2_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if not names and isinstance(schema.get("$ref"), str):
        return {"$ref": f"#/definitions/{schema['$ref']}"}
    if not names and isinstance(schema.get("allOf"), list) and "$ref" in schema["allOf"][0]:
        return {**_v2_schema(schema["allOf"][0]), "description": schema.get("description", "")}
    made: dict[str, Any] = {}
    for key, item in schema.items():
        if names:
            made[key] = _v2_schema(item)
        elif key == "allOf" or key in _NOT_IN_V2:
            continue
        elif key in _LITERAL:
            made[key] = item
        else:
            made[key] = _v2_schema(item, names=key == "properties")
    return made
