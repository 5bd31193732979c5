"""Which image of an index is for this machine: containerd's rule.

A machine runs images of its own architecture and, after them, those of the ones that it is compatible with: 64-bit x86
also runs 386, 64-bit ARM also 32-bit ARM, ARM v7 also v6 and v5. The nearest is taken. An entry without a platform is
the last resort: some tools write single-image indexes that way. ``amd64`` beyond the base level (variants v2 to v4) is
not taken, for whether the CPU has it is not looked into.
"""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_ARM: Final = ("v8", "v7", "v6", "v5")
# What a variant left out means.
_DEFAULT_VARIANT: Final = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
_POINTER_BITS: Final = struct.calcsize("P") * 8


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def normalized(self) -> Platform:
        variant = self.variant or _DEFAULT_VARIANT.get(self.architecture, "")
        return Platform(self.os, self.architecture, variant)


def this_machine(*, machine: str = "", bits: int = _POINTER_BITS) -> Platform:
    """The platform of this process: 32-bit programs on a 64-bit kernel have a 32-bit userland around them."""
    name = (machine or platform.machine()).lower()
    architecture = _ARCHITECTURES.get(name, name)
    variant = ""
    if name.startswith("armv"):
        architecture, variant = "arm", name[3:5]
    elif name.startswith("mips") and sys.byteorder == "little" and not name.endswith(("el", "le")):
        architecture = name + "le"
    if bits == 32:
        architecture, variant = {"amd64": ("386", ""), "arm64": ("arm", "v7")}.get(
            architecture, (architecture, variant)
        )
    return Platform(sys.platform, architecture, variant)


def preferences(machine: Platform) -> list[Platform]:
    """The platforms whose images run here, best first."""
    own = machine.normalized()
    found = [own]
    if own.architecture == "amd64":
        found.append(Platform(own.os, "386"))
    elif own.architecture == "arm64":
        found += [Platform(own.os, "arm", variant) for variant in _ARM]
    elif own.architecture == "arm" and own.variant in _ARM:
        found += [Platform(own.os, "arm", variant) for variant in _ARM[_ARM.index(own.variant) + 1 :]]
    return found


def choose(machine: Platform, offered: Iterable[Platform | None]) -> int | None:
    """The position of the best of what is offered; of equals the first. None when nothing runs here."""
    ranks = {wanted: rank for rank, wanted in enumerate(preferences(machine))}
    best: tuple[int, int] | None = None
    for position, candidate in enumerate(offered):
        rank = len(ranks) if candidate is None else ranks.get(candidate.normalized())
        if rank is not None and (best is None or rank < best[0]):
            best = rank, position
    return None if best is None else best[1]
