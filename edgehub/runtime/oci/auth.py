"""What a registry's 401 asks for, and how it is answered: the distribution specification's token flow, or Basic.

The registry names the token server (the realm), and Docker's protocol wants the credential sent there. What is in our
hands: the realm gets it over https only, save where plain http to that very host is allowed; it is never sent on by a
redirect to another origin; and the token goes back to the registry alone. One answer is kept for all requests to a
repository, and a refused one is renewed once a request, so no registry can keep us in a loop.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import FormData
from yarl import URL

from edgehub.runtime.base import PullDenied, TransientPullError
from edgehub.runtime.oci.transport import Transport, failure
from shared.wire import Credential

CLIENT_ID: Final = "edgehub"
_MAX_HEADER: Final = 8192
_MAX_TOKEN_BYTES: Final = 1 << 20
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a token
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """Lower-case."""
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers; what cannot be read ends that header."""
    found: list[Challenge] = []
    for header in headers:
        found += _parse_header(header[:_MAX_HEADER])
    return found


def _parse_header(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        if header[position] in ", \t":
            position += 1
        elif found and (parameter := _PARAMETER.match(header, position)):
            name, quoted, bare = parameter.groups()
            value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1].parameters.setdefault(name.lower(), value)
            position = parameter.end()
        elif scheme := _SCHEME.match(header, position):
            found.append(Challenge(scheme[1].lower(), {}))
            position = scheme.end()
        else:
            break
    return found


class Authorizer:
    """The Authorization header for one repository of one registry."""

    def __init__(self, *, transport: Transport, registry: URL, repository: str, credential: Credential | None) -> None:
        self._transport = transport
        self._registry = registry
        self._repository = repository
        self._credential = credential
        self._lock = asyncio.Lock()
        self.header: str | None = None

    async def renew(self, challenges: list[Challenge], refused: str | None) -> None:
        """Sets `header` anew, unless another request did since ``refused`` was current. Raises `PullDenied`,
        `TransientPullError`."""
        async with self._lock:
            if self.header == refused:
                self.header = await self._answer(challenges)

    async def _answer(self, challenges: list[Challenge]) -> str:
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in by_scheme:
            return f"Bearer {await self._token(by_scheme['bearer'])}"
        if "basic" in by_scheme:
            basic = _basic(self._credential)
            if basic is None:
                raise PullDenied(f"registry {self._registry.authority} wants a user and a password, and none is given")
            return basic
        asked = ", ".join(sorted(by_scheme))[:100] or "nothing"
        raise PullDenied(f"registry {self._registry.authority} answered 401 and asks for {asked}, not Bearer or Basic")

    async def _token(self, challenge: Challenge) -> str:
        realm = self._realm(challenge)
        scope = challenge.parameters.get("scope") or f"repository:{self._repository}:pull"
        query = {"service": challenge.parameters.get("service", ""), "scope": scope}
        query = {key: value[:1024] for key, value in query.items() if value}
        try:
            async with asyncio.timeout(self._transport.request_timeout):
                return await self._fetch_token(realm, query)
        except TimeoutError:
            raise TransientPullError(f"token server {realm.authority} did not answer in time") from None

    async def _fetch_token(self, realm: URL, query: dict[str, str]) -> str:
        credential = self._credential
        if credential is not None and credential.identity_token:
            form = FormData(
                {
                    "grant_type": "refresh_token",
                    "client_id": CLIENT_ID,
                    "refresh_token": credential.identity_token,
                    **query,
                }
            )
            response = await self._transport.open("POST", realm, data=form, follow=False)
            # Token servers without the OAuth2 form answer so; then user and password may do.
            if response.status not in (400, 401, 404, 405) or _basic(credential) is None:
                return await self._read_token(realm, response)
            response.close()
        url = realm.update_query(query)
        response = await self._transport.open("GET", url, authorization=_basic(credential))
        return await self._read_token(realm, response)

    async def _read_token(self, realm: URL, response: Any) -> str:
        where = f"token server {realm.authority}"
        try:
            if response.status in (400, 401, 403, 404, 405):
                raise PullDenied(f"{where} answered {response.status} {self._with_or_without()}")
            if response.status != 200:
                raise failure(where, response)
            body = await self._transport.read_all(where, response, limit=_MAX_TOKEN_BYTES)
        finally:
            response.close()
        token = _token_of(body)
        if token is None:
            raise TransientPullError(f"{where} answered without a token")
        return token

    def _with_or_without(self) -> str:
        return "without a credential" if self._credential is None else "to the credential given"

    def _realm(self, challenge: Challenge) -> URL:
        try:
            realm = URL(challenge.parameters.get("realm", ""))
            allowed = bool(realm.host) and self._transport.may_open(realm, after=self._registry)
        except ValueError:
            allowed = False
        if not allowed:
            raise PullDenied(
                f"registry {self._registry.authority} sends to a token server that is no https address; "
                "no credential goes there"
            )
        return realm.with_user(None).with_fragment(None)


def _basic(credential: Credential | None) -> str | None:
    if credential is None or not (credential.username or credential.password):
        return None
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _token_of(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    for key in ("token", "access_token"):
        token = answer.get(key)
        # It becomes a header's value: nothing in it may end the header.
        if isinstance(token, str) and token and all("!" <= character <= "~" for character in token):
            return token
    return None
