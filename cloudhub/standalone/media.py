"""Content negotiation: what a client wants objects shown as, and what its body is.

Everything is sent as JSON. A client that asks for protobuf or CBOR beside JSON gets JSON; one that asks for protobuf
alone gets JSON too and may refuse it. ``as=Table`` and ``as=PartialObjectMetadata`` of meta.k8s.io are understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cloudhub.standalone import errors

JSON: Final = "application/json"
YAML: Final = "application/yaml"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

_ACCEPTED: Final = (JSON, "application/vnd.kubernetes.protobuf", "application/*", "*/*")
_MAX_HEADER: Final = 4096


class Shape(Enum):
    OBJECT = ""
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"


@dataclass(frozen=True, slots=True)
class Output:
    shape: Shape = Shape.OBJECT
    version: str = "v1"
    """Of meta.k8s.io, for shapes other than the object."""


@dataclass(frozen=True, slots=True)
class Accepted:
    media_type: str
    parameters: dict[str, str]


def parse_accept(header: str) -> list[Accepted]:
    """In the order of the header: Kubernetes' clients list what they like best first."""
    found = []
    for part in header[:_MAX_HEADER].split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type:
            pairs = (parameter.partition("=") for parameter in parameters)
            found.append(Accepted(media_type.lower(), {name.strip(): value.strip() for name, _, value in pairs}))
    return found or [Accepted(JSON, {})]


def negotiate(header: str) -> Output:
    """Raises 406 when nothing that is asked for can be sent."""
    for accepted in parse_accept(header):
        if accepted.media_type not in _ACCEPTED:
            continue
        shape = accepted.parameters.get("as", "")
        if not shape:
            return Output()
        version = accepted.parameters.get("v", "v1")
        known = accepted.parameters.get("g") == "meta.k8s.io" and version in ("v1", "v1beta1")
        if known and shape in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList"):
            return Output(Shape(shape), version)
    raise errors.not_acceptable([JSON])


def body_type(header: str, accepted: tuple[str, ...]) -> str:
    """The media type of a body. Raises 415 when it is not one of ``accepted``; none given is the first of them."""
    media_type = header.partition(";")[0].strip().lower()
    if not media_type:
        return accepted[0]
    if media_type not in accepted:
        raise errors.unsupported_media_type(accepted)
    return media_type
