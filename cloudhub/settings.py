"""How a settings file of ours is read, refused and printed: the machinery below `cloudhub.config`.

It reads one YAML document of bounded size without anchors (a few lines of them can stand for gigabytes) and without a
key given twice, and turns pydantic's errors into one sentence an operator can act on. It knows no key by name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

MAX_FILE_BYTES: Final = 1 << 20
_MAX_SHOWN: Final = 60
_SECRET_WORDS: Final = ("token", "password", "secret", "credential")


class ConfigError(ValueError):
    """What is wrong with a settings file: ``key`` (a path with dots, or the file), the problem, what would be right."""

    def __init__(self, *, key: str, problem: str, right: str = "") -> None:
        super().__init__(f"{key}: {problem}; right would be {right}" if right else f"{key}: {problem}")
        self.key = key
        self.problem = problem
        self.right = right


def setting(default: Any, *, what: str, breaks: str, unit: str = "", example: Any = None) -> Any:
    """A documented field: what it is, its unit, and what breaks when it is wrong. ``example`` is printed, as a
    comment, for a setting whose default is worked out."""
    extra = {"unit": unit, "breaks": breaks, "example": example}
    return Field(default=default, description=what, json_schema_extra=extra)


# --- Reading --------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases and doubled keys, both with their line."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "YAML aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key {_cut(key.value)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_file(path: Path) -> str:
    """The text of a settings file. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(key=str(path), problem="there is no such file", right="the path of a YAML file") from None
    except OSError as error:
        raise ConfigError(key=str(path), problem=f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(key=str(path), problem=f"is larger than {MAX_FILE_BYTES} bytes; this is no settings file")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(key=str(path), problem=f"is not UTF-8 text at byte {error.start}") from None


def parse_document(text: str, *, name: str) -> dict[str, Any]:
    """The mapping that a YAML text holds, keys without a value left out. Raises `ConfigError` with the line."""
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(key=name, problem=f"is larger than {MAX_FILE_BYTES} characters")
    try:
        document = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name} line {mark.line + 1}" if mark else name
        raise ConfigError(key=where, problem=f"is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(key=name, problem=f"is not YAML: {_cut(str(error))}") from None
    except RecursionError:
        raise ConfigError(key=name, problem="is not YAML: nested too deep") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(key=name, problem=f"holds {_kind(document)}", right="keys and values")
    return _without_nothing(document)


def _without_nothing(mapping: dict[Any, Any]) -> dict[str, Any]:
    # `websocket:` with nothing below it means 'not given' to KubeEdge's reader, and so it does here.
    return {
        str(key): _without_nothing(value) if isinstance(value, dict) else value
        for key, value in mapping.items()
        if value is not None
    }


def ignored_keys(document: dict[str, Any], model: type[BaseModel], prefix: str = "") -> tuple[str, ...]:
    """Paths of the keys that the model does not have, in the document's order, the outermost of each branch only."""
    found: list[str] = []
    for key, value in document.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{prefix}{_cut(key)}")
            continue
        inner = nested_model(field)
        if inner is not None and isinstance(value, dict):
            found.extend(ignored_keys(value, inner, f"{prefix}{key}."))
    return tuple(found)


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


# --- Refusing -------------------------------------------------------------------------------------------------


def to_config_error(error: ValidationError) -> ConfigError:
    """The first problem of a validation as `ConfigError`; how many more there are stands behind it."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"] if part not in ("int", "float", "str")) or "document"
    value = first["input"]
    right = _right(first["type"], first["msg"])
    if first["type"] == "missing":
        return ConfigError(key=key, problem="is missing", right=right)
    shown = "a value that is not shown" if _is_secret(key) else _show(value)
    if isinstance(value, str) and ("//" in value or "#" in value) and first["type"] in ("bool_type", "int_type"):
        right += " (a YAML comment begins with ' #')"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return ConfigError(key=key, problem=f"{shown} is wrong{more}", right=right)


def _right(kind: str, message: str) -> str:
    words = {
        "bool_type": "true or false",
        "int_type": "a whole number",
        "float_type": "a number",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "keys and values",
        "model_type": "keys and values",
        "model_attributes_type": "keys and values",
    }
    if kind in words:
        return words[kind]
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    return text.replace("String should ", "text that should ").replace("List should ", "a list that should ")


def _is_secret(key: str) -> bool:
    last = key.rpartition(".")[2].lower()
    return any(word in last for word in _SECRET_WORDS) and not last.endswith("duration")


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return _kind(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _cut(repr(value) if isinstance(value, str) else str(value))


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a single value"


def _cut(text: str) -> str:
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


# --- Printing -------------------------------------------------------------------------------------------------


def render_yaml(settings: BaseModel, *, title: str) -> str:
    """The settings as YAML, each key with its comment. Keys whose value is worked out stand as comments."""
    return "\n".join([f"# {title}", *_lines(settings, 0)]) + "\n"


def _lines(settings: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, depth + 1)
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if field.description:
            unit = f" Unit: {extra['unit']}." if extra.get("unit") else ""
            yield f"{indent}# {field.description}{unit}"
        if value is None:
            yield f"{indent}# {name}: {_scalar(extra.get('example'))}"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def type_name(field: FieldInfo) -> str:
    """The kind of value a field takes, for the documentation."""
    return _type_name(field.annotation)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    if origin is list:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is dict:
        return "map of text to true or false"
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _type_name(get_args(annotation)[0])
    if origin is not None:
        return " or ".join(str(part) for part in get_args(annotation))
    return {"bool": "true or false", "int": "whole number", "float": "number", "str": "text"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )
