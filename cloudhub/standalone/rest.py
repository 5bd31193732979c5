"""The resource endpoints: from a path and a verb to the store and back to bytes.

One handler a verb, all alike: find the resource, read options and body (bounded, typed), let `Writer`, `Patcher`,
`list_page` or `Watch` do the work, and send what the client's Accept header asks for. What is not served is answered
with a Status: 404 for a path or resource that is not here, 405 for a verb that it does not have.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from cloudhub.standalone import errors, media, protobuf
from cloudhub.standalone.decode import Decoded, InvalidBody, cannot_be_handled, decode_body
from cloudhub.standalone.deletes import Deleter
from cloudhub.standalone.errors import StatusError
from cloudhub.standalone.listing import list_page, render_one, render_page, require_reached
from cloudhub.standalone.offload import Offload
from cloudhub.standalone.options import (
    DeleteOptions,
    ListOptions,
    Target,
    WriteOptions,
    is_watch,
    parse_delete_options,
    parse_list_options,
    parse_path,
    parse_revision,
    parse_write_options,
)
from cloudhub.standalone.patching import Patcher, patch_types
from cloudhub.standalone.resources import Catalog, Resource, dump
from cloudhub.standalone.storage import Storage
from cloudhub.standalone.watch import Watch, WatchRequest
from cloudhub.standalone.writes import Request, Writer, Written

MAX_BODY_BYTES: Final = 3 * 1024 * 1024
_STREAM_ABOVE: Final = 500
_BODY_TYPES: Final = (media.JSON, media.YAML)
_JSON_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
_MAX_WARNINGS: Final = 32
_DELETE_SLICE: Final = 256


class ResourceEndpoints:
    def __init__(self, *, storage: Storage, catalog: Catalog, offload: Offload) -> None:
        self._storage = storage
        self._catalog = catalog
        self._offload = offload
        self._writer = Writer(storage=storage, catalog=catalog, offload=offload)
        self._deleter = Deleter(storage=storage)
        self._patcher = Patcher(writer=self._writer, storage=storage, offload=offload)
        self._closing = asyncio.Event()
        self._watches: set[Watch] = set()

    def close(self) -> None:
        """Ends the watches; other requests end by themselves."""
        self._closing.set()
        for watch in self._watches:
            watch.wake()

    async def handle(self, http: web.Request, parts: list[str]) -> web.StreamResponse:
        """``parts`` of the path, at least ``api/v1/PLURAL`` or ``apis/GROUP/VERSION/PLURAL``."""
        target = parse_path(parts)
        if target is None:
            raise errors.no_such_path()
        resource = self._find(target)
        if target.name:
            return await self._handle_one(http, resource, target)
        return await self._handle_collection(http, resource, target)

    def _find(self, target: Target) -> Resource:
        resource = self._catalog.find(target.group, target.version, target.plural)
        if resource is None:
            if (target.group, target.plural) == ("", "pods"):
                # 403, not 404: `kubectl describe node` asks for the node's pods, and goes on without after a 403 only.
                raise errors.no_pods()
            raise errors.no_such_path()
        if target.namespace is not None and not resource.namespaced:
            raise errors.no_such_path(f"{resource.qualified} have no namespace")
        if target.name and resource.namespaced and target.namespace is None:
            raise errors.no_such_path(f"{resource.qualified} are in a namespace")
        if target.subresource and not (target.subresource == "status" and resource.status):
            raise errors.no_such_path(f"{resource.qualified} have no subresource {target.subresource[:64]} here")
        return resource

    async def _handle_one(self, http: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        match http.method:
            case "GET" | "HEAD" if is_watch(http.query) and not target.subresource:
                named = {**http.query, "fieldSelector": f"metadata.name={target.name}"}
                return await self._watch(http, resource, target, parse_list_options(resource, named))
            case "GET" | "HEAD":
                return self._get(http, resource, target)
            case "PUT":
                return await self._put(http, resource, target)
            case "PATCH":
                return await self._patch(http, resource, target)
            case "DELETE" if not target.subresource:
                return await self._delete(http, resource, target)
        raise errors.method_not_allowed()

    async def _handle_collection(self, http: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        match http.method:
            case "GET" | "HEAD":
                options = parse_list_options(resource, http.query)
                if options.watch:
                    return await self._watch(http, resource, target, options)
                return await self._list(http, resource, target, options)
            case "POST" if target.namespace is not None or not resource.namespaced:
                return await self._post(http, resource, target)
            case "DELETE" if target.namespace is not None or not resource.namespaced:
                return await self._delete_collection(http, resource, target)
        raise errors.method_not_allowed()

    # --- reads --------------------------------------------------------------------------------------------------------

    def _get(self, http: web.Request, resource: Resource, target: Target) -> web.Response:
        output = media.negotiate(http.headers.get("Accept", ""))
        require_reached(self._storage, parse_revision(http.query.get("resourceVersion", "")))
        stored = self._storage.get(resource.key(target.namespace or "", target.name))
        if stored is None:
            raise errors.not_found(resource.group, resource.plural, target.name)
        body = render_one(resource, stored, output, include_object=http.query.get("includeObject", "Metadata"))
        return _response(body, resource)

    async def _list(
        self, http: web.Request, resource: Resource, target: Target, options: ListOptions
    ) -> web.StreamResponse:
        output = media.negotiate(http.headers.get("Accept", ""))
        page = await list_page(self._storage, resource, target.namespace, options)
        include = http.query.get("includeObject", "Metadata")
        pieces = render_page(resource, page, output, include_object=include)
        if len(page.items) <= _STREAM_ABOVE:
            return _response(b"".join([piece async for piece in pieces]), resource)
        # A large list goes out piece by piece as the client takes it: whole, it would hold up the loop.
        response = web.StreamResponse(headers=_headers(resource))
        await response.prepare(http)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    async def _watch(
        self, http: web.Request, resource: Resource, target: Target, options: ListOptions
    ) -> web.StreamResponse:
        request = WatchRequest(
            resource,
            target.namespace,
            options,
            media.negotiate(http.headers.get("Accept", "")),
            http.query.get("includeObject", "Metadata"),
        )
        response = web.StreamResponse(headers=_headers(resource))
        await response.prepare(http)
        watch = Watch(storage=self._storage, request=request, send=response.write, closing=self._closing)
        self._watches.add(watch)
        try:
            await watch.run()
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            # It does not read, or it is gone: nothing more can be told to it.
            if http.transport is not None:
                http.transport.abort()
        finally:
            self._watches.discard(watch)
        return response

    # --- writes -------------------------------------------------------------------------------------------------------

    async def _post(self, http: web.Request, resource: Resource, target: Target) -> web.Response:
        request = self._write_request(http, resource, target)
        decoded = await self._read_object(http, request)
        return self._written(http, request, await self._writer.create(request, decoded.object))

    async def _put(self, http: web.Request, resource: Resource, target: Target) -> web.Response:
        request = self._write_request(http, resource, target)
        decoded = await self._read_object(http, request)
        exists = self._storage.get(request.key) is not None
        if not exists and resource.created_by_put and not target.subresource:
            return self._written(http, request, await self._writer.create(request, decoded.object))
        body = decoded.object
        # Copied in case another writer comes between and it is done again.
        written = await self._writer.update(request, lambda live: _replacement(body), strict_base=resource.custom)
        return self._written(http, request, written)

    async def _patch(self, http: web.Request, resource: Resource, target: Target) -> web.Response:
        media_type = media.body_type(http.headers.get("Content-Type", ""), patch_types(resource))
        request = self._write_request(http, resource, target)
        given = bool(http.query.get("fieldManager"))
        written = await self._patcher.patch(request, media_type, await http.read(), manager_given=given)
        return self._written(http, request, written)

    async def _delete(self, http: web.Request, resource: Resource, target: Target) -> web.Response:
        options = await _read_delete_options(http)
        request = Request(resource, target.namespace or "", target.name, WriteOptions())
        written = await self._deleter.delete(request, options)
        if not written.deleted:
            # Held by finalizers: the object, with its deletionTimestamp.
            return self._written(http, request, written)
        details = {"name": target.name, "kind": resource.plural, "uid": written.stored.uid}
        if resource.group:
            details["group"] = resource.group
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return _response(dump(status), resource)

    async def _delete_collection(self, http: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        options = await _read_delete_options(http)
        selection = parse_list_options(resource, http.query)
        page = await list_page(self._storage, resource, target.namespace, selection)
        for start in range(0, len(page.items), _DELETE_SLICE):
            keys = [stored.key for stored in page.items[start : start + _DELETE_SLICE]]
            # Side by side, so that they share transactions.
            await asyncio.gather(*(self._delete_quietly(resource, key.namespace, key.name, options) for key in keys))
        output = media.negotiate(http.headers.get("Accept", ""))
        pieces = [piece async for piece in render_page(resource, page, output)]
        return _response(b"".join(pieces), resource)

    async def _delete_quietly(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> None:
        try:
            await self._deleter.delete(Request(resource, namespace, name, WriteOptions()), options)
        except StatusError as error:
            if error.code != 404:
                raise

    async def _read_object(self, http: web.Request, request: Request) -> Decoded:
        resource = request.resource
        readable = protobuf.readable(resource.api_version, resource.kind)
        accepted = (*_BODY_TYPES, protobuf.MEDIA_TYPE) if readable else _BODY_TYPES
        media_type = media.body_type(http.headers.get("Content-Type", ""), accepted)
        raw = await http.read()
        request.size = len(raw)
        try:
            decoded = await self._offload.run(len(raw), partial(_decode_object, raw, media_type))
        except InvalidBody as error:
            raise errors.bad_request(cannot_be_handled(resource.kind, resource.version, str(error))) from None
        request.duplicates = decoded.duplicates
        return decoded

    def _write_request(self, http: web.Request, resource: Resource, target: Target) -> Request:
        options = parse_write_options(http.query, http.headers.get("User-Agent", ""))
        return Request(resource, target.namespace or "", target.name, options, target.subresource)

    def _written(self, http: web.Request, request: Request, written: Written) -> web.Response:
        output = media.negotiate(http.headers.get("Accept", ""))
        body = render_one(request.resource, written.stored, output)
        response = _response(body, request.resource, status=201 if written.created else 200)
        for warning in request.warnings[:_MAX_WARNINGS]:
            response.headers.add("Warning", _warning(warning))
        return response


def _replacement(body: Mapping[str, Any]) -> dict[str, Any]:
    replacement: dict[str, Any] = copy.deepcopy(dict(body))
    return replacement


def _decode_object(raw: bytes, media_type: str) -> Decoded:
    if media_type == protobuf.MEDIA_TYPE:
        return Decoded(protobuf.decode_object(raw))
    return decode_body(raw, media_type)


async def _read_delete_options(http: web.Request) -> DeleteOptions:
    raw = await http.read()
    if not raw:
        return parse_delete_options({}, http.query)
    media_type = media.body_type(http.headers.get("Content-Type", ""), (*_BODY_TYPES, protobuf.MEDIA_TYPE))
    try:
        if media_type == protobuf.MEDIA_TYPE:
            return parse_delete_options(protobuf.decode_delete_options(raw), http.query)
        return parse_delete_options(decode_body(raw, media_type).object, http.query)
    except InvalidBody as error:
        raise errors.bad_request(str(error)) from None


def _headers(resource: Resource) -> dict[str, str]:
    if resource.deprecation:
        return {**_JSON_HEADERS, "Warning": _warning(resource.deprecation)}
    return dict(_JSON_HEADERS)


def _response(body: bytes, resource: Resource, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers=_headers(resource))


def _warning(text: str) -> str:
    """RFC 7234, code 299. Quoted text: control characters would end the header."""
    safe = "".join(letter if letter.isprintable() else " " for letter in text[:512])
    quoted = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
