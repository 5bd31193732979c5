"""PATCH: the four content types, each as a transform of the live object.

The patch is applied to the object as the request's version shows it, once for each try: when another writer came
between, it is applied anew to what that one left, as the client meant it. Server-side apply also creates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from cloudhub.standalone import errors, media
from cloudhub.standalone.apply import ApplyConflict, InvalidApply, server_side_apply
from cloudhub.standalone.decode import InvalidBody, decode_body, decode_value
from cloudhub.standalone.errors import StatusError
from cloudhub.standalone.fielderrors import required
from cloudhub.standalone.merge import InvalidPatch, json_patch, merge_patch, strategic_merge_patch
from cloudhub.standalone.offload import Offload
from cloudhub.standalone.resources import Resource
from cloudhub.standalone.storage import Storage
from cloudhub.standalone.strategies import timestamp
from cloudhub.standalone.writes import Request, Transform, Writer, Written, ignored_fields

_CUSTOM: Final = (media.JSON_PATCH, media.MERGE_PATCH, media.APPLY_PATCH)
_CORE: Final = (media.JSON_PATCH, media.MERGE_PATCH, media.APPLY_PATCH, media.STRATEGIC_PATCH)


def patch_types(resource: Resource) -> tuple[str, ...]:
    """Strategic merge needs list keys that a CustomResourceDefinition's schema does not have."""
    return _CORE if resource.strategic_merge else _CUSTOM


class Patcher:
    def __init__(
        self,
        *,
        writer: Writer,
        storage: Storage,
        offload: Offload,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._writer = writer
        self._storage = storage
        self._offload = offload
        self._now = now

    async def patch(self, request: Request, media_type: str, body: bytes, *, manager_given: bool) -> Written:
        request.size = len(body)
        try:
            if media_type == media.APPLY_PATCH:
                return await self._apply(request, body, manager_given=manager_given)
            if request.options.force:
                raise _invalid_option("force: Forbidden: may not be specified for non-apply patch")
            decode = partial(decode_value, body, media_type)
            patch, request.duplicates = await self._offload.run(len(body), decode)
            return await self._writer.update(request, _transform(request.resource, media_type, patch))
        except InvalidBody as error:
            raise errors.bad_request(str(error)) from None

    async def _apply(self, request: Request, body: bytes, *, manager_given: bool) -> Written:
        if not manager_given:
            raise _invalid_option(str(required("fieldManager", "is required for apply patch")))
        decoded = await self._offload.run(len(body), partial(decode_body, body, media.YAML))
        request.duplicates = decoded.duplicates
        applied = decoded.object
        _check_applied(request, applied)
        while True:
            if self._storage.get(request.key) is not None:
                return await self._writer.update(
                    request, lambda live: self._merged(request, live, applied), managed=True
                )
            if request.subresource or applied["metadata"].get("uid"):
                raise errors.not_found(request.resource.group, request.resource.plural, request.name)
            try:
                return await self._writer.create(request, self._merged(request, None, applied), managed=True)
            except StatusError as error:
                # Somebody created it meanwhile: then this is an apply onto that.
                if error.status["reason"] != "AlreadyExists":
                    raise

    def _merged(self, request: Request, live: Mapping[str, Any] | None, applied: Mapping[str, Any]) -> dict[str, Any]:
        resource, options = request.resource, request.options
        try:
            return server_side_apply(
                live,
                applied,
                schema=resource.schema.openapi,
                manager=options.manager,
                api_version=resource.api_version,
                time=timestamp(self._now()),
                force=options.force,
                subresource=request.subresource,
                ignored=ignored_fields(resource, request.subresource),
            )
        except ApplyConflict as error:
            raise errors.apply_conflict(str(error), error.causes) from None
        except InvalidApply as error:
            raise errors.bad_request(str(error)) from None


def _check_applied(request: Request, applied: dict[str, Any]) -> None:
    metadata = applied.get("metadata")
    if not isinstance(metadata, dict):
        metadata = applied["metadata"] = {}
    if metadata.get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    for name in ("apiVersion", "kind"):
        if not isinstance(applied.get(name), str):
            raise errors.bad_request(f"error decoding patch: {name} must be set in an applied object")
    metadata.setdefault("name", request.name)


def _transform(resource: Resource, media_type: str, patch: Any) -> Transform:
    def transform(live: dict[str, Any]) -> dict[str, Any]:
        try:
            if media_type == media.JSON_PATCH:
                return json_patch(live, patch)
            if media_type == media.MERGE_PATCH:
                return merge_patch(live, patch)
            return strategic_merge_patch(live, patch, resource.schema.openapi)
        except InvalidPatch as error:
            raise _refused(error) from None

    return transform


def _refused(error: InvalidPatch) -> StatusError:
    reasons = {400: "BadRequest", 413: "RequestEntityTooLarge", 422: "Invalid"}
    return StatusError(error.code, reasons[error.code], str(error))


def _invalid_option(problem: str) -> StatusError:
    field, _, detail = problem.partition(": ")
    return StatusError(
        422,
        "Invalid",
        f'PatchOptions.meta.k8s.io "" is invalid: {problem}',
        details={"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [{"field": field, "message": detail}]},
    )
