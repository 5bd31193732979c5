"""Server-side apply and managedFields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


class ApplyConflict(Exception):
    """Another manager owns a field (409). The text is the API server's message; ``causes`` go in details.causes."""

    def __init__(self, message: str, causes: Sequence[Mapping[str, str]]) -> None:
        super().__init__(message)
        self.causes = list(causes)


class InvalidApply(ValueError):
    """The applied configuration is no object that can be applied (400/422)."""


def server_side_apply(
    live: Mapping[str, Any] | None,
    applied: Mapping[str, Any],
    *,
    schema: Mapping[str, Any],
    manager: str,
    api_version: str,
    time: str,
    force: bool = False,
    subresource: str = "",
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """The object after ``manager`` applied ``applied`` onto ``live`` (None: it is created), with its managedFields.

    ``schema`` is `ResourceSchema.openapi`; ``ignored`` names top-level fields that this endpoint does not write
    (``status`` on the main one; ``spec`` and ``metadata`` on the status subresource): they are never owned.
    Returns an object equal to ``live``, times included, when nothing changed.
    """
    raise NotImplementedError


def track_update(
    old: Mapping[str, Any] | None,
    new: dict[str, Any],
    *,
    schema: Mapping[str, Any],
    manager: str,
    api_version: str,
    time: str,
    operation: str = "Update",
    subresource: str = "",
    ignored: Collection[str] = (),
) -> None:
    """Set ``new["metadata"]["managedFields"]`` after a create, an update or a patch by ``manager``. Call it on the
    object as it will be stored, after defaults and with server-set metadata taken over from ``old``."""
    raise NotImplementedError
