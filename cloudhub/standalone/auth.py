"""Who may speak to the embedded API server: the holder of one bearer token, kept in the data directory.

There are no users and no roles: the token may do everything, like the admin of a cluster. What a load balancer or
`kubectl version` asks for without credentials (`PUBLIC_PATHS`) is answered to anyone, as in a cluster.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path
from typing import Final

from shared.files import write_atomically

PUBLIC_PATHS: Final = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_TOKEN_BYTES: Final = 32


class Authenticator:
    def __init__(self, *, token: str) -> None:
        self._expected = token.encode()

    def admits(self, path: str, authorization: str) -> bool:
        if path in PUBLIC_PATHS and not authorization:
            return True
        scheme, _, given = authorization.partition(" ")
        token = given.strip().encode(errors="surrogateescape")
        return scheme.lower() == "bearer" and hmac.compare_digest(token, self._expected)


def load_token(path: Path) -> str:
    """The token in the file; a new one is made and kept when there is no file."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        write_atomically(path, token.encode() + b"\n")
        return token
    if len(token) < _TOKEN_BYTES:
        raise ValueError(f"{path}: must hold a token of at least {_TOKEN_BYTES} characters; remove it to get a new one")
    return token
