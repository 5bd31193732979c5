"""Image references by Docker's rules, as containerd and kubelet read them.

A reference names a registry, a repository there, and a tag, a digest or both. Users write short forms
(``nginx``, ``team/app``); two places that expand them differently pull two different images, so everything in this
project that needs the parts of a reference takes them from `parse_reference`, and ``str()`` of the result is the one
full name: parsing that again gives the same reference.

Guarantees: any text either parses or raises `InvalidReference`; a digest is never split at its colon, nor a port taken
for a tag; what parses has a registry that can be dialled, so nobody need check it again.

Limits: digests are sha256 or sha512, the two that registries use and that the built-in store can verify. With a tag and
a digest the digest decides what is pulled; the tag is kept because the user wrote it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

MAX_REFERENCE: Final = 1024
MAX_REGISTRY: Final = 255
MAX_REPOSITORY: Final = 255
MAX_TAG: Final = 128

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LEGACY_DEFAULT_REGISTRY: Final = "index.docker.io"
_DOCKER_HUB_API: Final = "registry-1.docker.io"
_OFFICIAL: Final = "library/"

_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]*", re.ASCII)
_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{{1,5}}))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


class InvalidReference(ValueError):
    """No image reference. The text repeats the reference (cut) and says what would be right; ``reason`` is that
    without the reference."""

    def __init__(self, text: str, reason: str) -> None:
        shown = text if len(text) <= 128 else text[:128] + "..."
        super().__init__(f"{shown!r} is no image reference: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Made by `parse_reference`; at least one of ``tag`` and ``digest`` is there."""

    registry: str
    """``host[:port]``; ``docker.io`` for Docker Hub."""
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """Registry and repository: the reference without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def api_host(self) -> str:
        """Where the distribution API is: Docker Hub serves it under another name than its images bear."""
        return _DOCKER_HUB_API if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def selector(self) -> str:
        """What to ask the registry's manifests for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG


def is_digest(text: str) -> bool:
    """A whole sha256 or sha512 digest in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(text: str) -> ImageReference:
    """The reference that ``text`` stands for, short names expanded. Raises `InvalidReference`."""
    _check_text(text)
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise InvalidReference(
            text, "after '@' comes a digest: sha256: and 64, or sha512: and 128, lower-case hex digits"
        )
    registry, rest = _split_registry(name)
    repository, colon, tag = rest.partition(":")
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = _OFFICIAL + repository
    _check_registry(text, registry)
    _check_repository(text, repository)
    if colon:
        _check_tag(text, tag)
    elif not digest:
        tag = DEFAULT_TAG
    return ImageReference(registry=registry, repository=repository, tag=tag or None, digest=digest or None)


def _split_registry(name: str) -> tuple[str, str]:
    """Docker's rule: the first part is a registry if it could be no namespace."""
    first, slash, rest = name.partition("/")
    if not slash:
        return DEFAULT_REGISTRY, name
    if first == _LEGACY_DEFAULT_REGISTRY:
        return DEFAULT_REGISTRY, rest
    if first == "localhost" or "." in first or ":" in first or first != first.lower():
        return first, rest
    return DEFAULT_REGISTRY, name


def _check_text(text: str) -> None:
    if not text:
        raise InvalidReference(text, "it is empty; write [registry/]repository[:tag][@digest]")
    if len(text) > MAX_REFERENCE:
        raise InvalidReference(text, f"it has {len(text)} characters, more than {MAX_REFERENCE}")
    if any(not "!" <= character <= "~" for character in text):
        raise InvalidReference(text, "it has spaces or characters that are not ASCII")
    if "://" in text:
        raise InvalidReference(text, "it starts with a scheme; leave out 'https://' and the like")
    if _IMAGE_ID.fullmatch(text):
        raise InvalidReference(
            text, "it is an image's id, which no registry serves; write repository@sha256:... for a digest"
        )


def _check_registry(text: str, registry: str) -> None:
    match = _REGISTRY.fullmatch(registry) if len(registry) <= MAX_REGISTRY else None
    if match is None:
        raise InvalidReference(text, f"its registry must be host or host:port, of at most {MAX_REGISTRY} characters")
    port = match["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise InvalidReference(text, f"its registry's port {port} is not in 1..65535")
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise InvalidReference(text, "its registry in brackets is no IPv6 address") from None


def _check_repository(text: str, repository: str) -> None:
    if not repository:
        raise InvalidReference(text, "its repository is empty")
    if repository != repository.lower():
        raise InvalidReference(text, "its repository has upper-case letters; repositories are lower-case")
    if len(repository) > MAX_REPOSITORY:
        raise InvalidReference(text, f"its repository has {len(repository)} characters, more than {MAX_REPOSITORY}")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(
            text, "its repository must be parts of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'"
        )


def _check_tag(text: str, tag: str) -> None:
    if len(tag) > MAX_TAG or not _TAG.fullmatch(tag):
        raise InvalidReference(
            text, f"its tag must be 1 to {MAX_TAG} letters, digits, '_', '.' or '-', not starting with '.' or '-'"
        )
