"""``x-kubernetes-validations``: rules in CEL, compiled once with the schema they stand in.

cel-python parses and evaluates; the type checking that Kubernetes does at compile time is done here as far as it
catches what people get wrong: unknown variables, functions and fields. Values become CEL values by their schema (a
``date-time`` is a timestamp, a key that is no identifier is escaped), and only below nodes that have rules. What a rule
of Kubernetes can do beyond this (optional types, quantities, the authorizer) is refused when the CRD is made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import celpy
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from cloudhub.standalone import fielderrors
from cloudhub.standalone.celcheck import InvalidRule, check, parse_error
from cloudhub.standalone.cellib import FUNCTIONS
from cloudhub.standalone.celvalues import to_cel
from cloudhub.standalone.fielderrors import FieldError, Reason
from cloudhub.standalone.strategic import child_schema
from cloudhub.standalone.validation import type_name

__all__ = ["InvalidRule", "RuleTree", "compile_rules"]

Schema = Mapping[str, Any]
VALIDATIONS: Final = "x-kubernetes-validations"
_MAX_RULE: Final = 10_000
_EVALUATION_ERRORS: Final = (
    CELEvalError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class _Rule:
    text: str
    program: Any
    transition: bool
    message: str
    message_program: Any
    reason: Reason
    field_path: str

    def verdict(self, activation: dict[str, Any]) -> str | None:
        """None when the rule holds, else what is wrong."""
        try:
            result = self.program.evaluate(activation)
        except _EVALUATION_ERRORS as error:
            return f"{_evaluation_problem(error)} evaluating rule: {self.message or self.text}"
        if isinstance(result, celtypes.BoolType):
            return None if result else self._said(activation)
        return f"cel expression must evaluate to a bool evaluating rule: {self.message or self.text}"

    def _said(self, activation: dict[str, Any]) -> str:
        if self.message_program is not None:
            try:
                said = self.message_program.evaluate(activation)
            except _EVALUATION_ERRORS:
                said = ""
            if isinstance(said, str) and said.strip() and "\n" not in said:
                return str(said)[:2048]
        return self.message or f"failed rule: {self.text}"


@dataclass(slots=True)
class RuleTree:
    """The part of a schema that leads to rules. An empty one costs nothing to validate by."""

    schema: Schema
    rules: list[_Rule] = field(default_factory=list)
    properties: dict[str, RuleTree] = field(default_factory=dict)
    items: RuleTree | None = None
    additional: RuleTree | None = None

    @property
    def empty(self) -> bool:
        return not (self.rules or self.properties or self.items or self.additional)

    def validate(self, value: Any, old: Any, path: str = "") -> list[FieldError]:
        """Faults of ``value``. Where it equals ``old`` nothing is evaluated: what held before holds."""
        if self.empty or value is None or (old is not None and value == old):
            return []
        errors = self._own_faults(value, old, path) if self.rules else []
        if isinstance(value, dict):
            for key, item in value.items():
                child = self.properties.get(key)
                if child is None and key not in self.schema.get("properties", ()):
                    child = self.additional
                if child is not None:
                    former = old.get(key) if isinstance(old, dict) else None
                    errors += child.validate(item, former, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and self.items is not None:
            formers = _Correlated(self.schema, old)
            for index, item in enumerate(value):
                errors += self.items.validate(item, formers.of(item), f"{path}[{index}]")
        return errors

    def _own_faults(self, value: Any, old: Any, path: str) -> list[FieldError]:
        activation = {"self": to_cel(value, self.schema)}
        if old is not None:
            activation["oldSelf"] = to_cel(old, self.schema)
        errors = []
        for rule in self.rules:
            if rule.transition and old is None:
                continue
            said = rule.verdict(activation)
            if said is not None:
                errors.append(_fault(rule, f"{path}{rule.field_path}".lstrip("."), value, said))
        return errors


class _Correlated:
    """Finds a list item's former self: by its keys in a list of type map, else there is none."""

    def __init__(self, schema: Schema, old: Any) -> None:
        self._keys: Sequence[str] = ()
        self._by_key: dict[str, Any] = {}
        if isinstance(old, list) and schema.get("x-kubernetes-list-type") == "map":
            self._keys = schema.get("x-kubernetes-list-map-keys", ())
            self._by_key = {self._key(item): item for item in old}

    def of(self, item: Any) -> Any:
        return self._by_key.get(self._key(item)) if self._by_key else None

    def _key(self, item: Any) -> str:
        return repr([item.get(key) for key in self._keys]) if isinstance(item, dict) else ""


def _fault(rule: _Rule, path: str, value: Any, said: str) -> FieldError:
    match rule.reason:
        case Reason.FORBIDDEN:
            return fielderrors.forbidden(path, said)
        case Reason.REQUIRED:
            return fielderrors.required(path, said)
        case Reason.DUPLICATE:
            return fielderrors.duplicate(path, value)
        case _:
            return fielderrors.invalid(path, type_name(value), said)


def _evaluation_problem(error: BaseException) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    missing = re.match(r"no such member in mapping: '(.*)'", text)
    if missing:
        return f"no such key: {missing[1]}"
    # cel-python appends its whole activation, which holds the object's values.
    return text.split(" (in activation")[0][:256]


def compile_rules(schema: Schema, path: str) -> tuple[RuleTree, list[FieldError]]:
    """The rules below ``schema``, and what does not compile; ``path`` is where the schema stands in its CRD."""
    compiler = _Compiler()
    tree = compiler.tree(schema, path, correlatable=True)
    return tree, compiler.errors


class _Compiler:
    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self._environment = celpy.Environment()

    def tree(self, schema: Schema, path: str, *, correlatable: bool) -> RuleTree:
        tree = RuleTree(schema)
        for index, rule in enumerate(schema.get(VALIDATIONS) or ()):
            compiled = self._rule(rule, schema, f"{path}.{VALIDATIONS}[{index}]", correlatable)
            if compiled is not None:
                tree.rules.append(compiled)
        for key, child in (schema.get("properties") or {}).items():
            subtree = self.tree(child, f"{path}.properties[{key}]", correlatable=correlatable)
            if not subtree.empty:
                tree.properties[key] = subtree
        additional, items = schema.get("additionalProperties"), schema.get("items")
        if isinstance(additional, Mapping):
            subtree = self.tree(additional, f"{path}.additionalProperties", correlatable=correlatable)
            tree.additional = None if subtree.empty else subtree
        if isinstance(items, Mapping):
            below = correlatable and schema.get("x-kubernetes-list-type") == "map"
            subtree = self.tree(items, f"{path}.items", correlatable=below)
            tree.items = None if subtree.empty else subtree
        return tree

    def _rule(self, rule: Mapping[str, Any], schema: Schema, path: str, correlatable: bool) -> _Rule | None:
        before = len(self.errors)
        text = str(rule.get("rule") or "").strip()
        if not text:
            self.errors.append(fielderrors.required(f"{path}.rule", "rule is not specified"))
        if rule.get("optionalOldSelf"):
            self.errors.append(fielderrors.forbidden(f"{path}.optionalOldSelf", "optional types are not served here"))
        message = str(rule.get("message") or "")
        if "\n" in message:
            self.errors.append(fielderrors.invalid(f"{path}.message", message, "message must not contain line breaks"))
        reason = self._reason(rule, path)
        program, transition = self._program(text, schema, f"{path}.rule")
        if transition and not correlatable:
            why = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            self.errors.append(fielderrors.invalid(f"{path}.rule", text, why))
        expression = str(rule.get("messageExpression") or "")
        message_program = self._program(expression, schema, f"{path}.messageExpression")[0] if expression else None
        field_path = str(rule.get("fieldPath") or "")
        self._check_field_path(field_path, schema, path)
        if len(self.errors) > before:
            return None
        return _Rule(text, program, transition, message.strip(), message_program, reason, field_path)

    def _reason(self, rule: Mapping[str, Any], path: str) -> Reason:
        allowed = [Reason.REQUIRED, Reason.INVALID, Reason.FORBIDDEN, Reason.DUPLICATE]
        given = rule.get("reason") or Reason.INVALID
        if given not in allowed:
            self.errors.append(fielderrors.not_supported(f"{path}.reason", given, [item.value for item in allowed]))
            return Reason.INVALID
        return Reason(given)

    def _program(self, text: str, schema: Schema, path: str) -> tuple[Any, bool]:
        """The program, and whether it speaks of oldSelf."""
        if not text:
            return None, False
        try:
            if len(text) > _MAX_RULE:
                raise InvalidRule(f"expression is longer than {_MAX_RULE} characters")
            tree = self._environment.compile(text)
            transition = check(tree, text, schema)
            return self._environment.program(tree, functions=FUNCTIONS), transition
        except CELParseError as error:
            problem = parse_error(text, error.line or 1, error.column or 1, "Syntax error")
        except (InvalidRule, RecursionError) as error:
            problem = str(error) or "the expression is nested too deep"
        self.errors.append(fielderrors.invalid(path, text, f"compilation failed: {problem}"))
        return None, False

    def _check_field_path(self, field_path: str, schema: Schema, path: str) -> None:
        if not field_path:
            return
        here: Schema = schema
        for key in field_path.removeprefix(".").split("."):
            if not field_path.startswith(".") or key not in (here.get("properties") or {}):
                why = "fieldPath must be a valid path, like .foo.bar, to a field below the rule"
                self.errors.append(fielderrors.invalid(f"{path}.fieldPath", field_path, why))
                return
            here = child_schema(here, key)
