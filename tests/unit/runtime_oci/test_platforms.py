"""Which image of an index runs on which machine."""

from __future__ import annotations

import pytest

from edgehub.runtime.oci.platforms import Platform, choose, this_machine

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
ARM7, ARM6, ARM5 = (Platform("linux", "arm", variant) for variant in ("v7", "v6", "v5"))
I386, WINDOWS = Platform("linux", "386"), Platform("windows", "amd64")
ATTESTATION = Platform("unknown", "unknown")


@pytest.mark.parametrize(
    ("machine", "offered", "expected"),
    [
        (AMD64, [ARM64, AMD64, ARM7], 1),
        (AMD64, [WINDOWS, ATTESTATION, I386, AMD64], 3),
        (AMD64, [WINDOWS, I386], 1),
        (AMD64, [ARM64, ARM7, ATTESTATION, WINDOWS], None),
        (AMD64, [Platform("linux", "amd64", "v3"), Platform("linux", "amd64")], 1),
        (AMD64, [Platform("linux", "amd64", "v3")], None),
        (AMD64, [AMD64, AMD64], 0),
        (AMD64, [], None),
        (AMD64, [None], 0),
        (AMD64, [None, AMD64], 1),
        (Platform("linux", "arm64"), [Platform("linux", "arm64")], 0),
        (Platform("linux", "arm64"), [AMD64, ARM64], 1),
        (ARM64, [ARM7, Platform("linux", "arm64")], 1),
        (ARM64, [ARM6, ARM7], 1),
        (ARM7, [ARM64, ARM5, ARM6], 2),
        (ARM7, [Platform("linux", "arm")], 0),
        (ARM6, [ARM7], None),
        (ARM6, [ARM7, ARM5], 1),
        (Platform("linux", "arm", "v9z"), [ARM7], None),
        (Platform("linux", "riscv64"), [AMD64, Platform("linux", "riscv64")], 1),
    ],
)
def test_the_nearest_platform_is_chosen(
    machine: Platform, offered: list[Platform | None], expected: int | None
) -> None:
    assert choose(machine, offered) == expected


@pytest.mark.parametrize(
    ("machine", "bits", "expected"),
    [
        ("x86_64", 64, "linux/amd64"),
        ("AMD64", 64, "linux/amd64"),
        ("aarch64", 64, "linux/arm64"),
        ("armv7l", 32, "linux/arm/v7"),
        ("armv6l", 32, "linux/arm/v6"),
        ("i686", 32, "linux/386"),
        ("x86_64", 32, "linux/386"),
        ("aarch64", 32, "linux/arm/v7"),
        ("riscv64", 64, "linux/riscv64"),
        ("loongarch64", 64, "linux/loong64"),
        ("mips64", 64, "linux/mips64le"),
        ("s390x", 64, "linux/s390x"),
        ("novel", 64, "linux/novel"),
    ],
)
def test_a_machine_is_called_as_go_calls_it(machine: str, bits: int, expected: str) -> None:
    assert str(this_machine(machine=machine, bits=bits)) == expected


def test_this_machine_has_a_name() -> None:
    assert this_machine().architecture
