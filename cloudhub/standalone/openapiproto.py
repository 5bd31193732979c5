"""An OpenAPI v2 document as protobuf: the one form in which Kubernetes' clients take v2.

kubectl asks for it when v3 does not have a kind, which is when a CustomResourceDefinition is not installed: without an
answer that it can read, people would see a parser's error in place of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from cloudhub.standalone import openapi_v2_pb2 as messages

MEDIA_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What Kubernetes' clients say; a header of an answer may not have this form.
_SPOKEN: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

_PLAIN: Final = {
    "$ref": "_ref",
    "format": "format",
    "title": "title",
    "description": "description",
    "multipleOf": "multiple_of",
    "maximum": "maximum",
    "exclusiveMaximum": "exclusive_maximum",
    "minimum": "minimum",
    "exclusiveMinimum": "exclusive_minimum",
    "maxLength": "max_length",
    "minLength": "min_length",
    "pattern": "pattern",
    "maxItems": "max_items",
    "minItems": "min_items",
    "uniqueItems": "unique_items",
    "maxProperties": "max_properties",
    "minProperties": "min_properties",
}
_VERBS: Final = ("get", "put", "post", "delete", "patch")


def wanted(accept: str) -> bool:
    return _SPOKEN in accept or MEDIA_TYPE in accept


def encode(document: Mapping[str, Any]) -> bytes:
    """``document`` as `OpenAPIDocuments` makes it."""
    made = messages.Document(swagger=document["swagger"], info=messages.Info(**document["info"]))
    for url, item in document["paths"].items():
        made.paths.path.add(name=url, value=_path_item(item))
    for name, schema in document["definitions"].items():
        made.definitions.additional_properties.add(name=name, value=_schema(schema))
    return made.SerializeToString(deterministic=True)


def _path_item(item: Mapping[str, Any]) -> messages.PathItem:
    operations = {verb: _operation(item[verb]) for verb in _VERBS if verb in item}
    return messages.PathItem(**operations, parameters=_parameters(item.get("parameters", ())))


def _operation(operation: Mapping[str, Any]) -> messages.Operation:
    made = messages.Operation(
        tags=operation["tags"],
        operation_id=operation["operationId"],
        consumes=operation.get("consumes", ()),
        parameters=_parameters(operation["parameters"]),
        vendor_extension=_extensions(operation),
    )
    for code, response in operation["responses"].items():
        value = messages.Response(
            description=response["description"], schema=messages.SchemaItem(schema=_schema(response["schema"]))
        )
        made.responses.response_code.add(name=code, value=messages.ResponseValue(response=value))
    return made


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> list[messages.ParametersItem]:
    return [messages.ParametersItem(parameter=_parameter(parameter)) for parameter in parameters]


def _parameter(parameter: Mapping[str, Any]) -> messages.Parameter:
    # `in` is no Python argument's name.
    place = {"name": parameter["name"], "in": parameter["in"]}
    if parameter["in"] == "body":
        body = messages.BodyParameter(**place, required=True, schema=_schema(parameter["schema"]))
        return messages.Parameter(body_parameter=body)
    rest = {"type": parameter["type"], "unique_items": parameter["uniqueItems"]}
    if parameter["in"] == "path":
        made = messages.NonBodyParameter(
            path_parameter_sub_schema=messages.PathParameterSubSchema(**place, **rest, required=True)
        )
    else:
        made = messages.NonBodyParameter(query_parameter_sub_schema=messages.QueryParameterSubSchema(**place, **rest))
    return messages.Parameter(non_body_parameter=made)


def _schema(schema: Mapping[str, Any]) -> messages.Schema:
    made = messages.Schema(**{_PLAIN[key]: value for key, value in schema.items() if key in _PLAIN})
    if "type" in schema:
        made.type.value.append(schema["type"])
    if "default" in schema:
        made.default.CopyFrom(_any(schema["default"]))
    made.required.extend(schema.get("required", ()))
    made.enum.extend(_any(value) for value in schema.get("enum", ()))
    for name, child in schema.get("properties", {}).items():
        made.properties.additional_properties.add(name=name, value=_schema(child))
    if isinstance(schema.get("items"), Mapping):
        made.items.schema.append(_schema(schema["items"]))
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        made.additional_properties.schema.CopyFrom(_schema(additional))
    elif additional is not None:
        made.additional_properties.boolean = bool(additional)
    made.vendor_extension.extend(_extensions(schema))
    return made


def _extensions(owner: Mapping[str, Any]) -> list[messages.NamedAny]:
    return [messages.NamedAny(name=key, value=_any(value)) for key, value in owner.items() if key.startswith("x-")]


def _any(value: Any) -> messages.Any:
    """As YAML text; JSON is YAML."""
    return messages.Any(yaml=json.dumps(value, ensure_ascii=False))
