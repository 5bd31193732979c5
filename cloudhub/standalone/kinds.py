"""What the built-in kinds have beyond their schemas: defaults that depend on other fields, and rules of their own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cloudhub.standalone import fielderrors
from cloudhub.standalone.crd import default_crd, validate_crd
from cloudhub.standalone.fielderrors import FieldError
from cloudhub.standalone.objectmeta import data_key_problem

Object = Mapping[str, Any]
_DATA_LIMIT: Final = 1 << 20
_DOCKER_KEYS: Final = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}
_OTHER_KEYS: Final = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/ssh-auth": ("ssh-privatekey",)}


def _default_namespace(obj: dict[str, Any]) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")
    metadata = obj.setdefault("metadata", {})
    if name := metadata.get("name"):
        # Every namespace can be selected by its name.
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": name}


def _default_secret(obj: dict[str, Any]) -> None:
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _default_event(obj: dict[str, Any]) -> None:
    if not obj.get("type"):
        obj["type"] = "Normal"
    for key in ("source", "involvedObject"):
        obj.setdefault(key, {})


def _default_node(obj: dict[str, Any]) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))


def _data_faults(data: Object, binary: Object) -> list[FieldError]:
    errors = []
    for field, values in (("data", data), ("binaryData", binary)):
        for key in values:
            if problem := data_key_problem(key):
                errors.append(fielderrors.invalid(f"{field}[{key}]", key, problem))
            elif field == "binaryData" and key in data:
                errors.append(fielderrors.invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    if sum(len(key) + len(value) for values in (data, binary) for key, value in values.items()) > _DATA_LIMIT * 4 // 3:
        errors.append(fielderrors.too_long("", _DATA_LIMIT))
    return errors


def _immutable_faults(obj: Object, old: Object | None, *fields: str) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    why = "field is immutable when `immutable` is set"
    errors = [fielderrors.forbidden(field, why) for field in fields if (obj.get(field) or {}) != (old.get(field) or {})]
    return errors if obj.get("immutable") else [*errors, fielderrors.forbidden("immutable", why)]


def _secret_faults(obj: Object, old: Object | None) -> list[FieldError]:
    data, kind = obj.get("data") or {}, obj.get("type", "Opaque")
    errors = _data_faults(data, {})
    for key in _OTHER_KEYS.get(kind, ()):
        if key not in data:
            errors.append(fielderrors.required(f"data[{key}]"))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        errors += [fielderrors.required("data[username]"), fielderrors.required("data[password]")]
    if kind in _DOCKER_KEYS:
        errors += _docker_faults(data, _DOCKER_KEYS[kind])
    if old is not None and kind != old.get("type", "Opaque"):
        errors.append(fielderrors.invalid("type", kind, "field is immutable"))
    return errors + _immutable_faults(obj, old, "data")


def _docker_faults(data: Object, key: str) -> list[FieldError]:
    if key not in data:
        return [fielderrors.required(f"data[{key}]")]
    try:
        content = json.loads(base64.b64decode(data[key]))
    except ValueError:
        content = None
    if isinstance(content, dict):
        return []
    # The value holds a password, also when it is malformed.
    return [fielderrors.invalid(f"data[{key}]", "<secret contents redacted>", "it is no JSON object")]


def _config_map_faults(obj: Object, old: Object | None) -> list[FieldError]:
    errors = _data_faults(obj.get("data") or {}, obj.get("binaryData") or {})
    return errors + _immutable_faults(obj, old, "data", "binaryData")


def _node_faults(obj: Object, old: Object | None) -> list[FieldError]:
    errors = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path, effect = f"metadata.taints[{index}]", taint.get("effect", "")
        if effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            allowed = ("NoSchedule", "PreferNoSchedule", "NoExecute")
            errors.append(fielderrors.not_supported(f"{path}.effect", effect, allowed))
        if (taint.get("key", ""), effect) in seen:
            errors.append(fielderrors.duplicate(path, taint))
        seen.add((taint.get("key", ""), effect))
    former = ((old or {}).get("spec") or {}).get("providerID")
    if former and (obj.get("spec") or {}).get("providerID") != former:
        errors.append(
            fielderrors.forbidden("spec.providerID", "node updates may not change providerID except from empty")
        )
    return errors


def _event_faults(obj: Object, old: Object | None) -> list[FieldError]:
    involved = (obj.get("involvedObject") or {}).get("namespace", "")
    namespace = (obj.get("metadata") or {}).get("namespace", "")
    if involved and involved != namespace:
        return [fielderrors.invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    if not involved and namespace not in ("default", "kube-system", ""):
        return [fielderrors.invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _no_faults(obj: Object, old: Object | None) -> list[FieldError]:
    return []


def _no_defaults(obj: dict[str, Any]) -> None:
    return


DEFAULTS: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    "Namespace": _default_namespace,
    "Secret": _default_secret,
    "Event": _default_event,
    "Node": _default_node,
    "CustomResourceDefinition": default_crd,
}
FAULTS: Final[Mapping[str, Callable[[Object, Object | None], list[FieldError]]]] = {
    "Secret": _secret_faults,
    "ConfigMap": _config_map_faults,
    "Node": _node_faults,
    "Event": _event_faults,
    "CustomResourceDefinition": validate_crd,
}


def defaults_of(kind: str) -> Callable[[dict[str, Any]], None]:
    return DEFAULTS.get(kind, _no_defaults)


def faults_of(kind: str) -> Callable[[Object, Object | None], list[FieldError]]:
    return FAULTS.get(kind, _no_faults)
