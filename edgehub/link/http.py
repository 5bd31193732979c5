"""The two requests of KubeEdge's join endpoints, over the standard library's HTTP client in a thread.

Problem: `/edge.crt` is a GET that carries a body, the answers come from a server that is not trusted yet, and an agent
that runs for a year must not hold an HTTP stack in memory for one request in ten months.

Guarantee: answers are bounded (1 MiB), each step and the whole have a deadline, a cancelled call closes its socket so
that no thread lingers, and errors say what was asked of whom; the token is in none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgehub.link.errors import HubUnreachable, JoinError, tls_problem

if TYPE_CHECKING:
    import http.client

MAX_BODY_BYTES = 1 << 20
_MAX_ERROR_TEXT = 300


async def get(
    server: str,
    path: str,
    *,
    context: ssl.SSLContext,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float = 30.0,
    secret: str = "",
) -> bytes:
    """The body of a 200 answer. ``secret`` is cut out of what the hub says. Raises `HubUnreachable` (try again),
    `JoinError` (refused)."""
    import http.client  # late: see above

    parts = urlsplit(server)
    host = parts.hostname or ""
    connection = http.client.HTTPSConnection(host, parts.port or 443, timeout=timeout, context=context)
    try:
        async with asyncio.timeout(timeout):
            status, data = await asyncio.to_thread(_exchange, connection, path, dict(headers or {}), body)
    except ssl.SSLCertVerificationError as error:
        raise JoinError(tls_problem(error, host)) from error
    except ssl.SSLError as error:
        raise HubUnreachable(tls_problem(error, host)) from error
    except TimeoutError as error:
        raise HubUnreachable(f"{server}{path} did not answer within {timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HubUnreachable(f"cannot reach {server}{path}: {what[:_MAX_ERROR_TEXT]}") from error
    finally:
        _abort(connection)
    if len(data) > MAX_BODY_BYTES:
        raise JoinError(f"{server}{path} answered with more than {MAX_BODY_BYTES} bytes; is it a hub?")
    if status != http.client.OK:
        text = f"{server}{path} answered {status}: {_readable(data, secret)}"
        if status >= 500 or status == http.client.TOO_MANY_REQUESTS:
            raise HubUnreachable(text)
        raise JoinError(text)
    return data


def _exchange(
    connection: http.client.HTTPSConnection, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, bytes]:
    connection.request("GET", path, body=body or None, headers=headers)
    response = connection.getresponse()
    return response.status, response.read(MAX_BODY_BYTES + 1)


def _abort(connection: http.client.HTTPSConnection) -> None:
    """Ends a read that a thread may still be in; a closed connection does not mind."""
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def _readable(data: bytes, secret: str) -> str:
    text = data[:4096].decode("utf-8", errors="replace")
    if secret:
        text = text.replace(secret, "<token>")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text[:_MAX_ERROR_TEXT] or "(no text)"
