"""The paths of OpenAPI documents: which URLs a kind is served at, with which verbs and query parameters.

kubectl reads from them which kinds take dryRun and fieldValidation; nobody generates a client from them here, so
operations say what they take and give, not every status code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudhub.standalone.builtin import BuiltinResource
from cloudhub.standalone.definitions import META

_WRITE: Final = ("dryRun", "fieldManager", "fieldValidation")
_LIST: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETE: Final = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_INTEGERS: Final = frozenset(("limit", "timeoutSeconds", "gracePeriodSeconds"))
_BOOLEANS: Final = frozenset(("allowWatchBookmarks", "sendInitialEvents", "watch", "orphanDependents", "force"))
_PATCHES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)


@dataclass(frozen=True, slots=True)
class ServedKind:
    """One version of one kind, as documents name it."""

    group: str
    version: str
    kind: str
    list_kind: str
    plural: str
    namespaced: bool
    status: bool
    custom: bool
    definition: str

    @classmethod
    def of_builtin(cls, item: BuiltinResource) -> ServedKind:
        return cls(
            item.group, item.version, item.kind, item.kind + "List", item.plural, item.namespaced, item.status, False,
            item.definition,
        )  # fmt: skip

    @classmethod
    def of_crd(cls, spec: Mapping[str, Any], version: Mapping[str, Any]) -> ServedKind:
        names = spec["names"]
        reverse = ".".join(reversed(spec["group"].split(".")))
        return cls(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            list_kind=names["listKind"],
            plural=names["plural"],
            namespaced=spec["scope"] == "Namespaced",
            status="status" in (version.get("subresources") or {}),
            custom=True,
            definition=f"{reverse}.{version['name']}.{names['kind']}",
        )

    @property
    def path(self) -> str:
        return f"apis/{self.group}/{self.version}" if self.group else f"api/{self.version}"

    @property
    def list_definition(self) -> str:
        return self.definition.rpartition(".")[0] + "." + self.list_kind

    @property
    def gvk(self) -> dict[str, str]:
        return {"group": self.group, "kind": self.kind, "version": self.version}

    def list_schema(self) -> dict[str, Any]:
        return {
            "description": f"{self.list_kind} is a list of {self.kind}.",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string", "description": "The versioned schema of this representation."},
                "items": {
                    "type": "array",
                    "items": {"$ref": self.definition},
                    "description": f"List of {self.plural}.",
                },
                "kind": {"type": "string", "description": "The REST resource that this object represents."},
                "metadata": {"allOf": [{"$ref": META + "ListMeta"}], "description": "Standard list metadata."},
            },
            "x-kubernetes-group-version-kind": [{**self.gvk, "kind": self.list_kind}],
        }


def paths_of(kind: ServedKind, *, v2: bool = False) -> dict[str, Any]:
    """The path items of one kind, by URL."""
    base = f"/{kind.path}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"/{kind.path}/{kind.plural}"
    make = _Operations(kind, v2)
    found = {
        base: {
            "get": make.operation("list", kind.list_definition, _LIST),
            "post": make.operation("post", kind.definition, _WRITE, body=kind.definition),
            "delete": make.operation("deletecollection", META + "Status", (*_DELETE, *_LIST)),
            "parameters": make.place(base),
        },
        base + "/{name}": make.one(base + "/{name}", delete=True),
    }
    if kind.namespaced:
        everywhere = f"/{kind.path}/{kind.plural}"
        found[everywhere] = {"get": make.operation("list", kind.list_definition, _LIST)}
    if kind.status:
        found[base + "/{name}/status"] = make.one(base + "/{name}/status", delete=False)
    return found


class _Operations:
    def __init__(self, kind: ServedKind, v2: bool) -> None:
        self._kind, self._v2 = kind, v2

    def one(self, path: str, *, delete: bool) -> dict[str, Any]:
        """The item of a single object, or of its status."""
        definition = self._kind.definition
        item = {
            "get": self.operation("get", definition, ()),
            "put": self.operation("put", definition, _WRITE, body=definition),
            "patch": self.operation("patch", definition, (*_WRITE, "force"), body=""),
            "parameters": self.place(path),
        }
        if delete:
            item["delete"] = self.operation("delete", META + "Status", _DELETE)
        return item

    def operation(self, action: str, result: str, query: tuple[str, ...], body: str | None = None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "tags": [f"{self._kind.group or 'core'}_{self._kind.version}"],
            "operationId": f"{action}{self._kind.version}{self._kind.kind}",
            "parameters": [self._parameter(name, "query") for name in query],
            "responses": {"200": self._response(result)},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self._kind.gvk,
        }
        if body is not None:
            self._add_body(made, body)
        return made

    def place(self, path: str) -> list[dict[str, Any]]:
        return [self._parameter(name, "path") for name in ("name", "namespace") if f"{{{name}}}" in path]

    def _parameter(self, name: str, where: str) -> dict[str, Any]:
        kind = "integer" if name in _INTEGERS else "boolean" if name in _BOOLEANS else "string"
        made: dict[str, Any] = {"name": name, "in": where}
        if where == "path":
            made["required"] = True
        return {**made, "type": kind, "uniqueItems": True} if self._v2 else {**made, "schema": {"type": kind}}

    def _reference(self, definition: str) -> dict[str, Any]:
        if not definition:
            return {"type": "object"}
        return {"$ref": f"#/{'definitions' if self._v2 else 'components/schemas'}/{definition}"}

    def _response(self, definition: str) -> dict[str, Any]:
        schema = self._reference(definition)
        return {
            "description": "OK",
            **({"schema": schema} if self._v2 else {"content": {"application/json": {"schema": schema}}}),
        }

    def _add_body(self, operation: dict[str, Any], definition: str) -> None:
        schema = self._reference(definition)
        kinds = _PATCHES if not definition else ("application/json",)
        if not definition and not self._kind.custom:
            kinds = (*kinds, "application/strategic-merge-patch+json")
        if self._v2:
            operation["consumes"] = list(kinds)
            operation["parameters"].append({"name": "body", "in": "body", "required": True, "schema": schema})
        else:
            operation["requestBody"] = {"content": {kind: {"schema": schema} for kind in kinds}, "required": True}
