"""Refusals as the API server words them: `StatusError` carries a ``v1`` Status object.

Clients branch on ``code`` and ``reason``, and people search for the texts, so all three are Kubernetes' own
(apimachinery ``api/errors``). No text repeats a secret value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudhub.standalone.fielderrors import FieldError, invalid_status


class StatusError(Exception):
    """The request ends with this Status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = dict(headers or {})
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(metadata or {}),
            "status": "Failure",
            "message": message,
            "reason": reason,
        }
        if details:
            self.status["details"] = dict(details)
        self.status["code"] = code


def qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def _details(group: str, plural: str, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    if plural:
        details["kind"] = plural
    return details | more


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized", headers={"WWW-Authenticate": 'Bearer realm="cloudhub"'})


def not_found(group: str, plural: str, name: str) -> StatusError:
    message = f'{qualified(group, plural)} "{name}" not found'
    return StatusError(404, "NotFound", message, details=_details(group, plural, name))


def no_such_path(missing: str = "") -> StatusError:
    """A path or resource that this server does not have. ``missing`` says what it is."""
    message = "the server could not find the requested resource" + (f": {missing}" if missing else "")
    return StatusError(404, "NotFound", message)


def already_exists(group: str, plural: str, name: str) -> StatusError:
    message = f'{qualified(group, plural)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, details=_details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return StatusError(409, "Conflict", message, details=_details(group, plural, name))


def modified(group: str, plural: str, name: str) -> StatusError:
    return conflict(
        group,
        plural,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def apply_conflict(message: str, causes: Sequence[Mapping[str, str]]) -> StatusError:
    return StatusError(409, "Conflict", message, details={"causes": [dict(cause) for cause in causes]})


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> StatusError:
    status = invalid_status(group=group, kind=kind, name=name, errors=errors)
    return StatusError(422, "Invalid", status["message"], details=status["details"])


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str, causes: Sequence[Mapping[str, str]] = ()) -> StatusError:
    message = f'{qualified(group, plural)} "{name}" is forbidden: {why}'
    more = {"causes": [dict(cause) for cause in causes]} if causes else {}
    return StatusError(403, "Forbidden", message, details=_details(group, plural, name, **more))


def no_pods() -> StatusError:
    return StatusError(403, "Forbidden", "pods is forbidden: this server has no pods", details={"kind": "pods"})


def method_not_allowed(missing: str = "") -> StatusError:
    message = "the server does not allow this method on the requested resource" + (f": {missing}" if missing else "")
    return StatusError(405, "MethodNotAllowed", message)


def not_acceptable(accepted: Sequence[str]) -> StatusError:
    message = f"only the following media types are accepted: {', '.join(accepted)}"
    return StatusError(406, "NotAcceptable", message)


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return StatusError(415, "UnsupportedMediaType", message)


def request_too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def object_too_large(why: str) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request is too large: {why}")


def expired(message: str, metadata: Mapping[str, Any] | None = None) -> StatusError:
    return StatusError(410, "Expired", message, metadata=metadata)


def future_revision(asked: int, current: int) -> StatusError:
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
        headers={"Retry-After": "1"},
    )


def internal(why: str) -> StatusError:
    message = f"Internal error occurred: {why}"
    return StatusError(500, "InternalError", message, details={"causes": [{"message": why}]})


def unavailable(why: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", why, details={"retryAfterSeconds": 1}, headers={"Retry-After": "1"})
