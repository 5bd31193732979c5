"""Request bodies in Kubernetes' protobuf, as the typed clients of kubectl send them, turned into plain objects.

kubectl 1.37 sends `create secret`, `create namespace`, `create configmap` and its delete options as protobuf and does
not fall back to JSON, so this server must read it. Only these kinds and Leases and Events are read; another kind is
answered with 415. Answers are always JSON, which those clients accept.

Go writes fields that are no pointers even when they are empty; such are left out here, as its JSON leaves them out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from cloudhub.standalone import kubernetes_pb2 as messages
from cloudhub.standalone.decode import InvalidBody

_M = TypeVar("_M", bound=Message)

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_KINDS: Final[dict[tuple[str, str], type[Message]]] = {
    ("v1", "Namespace"): messages.Namespace,
    ("v1", "Secret"): messages.Secret,
    ("v1", "ConfigMap"): messages.ConfigMap,
    ("v1", "Event"): messages.Event,
    ("coordination.k8s.io/v1", "Lease"): messages.Lease,
}
# Whole numbers that Go writes although they are not set. Other zeros are pointers, so somebody set them.
_EMPTY_WHEN_ZERO: Final = frozenset({"generation", "count"})


def readable(api_version: str, kind: str) -> bool:
    return (api_version, kind) in _KINDS


def decode_object(raw: bytes) -> dict[str, Any]:
    """Raises `InvalidBody`."""
    envelope = _envelope(raw)
    identity = (envelope.typeMeta.apiVersion, envelope.typeMeta.kind)
    if identity not in _KINDS:
        raise InvalidBody(f"a body of {identity[0][:64]}, Kind={identity[1][:64]} must be sent as JSON or YAML")
    body = _parse(_KINDS[identity], envelope.raw)
    return {"apiVersion": identity[0], "kind": identity[1], **_fields(body)}


def decode_delete_options(raw: bytes) -> dict[str, Any]:
    """Raises `InvalidBody`."""
    return _fields(_parse(messages.DeleteOptions, _envelope(raw).raw))


def _envelope(raw: bytes) -> messages.Unknown:
    if not raw.startswith(_MAGIC):
        raise InvalidBody("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    return _parse(messages.Unknown, raw[len(_MAGIC) :])


def _parse(kind: type[_M], raw: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(raw)
    except (DecodeError, UnicodeDecodeError):
        raise InvalidBody("the body is no protobuf message of its kind") from None
    return message


def _fields(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        plain = _plain(field, value)
        if plain not in ("", {}, [], None) and not (plain == 0 and field.name in _EMPTY_WHEN_ZERO):
            found[field.name] = plain
    return found


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _scalar(item) for key, item in value.items()}
    if field.is_repeated:
        items: Iterable[Any] = value
        return [_scalar(item) for item in items]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, (messages.Time, messages.MicroTime)):
        return _time(value)
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _time(value: messages.Time | messages.MicroTime) -> str | None:
    if not value.HasField("seconds"):
        return None
    try:
        moment = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        raise InvalidBody("a time of the body is out of range") from None
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if isinstance(value, messages.MicroTime) else "%Y-%m-%dT%H:%M:%SZ"
    return moment.strftime(form)
