"""A job's images as a stock node can be asked for them: in parts, one after the other. Pure.

The problem: EdgeCore sends one credential with every pull of a message, whatever registry it is for. So a job with a
Secret is cut into parts, each with one credential or with none; mostly that is one part. The node is asked for the
next part when it has reported the last. What it has reported is kept with the node task, so after any crash it is
known what is missing: `remaining`.

Guarantees, each with a property test: the parts hold every image of the job once; a part has the credential of each of
its images and no other; what was reported of an image first stays; a task has ended when every image was reported, and
succeeded when every one is there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from shared.images import parse_reference

Credentials = Mapping[str, Mapping[str, str]]
"""By image: the fields of a `shared.wire.Credential` that are not empty."""
ImageOutcome = tuple[str, bool, str]
"""Image as the job names it, whether it is there now, and why not."""


@dataclass(frozen=True, slots=True)
class Part:
    images: tuple[str, ...]
    flat: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The keys that EdgeCore reads as its runtime's AuthConfig; empty without a credential."""
    key: str = ""
    """Tells credentials apart without being one; empty without a credential."""


def parts_of(images: Iterable[str], credentials: Credentials) -> tuple[Part, ...]:
    """In the order of their first images. Images without a credential make one part, whatever their registries."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for image in images:
        groups.setdefault(_flat(image, credentials.get(image)), []).append(image)
    return tuple(Part(tuple(found), dict(flat), _key(flat)) for flat, found in groups.items())


def _flat(image: str, found: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    if not found:
        return ()
    # A URL: containerd takes an address without a scheme for one without a host, and sends nothing.
    address = f"https://{parse_reference(image).api_host}"
    named = [(name, found[name]) for name in ("username", "password", "identity_token") if name in found]
    return (("server_address", address), *named)


def _key(flat: tuple[tuple[str, str], ...]) -> str:
    return sha256(repr(flat).encode("utf-8", "surrogatepass")).hexdigest() if flat else ""


def remaining(parts: Sequence[Part], done: Collection[str]) -> Part | None:
    """The first part of which something is missing, and of it what is missing. None when nothing is."""
    for part in parts:
        missing = tuple(image for image in part.images if image not in done)
        if missing:
            return part if missing == part.images else replace(part, images=missing)
    return None


def joined(known: Sequence[ImageOutcome], reported: Sequence[ImageOutcome]) -> list[ImageOutcome]:
    """What is known after a report: what was known first stays, whatever a repetition says."""
    return list({image: (image, ok, why) for image, ok, why in (*reported, *known)}.values())


def in_order(outcomes: Sequence[ImageOutcome], images: Iterable[str]) -> list[ImageOutcome]:
    by_image = {outcome[0]: outcome for outcome in outcomes}
    return [by_image[image] for image in images if image in by_image]


def failures(outcomes: Iterable[ImageOutcome]) -> str:
    """What went wrong, image by image."""
    return "; ".join(f"{image}: {why}" if why else f"{image}: not pulled" for image, ok, why in outcomes if not ok)
