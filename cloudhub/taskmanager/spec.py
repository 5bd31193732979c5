"""The spec of a job, as a user wrote it, made into what the rest of the taskManager may rely on. Pure.

The problem: a spec comes from anyone who may create jobs, through whatever CRD is installed, so nothing about it is
certain. `parse_spec` either returns a `JobSpec` with every default in place and every number in its bounds, or raises
`InvalidSpec`, whose text names the field, the value and what would be right; that text becomes the job's ``reason``.

What can only be known by asking (is the Secret there, which nodes exist) is not looked at here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from cloudhub.store.errors import CorruptDatabase
from shared.images import InvalidReference, parse_reference
from shared.jobs import (
    DEFAULT_CHECK_ITEMS,
    DEFAULT_CONCURRENCY,
    DEFAULT_FAILURE_TOLERATE,
    DEFAULT_RETRY_TIMES,
    DEFAULT_TIMEOUT_SECONDS,
    CheckItem,
)

MAX_IMAGES: Final = 1000
MAX_NODES: Final = 20_000
MAX_REQUIREMENTS: Final = 64
MAX_VALUES: Final = 1000
MAX_NUMBER: Final = 2**31 - 1
MAX_RETRIES: Final = 1000
MAX_NAME: Final = 253
MAX_LABEL_KEY: Final = 317
MAX_LABEL_VALUE: Final = 63

_TEMPLATE: Final = "imagePrePullTemplate"
_TOLERATE = re.compile(r"[01]|[01]?\.[0-9]{1,18}")
_SECRET = re.compile(r"(?P<namespace>[a-z0-9][-a-z0-9]{0,62})/(?P<name>[a-z0-9][-.a-z0-9]{0,252})")
_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")


class InvalidSpec(ValueError):
    """A spec that no node may be touched for."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"spec.{field}: {problem}")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of ``matchExpressions``."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                # As in Kubernetes: a node without the label matches.
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """metav1.LabelSelector; an empty one matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


class SecretName(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Editable(NamedTuple):
    """What may change while the job runs."""

    concurrency: int
    failure_tolerate: str
    timeout_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    images: tuple[str, ...]
    """As written, without repetitions: nodes and status name them so."""
    node_names: tuple[str, ...] = ()
    label_selector: LabelSelector | None = None
    check_items: tuple[str, ...] = DEFAULT_CHECK_ITEMS
    concurrency: int = DEFAULT_CONCURRENCY
    failure_tolerate: str = DEFAULT_FAILURE_TOLERATE
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    retry_times: int = DEFAULT_RETRY_TIMES
    image_secrets: SecretName | None = None

    @property
    def editable(self) -> Editable:
        return Editable(self.concurrency, self.failure_tolerate, self.timeout_seconds)

    def same_work(self, other: JobSpec) -> bool:
        """The same images for the same choice of nodes."""
        return (self.images, self.node_names, self.label_selector) == (
            other.images,
            other.node_names,
            other.label_selector,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        """What `to_json` wrote; the text comes from our own store. Raises `CorruptDatabase` on any other."""
        try:
            return cls._from_stored(json.loads(text))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise CorruptDatabase(
                "a job's spec in queue.db is not of the shape that cloudhub writes; restore the file or move it away"
            ) from error

    @classmethod
    def _from_stored(cls, stored: Any) -> JobSpec:
        selector, secret = stored["label_selector"], stored["image_secrets"]
        if selector is not None:
            selector = LabelSelector(
                tuple(Requirement(r["key"], r["operator"], tuple(r["values"])) for r in selector["requirements"])
            )
        return cls(
            images=tuple(stored["images"]),
            node_names=tuple(stored["node_names"]),
            label_selector=selector,
            check_items=tuple(stored["check_items"]),
            concurrency=stored["concurrency"],
            failure_tolerate=stored["failure_tolerate"],
            timeout_seconds=stored["timeout_seconds"],
            retry_times=stored["retry_times"],
            image_secrets=SecretName(*secret) if secret is not None else None,
        )


def parse_spec(raw: Mapping[str, Any]) -> JobSpec:
    """Raises `InvalidSpec`."""
    template = raw.get(_TEMPLATE)
    if not isinstance(template, Mapping):
        raise InvalidSpec(_TEMPLATE, "is missing; it must hold images and nodeNames or labelSelector")
    node_names, selector = _choice_of_nodes(template)
    return JobSpec(
        images=_images(template),
        node_names=node_names,
        label_selector=selector,
        check_items=_check_items(template),
        concurrency=_number(template, "concurrency", DEFAULT_CONCURRENCY, 1, MAX_NUMBER),
        failure_tolerate=_failure_tolerate(template),
        # 0 stands for the default, as in KubeEdge.
        timeout_seconds=_number(template, "timeoutSeconds", 0, 0, MAX_NUMBER) or DEFAULT_TIMEOUT_SECONDS,
        retry_times=_number(template, "retryTimes", DEFAULT_RETRY_TIMES, 0, MAX_RETRIES),
        image_secrets=_image_secrets(template),
    )


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 128 else text[:128] + "..."


def _wrong(field: str, value: object, right: str) -> InvalidSpec:
    return InvalidSpec(f"{_TEMPLATE}.{field}", f"{_show(value)} is wrong: it must be {right}")


def _texts(field: str, value: object, most: int, longest: int) -> tuple[str, ...]:
    """The texts of a list, without repetitions, in their order."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise _wrong(field, value, "a list of texts")
    if len(value) > most:
        raise InvalidSpec(f"{_TEMPLATE}.{field}", f"{len(value)} entries are too many: it must be at most {most}")
    for place, text in enumerate(value):
        # A database keeps a text up to its first NUL, and two names would be one.
        if not isinstance(text, str) or not 1 <= len(text) <= longest or not text.isprintable():
            raise _wrong(f"{field}[{place}]", text, f"a text of 1 to {longest} printable characters")
    return tuple(dict.fromkeys(value))


def _images(template: Mapping[str, Any]) -> tuple[str, ...]:
    images = _texts("images", template.get("images"), MAX_IMAGES, 1024)
    if not images:
        raise _wrong("images", template.get("images"), "a list of at least one image reference")
    for image in images:
        try:
            parse_reference(image)
        except InvalidReference as error:
            raise InvalidSpec(f"{_TEMPLATE}.images", str(error)) from None
    return images


def _choice_of_nodes(template: Mapping[str, Any]) -> tuple[tuple[str, ...], LabelSelector | None]:
    names = _texts("nodeNames", template.get("nodeNames"), MAX_NODES, MAX_NAME)
    alias = _texts("nodes", template.get("nodes"), MAX_NODES, MAX_NAME)
    if names and alias:
        raise InvalidSpec(
            f"{_TEMPLATE}.nodes", f"{_show(list(alias))} is given beside nodeNames: it must be one of the two"
        )
    field, names = ("nodeNames", names) if names else ("nodes", alias)
    selector = template.get("labelSelector")
    if names and selector is not None:
        raise InvalidSpec(
            f"{_TEMPLATE}.labelSelector", f"{_show(selector)} is given beside {field}: it must be one of the two"
        )
    if not names and selector is None:
        raise InvalidSpec(_TEMPLATE, "has neither nodeNames nor labelSelector: it must have one of the two")
    return names, None if selector is None else _label_selector(selector)


def _label_selector(raw: object) -> LabelSelector:
    if not isinstance(raw, Mapping):
        raise _wrong("labelSelector", raw, "an object with matchLabels or matchExpressions")
    unknown = set(raw) - {"matchLabels", "matchExpressions"}
    if unknown:
        # Passed over, it would make the selector match more nodes than was meant.
        raise _wrong("labelSelector", sorted(map(str, unknown)), "made of matchLabels and matchExpressions")
    labels = raw.get("matchLabels") or {}
    if not isinstance(labels, Mapping) or len(labels) > MAX_REQUIREMENTS:
        raise _wrong("labelSelector.matchLabels", labels, f"an object of at most {MAX_REQUIREMENTS} labels")
    expressions = raw.get("matchExpressions") or []
    if not isinstance(expressions, list | tuple) or len(expressions) > MAX_REQUIREMENTS:
        raise _wrong("labelSelector.matchExpressions", expressions, f"a list of at most {MAX_REQUIREMENTS}")
    exact = [
        Requirement(_label_key("matchLabels", key), "In", (_label_value(f"matchLabels.{key}"[:64], value),))
        for key, value in labels.items()
    ]
    return LabelSelector((*exact, *(_requirement(place, raw) for place, raw in enumerate(expressions))))


def _requirement(place: int, raw: object) -> Requirement:
    where = f"matchExpressions[{place}]"
    if not isinstance(raw, Mapping):
        raise _wrong(f"labelSelector.{where}", raw, "an object with key and operator")
    key = _label_key(f"{where}.key", raw.get("key"))
    operator = raw.get("operator")
    if operator not in _OPERATORS:
        raise _wrong(f"labelSelector.{where}.operator", operator, f"one of {', '.join(_OPERATORS)}")
    values = raw.get("values") or []
    if not isinstance(values, list | tuple) or len(values) > MAX_VALUES:
        raise _wrong(f"labelSelector.{where}.values", values, f"a list of at most {MAX_VALUES} texts")
    if bool(values) != (operator in ("In", "NotIn")):
        right = "a list of at least one text" if operator in ("In", "NotIn") else "absent"
        raise _wrong(f"labelSelector.{where}.values", values, f"{right} with operator {operator}")
    return Requirement(key, operator, tuple(_label_value(f"{where}.values", value) for value in values))


def _label_key(where: str, key: object) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_LABEL_KEY:
        raise _wrong(f"labelSelector.{where}", key, f"a label key of 1 to {MAX_LABEL_KEY} characters")
    return key


def _label_value(where: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL_VALUE:
        raise _wrong(f"labelSelector.{where}", value, f"a text of at most {MAX_LABEL_VALUE} characters")
    return value


def _check_items(template: Mapping[str, Any]) -> tuple[str, ...]:
    raw = template.get("checkItems")
    if raw is None:
        return DEFAULT_CHECK_ITEMS
    items = _texts("checkItems", raw, 16, 64)
    for item in items:
        if item not in {known.value for known in CheckItem}:
            raise _wrong("checkItems", item, "cpu, mem or disk")
    return items


def _number(template: Mapping[str, Any], field: str, default: int, least: int, most: int) -> int:
    value = template.get(field)
    if value is None:
        return default
    # JSON knows one kind of number; 2.0 is a whole one.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _wrong(field, value, f"a whole number from {least} to {most}")
    return value


def _failure_tolerate(template: Mapping[str, Any]) -> str:
    value = template.get("failureTolerate")
    if value is None or value == "":
        return DEFAULT_FAILURE_TOLERATE
    if not isinstance(value, str) or not _TOLERATE.fullmatch(value.strip()) or Decimal(value.strip()) > 1:
        raise _wrong("failureTolerate", value, 'a text with a number from 0 to 1, such as "0.1"')
    return value.strip()


def _image_secrets(template: Mapping[str, Any]) -> SecretName | None:
    value = template.get("imageSecrets")
    if value is None or value == "":
        return None
    match = _SECRET.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _wrong("imageSecrets", value, "the Secret as namespace/name, such as default/my-secret")
    return SecretName(match["namespace"], match["name"])
