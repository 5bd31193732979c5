"""HTTP to registries and to where they redirect: what may be dialled, what may be sent there, what may come back.

Rules, each for a way in which a registry or a network could harm:

- https with the system's CAs, always; plain http only to a loopback address or a host that the operator listed. A
  redirect or a token server never leads from https to http.
- Redirects are followed here, not by the client: Authorization goes to the origin that it was meant for and to no
  other; cookies are not kept; user names in addresses are dropped.
- Every wait has an end: connecting, and each silence while reading. Bodies are read up to a limit.
- Errors leave as the runtime's classes. Their texts name hosts only: the path and query of a redirect are often
  signed, and an answer's body may repeat what we sent.

HTTP(S)_PROXY and NO_PROXY are honoured, except for loopback. A ``.netrc`` is not: credentials come with the task.
"""

from __future__ import annotations

import email.utils
import ipaddress
import os
import socket
import ssl
import urllib.request
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from edgehub.runtime.base import ImageNotFound, InvalidImage, PullDenied, PullError, TransientPullError
from edgehub.runtime.oci.settings import StoreSettings

MAX_REDIRECTS: Final = 5
MAX_RETRY_AFTER: Final = 3600.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK: Final = 256 << 10


class Interrupted(TransientPullError):
    """The connection broke or fell silent while a body was read; what came so far is good."""


class Transport:
    def __init__(
        self,
        *,
        insecure_registries: Collection[str],
        settings: StoreSettings,
        user_agent: str,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._insecure = frozenset(name.strip().lower() for name in insecure_registries)
        self._settings = settings
        self._user_agent = user_agent
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None
        self.request_timeout = settings.request_timeout

    def registry_url(self, host: str) -> URL:
        """Where the API of this ``host[:port]`` is: plain http where that is allowed, save on https' own port."""
        url = URL(f"http://{host}")
        plain = self._plain_http_allowed(url) and url.explicit_port != 443
        return url if plain else URL(f"https://{host}")

    def may_open(self, url: URL, *, after: URL) -> bool:
        """Whether ``after`` may send us on to ``url``."""
        if url.scheme == "http":
            return after.scheme == "http" and self._plain_http_allowed(url)
        return url.scheme == "https"

    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: dict[str, str] | None = None,
        authorization: str | None = None,
        data: Any = None,
        follow: bool = True,
    ) -> aiohttp.ClientResponse:
        """The answer at the end of the redirects, its body unread; the caller closes it. Raises
        `TransientPullError`."""
        origin = url.origin()
        for _ in range(MAX_REDIRECTS + 1):
            sent = dict(headers or {})
            if authorization is not None and url.origin() == origin:
                sent["Authorization"] = authorization
            response = await self._request(method, url, sent, data)
            if response.status not in _REDIRECTS or not follow:
                return response
            location = response.headers.get("Location", "")
            response.close()
            url = self._next(url, location)
        raise TransientPullError(f"{origin.authority} redirects more than {MAX_REDIRECTS} times")

    async def read(self, where: str, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes of the body, none at its end. Raises `Interrupted`."""
        try:
            return await response.content.read(_CHUNK)
        except TimeoutError:
            raise Interrupted(f"{where} sent nothing for {self._settings.idle_timeout:g} s") from None
        except (aiohttp.ClientError, OSError):
            raise Interrupted(f"{where} broke the connection off") from None

    async def read_all(self, where: str, response: aiohttp.ClientResponse, *, limit: int) -> bytes:
        """The whole of a small body. Raises `Interrupted`, and `InvalidImage` beyond ``limit``."""
        if (response.content_length or 0) > limit:
            raise InvalidImage(f"{where} answers with {response.content_length} bytes, more than {limit}")
        body = bytearray()
        while chunk := await self.read(where, response):
            body += chunk
            if len(body) > limit:
                raise InvalidImage(f"{where} answers with more than {limit} bytes")
        return bytes(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, url: URL, headers: dict[str, str], data: Any) -> aiohttp.ClientResponse:
        where = url.authority
        try:
            return await self._client().request(
                method, url, headers=headers, data=data, allow_redirects=False, proxy=_proxy(url)
            )
        except aiohttp.ConnectionTimeoutError:
            limit = self._settings.connect_timeout
            raise TransientPullError(f"no connection to {where} within {limit:g} s") from None
        except TimeoutError:
            raise TransientPullError(f"{where} did not answer within {self._settings.idle_timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Not chained: the client's errors carry addresses with their queries.
            raise TransientPullError(f"no connection to {where}: {_why(error)}") from None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self._settings
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=settings.connect_timeout, sock_read=settings.idle_timeout
                ),
                # Blobs are kept as they are named, compressed: nothing may unpack them on the way.
                auto_decompress=False,
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _next(self, url: URL, location: str) -> URL:
        try:
            if not location or any(not "!" <= character <= "~" for character in location):
                raise ValueError
            # As it came: quoting it anew would spoil the signature in it.
            target = url.join(URL(location, encoded=True))
            if not target.host:
                raise ValueError
            target = target.with_user(None)
        except ValueError:
            raise TransientPullError(f"{url.authority} redirects to what is no address") from None
        if not self.may_open(target, after=url):
            raise TransientPullError(f"{url.authority} redirects to {target.authority} without TLS, which is refused")
        return target

    def _plain_http_allowed(self, url: URL) -> bool:
        host = (url.host or "").lower()
        if is_loopback(host):
            return True
        bracketed = f"[{host}]" if ":" in host else host
        return bool(self._insecure & {host, bracketed, f"{bracketed}:{url.port}"})


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def failure(where: str, response: aiohttp.ClientResponse) -> PullError:
    """The error for an answer that is no success, by its status alone; 401 and 404 may mean more to the caller."""
    status = response.status
    if status == 429 or status == 408 or status == 425 or status >= 500:
        text = f"{where} answered {status}"
        return TransientPullError(text, retry_after=retry_after(response.headers.get("Retry-After", "")))
    if status in (401, 403):
        return PullDenied(f"{where} answered {status}")
    if status == 404:
        return ImageNotFound(f"{where} answered 404")
    return InvalidImage(f"{where} answered {status}")


def retry_after(text: str) -> float | None:
    """Seconds, of either form of the header; bounded, for the peer is not to put us to sleep for ever."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _proxy(url: URL) -> str | None:
    host = url.host or ""
    if is_loopback(host):
        return None
    if urllib.request.proxy_bypass(f"{host}:{url.port}"):
        return None
    return urllib.request.getproxies().get(url.scheme) or None


def _why(error: Exception) -> str:
    """In our words: an exception's own text may hold a whole address, query included."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "")
        return f"its certificate is not trusted{f' ({reason})' if reason else ''}"
    if isinstance(error, aiohttp.ClientSSLError):
        return "it does not speak TLS as we do; a plain http registry must be listed in insecureRegistries"
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return "the HTTP proxy does not let us through"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    system = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(system, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(system, OSError) and system.errno:
        return os.strerror(system.errno).lower()
    return "it does not speak HTTP as we do"
