"""From what a container runtime answers to the error classes of `edgehub.runtime.base`.

Problem: CRI has no error model. containerd and CRI-O answer nearly every failed pull with gRPC's UNKNOWN and a sentence
of the Go library that failed, and only the sentence tells a wrong password from a registry that is down.

Guarantee: this is the one place that reads such sentences. `_TEXTS` is tried from top to bottom; what neither it nor
the code knows is taken as transient, since tries are bounded by the job's retryTimes. What comes out is one line: what
was asked of whom, and the runtime's own words, with credentials and URL queries (presigned links) removed first, then
cut.

Not here: gRPC itself. Codes come in by name, so that the table is tested without a connection.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

from edgehub.runtime.base import (
    ImageNotFound,
    ImageRuntimeError,
    InvalidImage,
    NoSpace,
    PullDenied,
    PullError,
    RuntimeUnavailable,
    TransientPullError,
)
from shared.images import ImageReference
from shared.wire import Credential

MAX_PEER_TEXT: Final = 600

_Kind = type[ImageRuntimeError]


def _rule(kind: _Kind, *patterns: str) -> tuple[re.Pattern[str], _Kind]:
    return re.compile("|".join(patterns), re.IGNORECASE), kind


def _status(code: str) -> str:
    """An HTTP status as a word of its own: no port, no part of an address or of a digest."""
    return rf"(?<![\w:.-]){code}\b"


# The order matters: a sentence often says two things, and the cause stands above its consequence.
_TEXTS: Final[tuple[tuple[re.Pattern[str], _Kind], ...]] = (
    # The runtime answers, its image service does not: still starting, or disabled by its configuration.
    _rule(RuntimeUnavailable, r"server is not initialized yet", r"unknown service runtime\.v1"),
    # A full disk makes everything after it fail too.
    _rule(NoSpace, r"no space left on device", r"disk quota exceeded"),
    # Above 'denied': rate limits and outages of a token service come wrapped in the words of a failed authorization.
    _rule(TransientPullError, r"toomanyrequests", r"too many requests", r"rate limit", _status("429")),
    _rule(TransientPullError, r"internal server error", r"bad gateway", r"service unavailable", r"gateway time-?out"),
    _rule(TransientPullError, r"status(?: ?code)?:? 5\d\d\b", r"RegistryUnavailable"),
    # Above 'not found': a registry that hides its repositories says both in one sentence.
    _rule(PullDenied, _status("40[13]"), r"unauthori[sz]ed", r"forbidden", r"insufficient_scope", r"access denied"),
    _rule(PullDenied, r"access to the resource is denied", r"authentication required", r"authorization failed"),
    _rule(PullDenied, r"no basic auth credentials", r"invalid username/password", r"incorrect username or password"),
    # Settings of the node or of the registry: the same try has the same end.
    _rule(PullError, r"x509:", r"tls: failed to verify", r"server gave HTTP response to HTTPS client"),
    _rule(PullError, r"SignatureValidationFailed", r"source image rejected", r"signature verification"),
    # The way to the registry. Above 'not found': a name server's 'not found' is no missing image.
    _rule(
        TransientPullError, r"connection (?:refused|reset|timed out)", r"no route to host", r"network is unreachable"
    ),
    _rule(TransientPullError, r"no such host", r"server misbehaving", r"name resolution", r"broken pipe"),
    _rule(TransientPullError, r"i/o timeout", r"handshake timeout", r"deadline exceeded", r"timeout awaiting"),
    _rule(TransientPullError, r"context canceled", r"unexpected EOF", r": EOF\b", r"use of closed network connection"),
    # Less or other bytes than promised.
    _rule(TransientPullError, r"failed size validation", r"unexpected commit digest", r"digest did not match"),
    _rule(InvalidImage, r"invalid reference format", r"failed to parse image reference", r"repository name must be"),
    _rule(ImageNotFound, r"manifest unknown", r"name unknown", r"blob unknown", r"repository name not known"),
    _rule(ImageNotFound, r"no match for platform", r"no image found in (?:manifest list|image index)"),
    _rule(ImageNotFound, _status("404"), r"not found", r"does not exist", r"no such manifest"),
    _rule(InvalidImage, r"unsupported (?:manifest )?media ?type", r"unsupported manifest", r"invalid tar header"),
    _rule(InvalidImage, r"gzip: invalid header", r"invalid rootfs", r"mismatched image rootfs"),
)

_CODES: Final[dict[str, _Kind]] = {
    "NOT_FOUND": ImageNotFound,
    "INVALID_ARGUMENT": InvalidImage,
    "PERMISSION_DENIED": PullDenied,
    "UNAUTHENTICATED": PullDenied,
}
"""Set by some runtimes for some errors; asked when no text matches, since a code is coarser than a sentence."""


def pull_error(
    code: str, details: str, *, endpoint: str, reference: ImageReference, credential: Credential | None
) -> ImageRuntimeError:
    """Of a PullImage that failed with this gRPC code and text."""
    if code == "UNIMPLEMENTED" or (code == "UNAVAILABLE" and "RegistryUnavailable" not in details):
        # gRPC's own words for a lost connection to the runtime are those of a lost connection to a registry.
        return runtime_error(code, details, endpoint=endpoint, credential=credential)
    kind = classify(code, details, reference)
    peer = peer_text(details, credential)
    if issubclass(kind, RuntimeUnavailable):
        return runtime_error(code, details, endpoint=endpoint, credential=credential)
    return kind(f"{_summary(kind, reference, credential)}: {peer or code}")


def runtime_error(
    code: str, details: str, *, endpoint: str, credential: Credential | None = None
) -> RuntimeUnavailable:
    """Of any other call, or of a pull that the runtime itself could not do."""
    peer = peer_text(details, credential) or code
    if code == "UNIMPLEMENTED":
        return RuntimeUnavailable(
            f"container runtime at {endpoint} serves no CRI v1 (is its cri plugin disabled, or is it older than "
            f"containerd 1.6 or CRI-O 1.20?): {peer}"
        )
    if code == "UNAVAILABLE":
        return RuntimeUnavailable(f"container runtime at {endpoint} does not answer: {peer}")
    return RuntimeUnavailable(f"container runtime at {endpoint} failed: {peer}")


def classify(code: str, details: str, reference: ImageReference) -> _Kind:
    text = _without_names(details, reference)
    for pattern, kind in _TEXTS:
        if pattern.search(text):
            return kind
    return _CODES.get(code, TransientPullError)


def _without_names(details: str, reference: ImageReference) -> str:
    """The sentence without the user's own words: an image may well be called ``forbidden:404``."""
    text = details.replace(reference.repository, "REPOSITORY").replace(reference.registry, "REGISTRY")
    if reference.digest:
        text = text.replace(reference.digest, "DIGEST")
    if reference.tag:
        text = re.sub(rf"(?<=[:/ ]){re.escape(reference.tag)}(?=[]\"':,\s?]|$)", "TAG", text)
    return text


def _summary(kind: _Kind, reference: ImageReference, credential: Credential | None) -> str:
    registry = reference.registry
    if issubclass(kind, PullDenied):
        given = "with the credential given" if credential else "no credential was given"
        return f"registry {registry} refuses {reference} ({given})"
    if issubclass(kind, ImageNotFound):
        return f"registry {registry} has no {reference}"
    if issubclass(kind, InvalidImage):
        return f"{reference} is no valid image"
    if issubclass(kind, NoSpace):
        return f"no space left on the node for {reference}"
    if issubclass(kind, TransientPullError):
        return f"pulling {reference} failed"
    return f"pulling {reference} cannot work before settings are mended"


# --- Peer text ------------------------------------------------------------------------------------------------

_HIDDEN: Final = "***"
_NOISE: Final = re.compile(
    r"^failed to pull and unpack image \"[^\"]*\": |failed to resolve reference \"[^\"]*\": "
    r"|^failed to connect to all addresses; last error: \w+: "
)
_USERINFO: Final = re.compile(r"(?<=://)[^/\s@\"']+@")
_QUERY: Final = re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']*")
_AUTHORIZATION: Final = re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)


def peer_text(text: str, credential: Credential | None = None) -> str:
    """One line for people: no secret, no noise, at most `MAX_PEER_TEXT` characters."""
    # Secrets before the cut: half a password is a secret too, and would no longer be found.
    for secret in _spellings(credential):
        text = _hide(text, secret)
    text = _USERINFO.sub(f"{_HIDDEN}@", text)
    text = _QUERY.sub(rf"\1?{_HIDDEN}", text)
    text = _AUTHORIZATION.sub(rf"\1 {_HIDDEN}", text)
    # Not only control characters: some that are none turn around what a terminal shows after them.
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    text = _NOISE.sub("", text).strip()
    return text if len(text) <= MAX_PEER_TEXT else text[: MAX_PEER_TEXT - 3] + "..."


def _spellings(credential: Credential | None) -> Iterable[str]:
    """The secrets of a credential as they may stand in a text, longest first."""
    if credential is None:
        return []
    plain = [credential.password, credential.identity_token]
    if credential.password:
        plain.append(b64encode(f"{credential.username}:{credential.password}".encode()).decode())
    found = {spelled for secret in plain if secret for spelled in (secret, quote(secret, safe=""), quote_plus(secret))}
    return sorted(found, key=len, reverse=True)


def _hide(text: str, secret: str) -> str:
    if len(secret) >= 4:
        return text.replace(secret, _HIDDEN)
    # So short a word stands by chance inside of others.
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text)
