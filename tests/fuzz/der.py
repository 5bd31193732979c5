"""DER that is nearly right: a tree of tags changed here and there, written again with lengths that fit, signed anew.

A flipped byte in a certificate or a request ends at its length or at its signature. What was changed within the tree
and signed afterwards reaches the checks behind: names, keys, extensions, dates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.mutation import TEXTS, damaged, noise

_OIDS: Final = (
    "550403", "550406", "55040a", "550405", "551d11", "551d13", "551d0f", "551d25", "551d0e", "2a864886f70d01090e",
    "2a864886f70d010101", "2a8648ce3d0201", "2a8648ce3d030107", "2b81040022", "2b656e", "2b6570", "2a8648ce3d040302",
    "2a864886f70d01010b", "2a864886f70d01010a", "2b06010505070301", "2b06010505070302", "551d2500", "80", "2aff", "",
)  # fmt: skip
"""Names, extensions, keys, signatures and usages, and some that are none."""
_TAGS: Final = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31, 0xA0,
                0xA1, 0xA3, 0x80, 0x82, 0x1F, 0x00)  # fmt: skip


@dataclass
class Node:
    tag: int
    value: bytes = b""
    children: list[Node] = field(default_factory=list)

    def encode(self) -> bytes:
        body = b"".join([child.encode() for child in self.children]) if self.children else self.value
        return bytes((self.tag,)) + _length(len(body)) + body

    def copy(self) -> Node:
        return Node(self.tag, self.value, [child.copy() for child in self.children])


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    digits = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((0x80 | len(digits),)) + digits


def parsed(data: bytes) -> list[Node]:
    """Of DER that is right, as samples are."""
    found: list[Node] = []
    at = 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[at + 2 : start])
        body = data[start : start + size]
        if len(body) < size:
            raise ValueError("cut off")
        found.append(Node(tag, body, parsed(body) if tag & 0x20 else []))
        at = start + size
    return found


def changed_tree(random: Random, tree: Node) -> Node:
    tree = tree.copy()
    for _ in range(random.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            break
        _change(random, *random.choice(places))
    return tree


def _places(node: Node) -> list[tuple[list[Node], int]]:
    found: list[tuple[list[Node], int]] = []
    for number, child in enumerate(node.children):
        found.append((node.children, number))
        found += _places(child)
    return found


def _change(random: Random, siblings: list[Node], at: int) -> None:
    node = siblings[at]
    kinds: tuple[Callable[[], object], ...] = (
        lambda: siblings.pop(at),
        lambda: siblings.insert(at, node.copy()),
        lambda: siblings.extend([node.copy()] * random.choice((1, 3, 300))),
        lambda: setattr(node, "tag", random.choice(_TAGS)),
        lambda: _set(node, bytes.fromhex(random.choice(_OIDS)), 0x06),
        lambda: _set(node, random.choice(TEXTS).encode(), node.tag),
        lambda: _set(node, damaged(random, (node.value,)), node.tag),
        lambda: _set(node, noise(random, 40), node.tag),
        lambda: _set(node, random.choice((b"", b"\0", b"\xff", b"\x80" + b"\0" * 40, b"\x7f" * 2000)), 0x02),
        lambda: siblings.__setitem__(at, _nested(node, random.choice((1, 2, 100)))),
        lambda: _set(node, random.choice((b"991231235959Z", b"000101000000Z", b"99991231235959Z", b"x")), 0x18),
    )
    random.choice(kinds)()


def _set(node: Node, value: bytes, tag: int) -> None:
    node.tag, node.value, node.children = tag, value, []


def _nested(node: Node, times: int) -> Node:
    for _ in range(times):
        node = Node(0x30, children=[node])
    return node


def changed_and_signed(random: Random, samples: Sequence[bytes], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Of a request or a certificate: what is signed, the kind of signature, the signature."""
    (tree,) = parsed(random.choice(samples))
    if random.randrange(8) == 0:
        return changed_tree(random, tree).encode()
    signed = changed_tree(random, tree.children[0]).encode()
    kind = tree.children[1].encode()
    signature = b"\0" + key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return Node(0x30, signed + kind + Node(0x03, signature).encode()).encode()
