"""What can go wrong on the way to the hub, by what the caller does next. Texts are safe to show: no token, no key."""

from __future__ import annotations

import ssl


class LinkError(Exception):
    """Base of all errors of `edgehub.link`."""


class JoinError(LinkError):
    """The node could not join or renew, and trying the same again will not help: token, name or files are wrong."""


class HubUnreachable(LinkError):
    """The hub did not answer, or not as expected: try again later."""


class IdentityError(LinkError):
    """The certificate, key or CA files are missing, broken, or do not belong together."""


class IdentityMissing(IdentityError):
    """There is no certificate yet."""


class NotConnected(LinkError):
    """There is no session now."""


def tls_problem(error: ssl.SSLError, host: str) -> str:
    """A handshake's failure in words that say what to mend."""
    if isinstance(error, ssl.SSLCertVerificationError):
        message = error.verify_message
        if "Hostname mismatch" in message or "IP address mismatch" in message:
            return f"the hub's certificate is not for {host}: add it to the hub's advertiseAddress or dnsNames"
        if "not yet valid" in message or "expired" in message:
            return f"the hub's certificate: {message}; is this machine's clock right?"
        return f"the hub's certificate is not of the CA that this node trusts ({message})"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"TLS with {host} failed: {reason[:200]}"
