"""Join tokens in KubeEdge's form: ``<hex sha256 of the CA certificate>.<JWT>``.

The first part lets a node check the CA that it fetched over an unverified connection. The JWT is HS256, keyed with the
DER of the CA's private key, and has ``exp``; so tokens need no store, and a CloudCore with the same CA issues and takes
the same ones. Ours may carry ``node``: then only that node can join with it. And they carry ``issued``: one made before
a node was revoked is no good for it afterwards (`cloudhub.pki.revocation`). A CloudCore ignores these two; the
registered ``iat`` it would not ignore, and refuse a token when its clock is behind.

What a token cannot do: be revoked by itself before it expires (other than by a new CA). So they are short-lived, and
the standing one is renewed by `cloudhub.pki.refresh`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import jwt

from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.errors import Refused
from cloudhub.pki.names import check_node_name

ALGORITHM: Final = "HS256"
NODE_CLAIM: Final = "node"
ISSUED_CLAIM: Final = "issued"
MAX_TOKEN: Final = 4096
MAX_TTL: Final = timedelta(days=3650)


class TokenIssuer:
    def __init__(self, ca: CertificateAuthority, *, now: Callable[[], datetime] = utc_now) -> None:
        self._ca = ca
        self._now = now

    def issue(self, ttl: timedelta, node: str | None = None) -> str:
        """The whole token, four parts. Raises ValueError on a ttl that is not positive, and on no node name."""
        if not timedelta(0) < ttl <= MAX_TTL:
            raise ValueError(f"ttl of {ttl} is not between 0 and {MAX_TTL.days} days")
        now = self._now()
        claims: dict[str, object] = {
            "exp": int((now + ttl).timestamp()),
            ISSUED_CLAIM: round(now.timestamp(), 3),
        }
        if node is not None:
            claims[NODE_CLAIM] = check_node_name(node)
        return f"{self._ca.fingerprint}.{jwt.encode(claims, self._ca.key.der, algorithm=ALGORITHM)}"

    def verify(self, token: str, node: str) -> float | None:
        """``token`` is the JWT alone, as nodes send it. Returns when it was issued, if it says so. Raises `Refused`
        (401, or 403 for another node's token); no text of it holds anything of the token."""
        if len(token) > MAX_TOKEN:
            raise Refused(401, "token", "token is too long to be one")
        try:
            # The list of algorithms is what refuses alg "none" and public-key tricks. Time is checked below, by our
            # own clock.
            claims = jwt.decode(
                token,
                self._ca.key.der,
                algorithms=[ALGORITHM],
                options={"require": ["exp"], "verify_exp": False, "verify_iat": False, "verify_nbf": True},
            )
        except jwt.InvalidTokenError:
            raise Refused(401, "token", "token is not valid here: not of this CA, changed, or cut off") from None
        self._check_time(claims.get("exp"))
        bound = claims.get(NODE_CLAIM)
        if bound is not None and bound != node:
            raise Refused(403, "token of another node", f"token is not for node {node}")
        issued = claims.get(ISSUED_CLAIM)
        return float(issued) if isinstance(issued, (int, float)) and not isinstance(issued, bool) else None

    def _check_time(self, expires: object) -> None:
        if isinstance(expires, bool) or not isinstance(expires, (int, float)):
            raise Refused(401, "token", "token has no usable expiry")
        # Negated, so that a NaN, which is neither more nor less, is refused too.
        if not expires > self._now().timestamp():
            raise Refused(401, "token expired", "token has expired; ask for a new one (cloudhub token)")


def issue_join_token(ca: CertificateAuthority, *, ttl: timedelta, node: str | None = None) -> str:
    """What ``cloudhub token`` prints."""
    return TokenIssuer(ca).issue(ttl, node)


def bearer(header: str | None) -> str:
    """The token of an ``Authorization`` header. Raises `Refused`."""
    if not header:
        raise Refused(401, "no credentials", "neither a token (Authorization: Bearer) nor a client certificate")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip() or " " in token.strip():
        raise Refused(401, "token", "header Authorization is not of the form 'Bearer <token>'")
    return token.strip()
