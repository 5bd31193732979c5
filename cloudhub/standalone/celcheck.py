"""What a rule gets wrong, found before it is ever evaluated: unknown variables, functions and fields.

Types are followed along ``self``, ``oldSelf``, their fields and the variables of macros, as far as the schema says.
Where it says nothing, nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celpy.evaluation import base_functions
from lark import Token, Tree

from cloudhub.standalone.cellib import FUNCTIONS
from cloudhub.standalone.celvalues import escape

Schema = Mapping[str, Any]
_MACROS: Final = frozenset(("all", "exists", "exists_one", "map", "filter"))
_TYPE_NAMES: Final = frozenset(
    ("bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "type", "uint")
)
_KNOWN: Final = (frozenset(base_functions) | frozenset(FUNCTIONS) | {"dyn"}) - {"_[_]"}
_METADATA: Final[Schema] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
}


class InvalidRule(ValueError):
    """The rule does not compile; the text says where and why."""


def parse_error(rule: str, line: int, column: int, problem: str) -> str:
    """As CEL's own compiler reports: place, problem, the line, and a mark below it."""
    lines = rule.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1][:256]
    return f"ERROR: <input>:{line}:{column}: {problem}\n | {shown}\n | {'.' * max(column - 1, 0)}^"


def check(tree: Any, rule: str, schema: Schema) -> bool:
    """Whether the rule speaks of ``oldSelf``. Raises `InvalidRule`."""
    checker = _Checker(rule)
    root = _with_metadata(schema)
    kind = checker.visit(tree, {"self": root, "oldSelf": root})
    if kind is not None and kind.get("type") not in (None, "boolean"):
        raise InvalidRule(f"ERROR: <input>:1:1: cel expression must evaluate to a bool, not {kind['type']}")
    return checker.old_self


def _with_metadata(schema: Schema) -> Schema:
    """At the root and in embedded resources, apiVersion, kind and metadata's names can be used."""
    properties = schema.get("properties") or {}
    if schema.get("x-kubernetes-embedded-resource") or {"metadata", "apiVersion", "kind"} <= properties.keys():
        whole = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _METADATA}
        return {**schema, "properties": {**properties, **whole}}
    return schema


class _Checker:
    def __init__(self, rule: str) -> None:
        self._rule = rule
        self.old_self = False

    def visit(self, node: Any, scope: Mapping[str, Schema | None]) -> Schema | None:
        """The schema of what ``node`` evaluates to, None where that is not known."""
        if isinstance(node, Token):
            return None
        match node.data:
            case "ident":
                return self._variable(node.children[0], scope)
            case "member_dot":
                return self._field(node, scope)
            case "member_dot_arg":
                return self._method(node, scope)
            case "ident_arg":
                return self._function(node, scope)
            case "member_index":
                return self._item(node, scope)
        kinds = [self.visit(child, scope) for child in node.children]
        # A node with one child is a level of precedence that the expression does not use.
        return kinds[0] if len(kinds) == 1 and isinstance(node.children[0], Tree) else None

    def _fail(self, at: Token, problem: str) -> InvalidRule:
        return InvalidRule(parse_error(self._rule, at.line or 1, at.column or 1, problem))

    def _variable(self, name: Token, scope: Mapping[str, Schema | None]) -> Schema | None:
        if name == "oldSelf":
            self.old_self = True
        if name in scope:
            return scope[name]
        if name in _TYPE_NAMES:
            return None
        raise self._fail(name, f"undeclared reference to '{name}' (in container '')")

    def _field(self, node: Any, scope: Mapping[str, Schema | None]) -> Schema | None:
        owner, name = self.visit(node.children[0], scope), node.children[1]
        if owner is None or owner.get("type") not in ("object", None):
            if owner is not None:
                raise self._fail(name, f"type '{owner.get('type')}' does not support field selection")
            return None
        for key, child in (owner.get("properties") or {}).items():
            if escape(key) == name:
                return _known(child)
        additional = owner.get("additionalProperties")
        if isinstance(additional, Mapping):
            return _known(additional)
        if additional or owner.get("type") is None:
            return None
        raise self._fail(name, f"undefined field '{name}'")

    def _method(self, node: Any, scope: Mapping[str, Schema | None]) -> Schema | None:
        owner, name = self.visit(node.children[0], scope), node.children[1]
        arguments = node.children[2].children if len(node.children) > 2 else []
        if name in _MACROS:
            return self._macro(name, owner, arguments, scope)
        if name not in _KNOWN:
            raise self._fail(name, f"undeclared reference to '{name}' (in container '')")
        for argument in arguments:
            self.visit(argument, scope)
        return None

    def _macro(
        self, name: Token, owner: Schema | None, arguments: list[Any], scope: Mapping[str, Schema | None]
    ) -> Schema | None:
        variable = _lone_identifier(arguments[0]) if arguments else None
        if variable is None or len(arguments) not in ((2, 3) if name == "map" else (2,)):
            raise self._fail(name, f"'{name}' takes a variable name and an expression")
        items = owner.get("items") if owner is not None and owner.get("type") == "array" else None
        for argument in arguments[1:]:
            self.visit(argument, {**scope, str(variable): _known(items) if isinstance(items, Mapping) else None})
        return owner if name == "filter" else None

    def _function(self, node: Any, scope: Mapping[str, Schema | None]) -> Schema | None:
        name = node.children[0]
        arguments = node.children[1].children if len(node.children) > 1 else []
        if name == "has":
            if len(arguments) != 1 or not _is_selection(arguments[0]):
                raise self._fail(name, "invalid argument to has() macro")
        elif name not in _KNOWN:
            raise self._fail(name, f"undeclared reference to '{name}' (in container '')")
        for argument in arguments:
            self.visit(argument, scope)
        return None

    def _item(self, node: Any, scope: Mapping[str, Schema | None]) -> Schema | None:
        owner = self.visit(node.children[0], scope)
        self.visit(node.children[1], scope)
        found = (owner or {}).get("items") or (owner or {}).get("additionalProperties")
        return _known(found) if isinstance(found, Mapping) else None


def _known(schema: Schema) -> Schema | None:
    """A schema whose values have one type; of others nothing is said."""
    return _with_metadata(schema) if "type" in schema else None


def _down(node: Any) -> Any:
    while isinstance(node, Tree) and len(node.children) == 1 and node.data not in ("ident", "literal", "paren_expr"):
        node = node.children[0]
    return node


def _lone_identifier(node: Any) -> Token | None:
    inner = _down(node)
    if not isinstance(inner, Tree) or inner.data != "ident":
        return None
    name = inner.children[0]
    return name if isinstance(name, Token) else None


def _is_selection(node: Any) -> bool:
    inner = _down(node)
    return isinstance(inner, Tree) and inner.data == "member_dot"
