"""A request's path, query and headers as typed, bounded values. What does not parse is a 400 in Kubernetes' words."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudhub.standalone import errors
from cloudhub.standalone.errors import StatusError
from cloudhub.standalone.history import ObjectKey
from cloudhub.standalone.resources import Resource
from cloudhub.standalone.selectors import (
    FieldSelector,
    InvalidSelector,
    LabelSelector,
    parse_field_selector,
    parse_label_selector,
)

_MAX_MANAGER: Final = 128
_MAX_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """What a path points at. ``name`` is empty for a collection; ``namespace`` None for all namespaces."""

    group: str
    version: str
    plural: str
    namespace: str | None
    name: str
    subresource: str


def parse_path(parts: list[str]) -> Target | None:
    """``parts`` of ``/api/v1/...`` or ``/apis/GROUP/VERSION/...``, decoded, from behind ``api`` or ``apis``."""
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    if not rest or any(not part for part in rest):
        return None
    # namespaces, namespaces/NAME and namespaces/NAME/status are the Namespace itself; longer paths are inside of it.
    inside = rest[0] == "namespaces" and len(rest) >= 3 and not (len(rest) == 3 and rest[2] in ("status", "finalize"))
    namespace = rest[1] if inside else None
    rest = rest[2:] if inside else rest
    if len(rest) > 3:
        return None
    rest = [*rest, "", ""][:3]
    return Target(group, version, rest[0], namespace, rest[1], rest[2])


@dataclass(frozen=True, slots=True)
class WriteOptions:
    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = "unknown"
    force: bool = False


def parse_write_options(query: Mapping[str, str], user_agent: str, *, apply: bool = False) -> WriteOptions:
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise errors.bad_request(
            f'fieldValidation: Unsupported value: "{validation[:64]}": supported values: "Ignore", "Strict", "Warn"'
        )
    manager = query.get("fieldManager", "")
    if len(manager) > _MAX_MANAGER or not manager.isprintable():
        raise errors.bad_request(f"fieldManager: Too long: may not be more than {_MAX_MANAGER} bytes")
    if not manager:
        # The API server names a writer that gives no name after the program in its User-Agent.
        manager = user_agent.partition("/")[0][:_MAX_MANAGER] or "unknown"
    return WriteOptions(parse_dry_run(query.get("dryRun")), validation, manager, _flag(query, "force"))


def parse_dry_run(value: Any) -> bool:
    if value in (None, "", [], "All", ["All"]):
        return bool(value)
    raise errors.bad_request(f'dryRun: Unsupported value: {json.dumps(value)[:64]}: supported values: "All"')


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    dry_run: bool = False
    uid: str | None = None
    revision: str | None = None


def parse_delete_options(body: Mapping[str, Any], query: Mapping[str, str]) -> DeleteOptions:
    policy = body.get("propagationPolicy") or query.get("propagationPolicy")
    if policy not in (None, "", "Orphan", "Background", "Foreground"):
        raise errors.bad_request(
            f"propagationPolicy: Unsupported value: {json.dumps(policy)[:64]}: "
            'supported values: "Orphan", "Background", "Foreground"'
        )
    wanted = body.get("preconditions") or {}
    if not isinstance(wanted, dict) or not all(isinstance(value, str | None) for value in wanted.values()):
        raise errors.bad_request("preconditions: Invalid value: uid and resourceVersion must be strings")
    return DeleteOptions(
        dry_run=parse_dry_run(body.get("dryRun") or query.get("dryRun")),
        uid=wanted.get("uid"),
        revision=wanted.get("resourceVersion"),
    )


@dataclass(frozen=True, slots=True)
class Continue:
    """Where a list goes on. ``revision`` -1: at the latest state, since the first page's one is gone."""

    revision: int
    after: tuple[str, str]

    def encode(self) -> str:
        document = {"v": "meta.k8s.io/v1", "rv": self.revision, "start": list(self.after)}
        return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).decode().rstrip("=")


def parse_continue(text: str) -> Continue:
    try:
        document = json.loads(base64.urlsafe_b64decode(text[:4096] + "=" * (-len(text) % 4)))
        namespace, name = document["start"]
        if document["v"] != "meta.k8s.io/v1" or not isinstance(namespace, str) or not isinstance(name, str):
            raise ValueError(document["v"])
        return Continue(int(document["rv"]), (namespace, name))
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise errors.bad_request("continue key is not valid: it must be the token of an earlier answer") from None


@dataclass(frozen=True, slots=True)
class ListOptions:
    labels: LabelSelector
    fields: FieldSelector
    limit: int = 0
    token: Continue | None = None
    revision: int | None = None
    """None: not given. 0: any state will do."""
    match: str = ""
    watch: bool = False
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float | None = None

    def selects(self, key: ObjectKey, labels: Mapping[str, str]) -> bool:
        """What can be told without parsing the object; `FieldSelector.matches` tells the rest."""
        if self.labels and not self.labels.matches(labels):
            return False
        name = self.fields.exact("metadata.name")
        namespace = self.fields.exact("metadata.namespace")
        return (name is None or name == key.name) and (namespace is None or namespace == key.namespace)

    @property
    def filtered(self) -> bool:
        return bool(self.labels) or bool(self.fields)

    @property
    def reads_fields(self) -> bool:
        """The selector asks for more than `selects` answers."""
        return any(not (equal and path in _KEY_FIELDS) for path, _, equal in self.fields.terms)


_KEY_FIELDS: Final = ("metadata.name", "metadata.namespace")


def parse_list_options(resource: Resource, query: Mapping[str, str]) -> ListOptions:
    try:
        labels = parse_label_selector(query.get("labelSelector", ""))
        fields = parse_field_selector(
            query.get("fieldSelector", ""), group=resource.group, kind=resource.kind, selectable=resource.selectable
        )
    except InvalidSelector as error:
        raise errors.bad_request(str(error)) from None
    timeout = _number(query, "timeoutSeconds")
    options = ListOptions(
        labels=labels,
        fields=fields,
        limit=_number(query, "limit") or 0,
        token=parse_continue(query["continue"]) if query.get("continue") else None,
        revision=parse_revision(query.get("resourceVersion", "")),
        match=query.get("resourceVersionMatch", ""),
        watch=_flag(query, "watch"),
        bookmarks=_flag(query, "allowWatchBookmarks"),
        initial_events=_flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None,
        timeout=float(timeout) if timeout else None,
    )
    _check_combination(resource, options)
    return options


def parse_revision(text: str) -> int | None:
    if text == "":
        return None
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _MAX_NUMBER:
        raise errors.bad_request(f'resourceVersion: Invalid value: "{text[:64]}": must be a whole number, not negative')
    return int(text)


def is_watch(query: Mapping[str, str]) -> bool:
    return _flag(query, "watch")


def _check_combination(resource: Resource, options: ListOptions) -> None:
    problem = _watch_problem(options) if options.watch else _list_problem(options)
    if problem:
        field, _, detail = problem.partition(": ")
        raise StatusError(
            422,
            "Invalid",
            f'ListOptions.meta.k8s.io "" is invalid: {field}: {detail}',
            details={"group": "meta.k8s.io", "kind": "ListOptions", "causes": [{"field": field, "message": detail}]},
        )


def _list_problem(options: ListOptions) -> str:
    if options.initial_events is not None:
        return "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"
    if not options.match:
        return ""
    if options.match not in ("Exact", "NotOlderThan"):
        return "resourceVersionMatch: Unsupported value: supported values: Exact, NotOlderThan"
    if options.token is not None:
        return "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
    if options.revision is None:
        return "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    if options.match == "Exact" and options.revision == 0:
        return 'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
    return ""


def _watch_problem(options: ListOptions) -> str:
    if options.initial_events is None:
        if options.match:
            return (
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents "
                "is provided"
            )
        return ""
    if options.match != "NotOlderThan":
        return (
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    return ""


def _flag(query: Mapping[str, str], name: str) -> bool:
    # Go's conversion: present without a value is true; 0 and false, in any case of letters, are false.
    return name in query and query[name].lower() not in ("0", "false")


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _MAX_NUMBER:
        raise errors.bad_request(f'{name}: Invalid value: "{text[:64]}": must be a whole number, not negative')
    return int(text)
