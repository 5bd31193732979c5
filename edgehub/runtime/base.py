"""What the agent asks of the thing that holds images, whichever it is.

Problem: a node's images live in containerd, in CRI-O, or in our own image store, and each has its own way of saying
that it is away, that a registry refused, or that an image does not exist.

Guarantee: behind `ImageRuntime` all of them look the same. What goes wrong leaves as one of the classes below, chosen
by what the caller does next (`retryable` says it), with a text for the job's status: clear, bounded, and without any
secret. A pull that returns is a pull that the runtime itself confirmed, by image id and digest. Cancelling the task
that awaits a call stops the work behind it.

Not here: trying again (the task layer's, it knows the job's retryTimes), and choosing the credential of an image.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from shared.wire import Credential


class ImageRuntimeError(Exception):
    """Base of all that an `ImageRuntime` raises. Its text is safe to show."""

    retryable: ClassVar[bool] = False
    """Trying the same thing again, later, may go well without anybody mending anything."""


class RuntimeUnavailable(ImageRuntimeError):
    """The runtime does not answer: it is stopped, restarting, or not what the endpoint says. It heals by itself."""

    retryable = True


class PullError(ImageRuntimeError):
    """The runtime answered, and the image is not there."""


class PullDenied(PullError):
    """The registry refused: no credential, a wrong one, or one that does not reach this repository (401, 403)."""


class ImageNotFound(PullError):
    """The registry knows no such repository, tag or digest, or has no image for this platform."""


class InvalidImage(PullError):
    """The reference is malformed, or what the registry serves under it is no image."""


class NoSpace(PullError):
    """The filesystem that holds the images is full, or would be."""


class TransientPullError(PullError):
    """The registry or the way to it failed: timeout, connection lost, 429, 5xx."""

    retryable = True

    def __init__(self, text: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds that the registry asked to be left alone for (429 and 503 with Retry-After)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeVersion:
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def node_info(self) -> str:
        """As in a Node's ``status.nodeInfo.containerRuntimeVersion``."""
        return f"{self.name}://{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image that the runtime holds."""

    id: str
    """Digest of the image's config, ``sha256:...``: the same bytes have the same id under every name."""
    digests: tuple[str, ...]
    """``registry/repository@sha256:...``, one for each repository that it came from."""
    tags: tuple[str, ...]
    """``registry/repository:tag``; empty for an image known by digest alone."""
    size: int
    """Bytes, as the runtime counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """How far one pull is; ``total_bytes`` is 0 until the manifest is known."""

    done_bytes: int
    total_bytes: int


class ImageRuntime(Protocol):
    async def version(self) -> RuntimeVersion:
        """Raises `RuntimeUnavailable`."""
        ...

    async def status(self, image: str) -> ImageRecord | None:
        """The image if it is here and whole, else None. Raises `InvalidImage`, `RuntimeUnavailable`."""
        ...

    async def pull(
        self,
        image: str,
        credential: Credential | None,
        *,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> ImageRecord:
        """Fetches the image, also when it is here already (a tag may have moved), and returns what `status` then
        confirms. Cancellation stops the transfer. ``progress`` is called on the event loop where the runtime tells
        it; CRI does not. Raises a `PullError` of the classes above, or `RuntimeUnavailable`."""
        ...

    async def list(self) -> builtins.list[ImageRecord]:
        """Raises `RuntimeUnavailable`."""
        ...

    async def filesystem(self) -> Path | None:
        """A path on the filesystem that holds the images, None when the runtime does not say. Raises
        `RuntimeUnavailable`."""
        ...

    async def close(self) -> None: ...
