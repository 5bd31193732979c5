"""Which dialect a node speaks: its version however it is decorated, and what it was heard in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.taskmanager.dialects import Dialect, Dialects, dialect_of, edge_version
from tests.integration.taskmanager.world import FakeNodes

decorations = st.from_regex(
    r"(-(alpha|beta|rc)\.[0-9]{1,3})?(-[a-z]{1,8}\.[0-9]{1,2})?(\+[0-9a-f]{0,12})?", fullmatch=True
)


@given(st.integers(0, 99), st.integers(1, 99), st.integers(0, 999), st.integers(0, 99), decorations)
def test_edgecores_version_is_found_whatever_surrounds_it(
    kubernetes: int, major: int, minor: int, patch: int, decoration: str
) -> None:
    text = f"v1.{kubernetes}.3-kubeedge-v{major}.{minor}.{patch}{decoration}"
    assert edge_version(text) == (major, minor)
    assert dialect_of((major, minor)) is (Dialect.V1ALPHA2 if (major, minor) >= (1, 21) else Dialect.V1ALPHA1)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.27.7-kubeedge-v1.16.0", (1, 16)),
        ("v1.27.7-kubeedge-1.20", (1, 20)),
        ("V1.30.7-KubeEdge-V1.21.0-beta.0.194+77ecfa7f6e0a1c", (1, 21)),
        ("v1.30.7-acme.3-kubeedge-v1.22.1-acme.3", (1, 22)),
        ("v1.30.7-kubeedge-v2.0.0", (2, 0)),
        ("", None),
        ("v1.30.7", None),
        ("v1.30.7+k3s1", None),
        ("edgehub-v0.1.0", None),
        ("v1.30.7-kubeedge-", None),
        ("v1.30.7-kubeedge-vX.Y", None),
        ("v1.30.7-kubeedge-v0.0.0-master+$Format:%H$", None),
        ("v1.30.7-kubeedge-v1.99999999999", None),
        ("kubeedge" * 100_000 + "-v1.16.0", None),
    ],
)
def test_odd_versions_are_read_or_passed_over(text: str, version: tuple[int, int] | None) -> None:
    assert edge_version(text) == version


@given(st.text(max_size=300))
def test_no_text_is_an_error(text: str) -> None:
    version = edge_version(text)
    assert version is None or version[0] > 0


def test_a_version_comes_before_what_was_heard_and_that_before_a_guess() -> None:
    nodes = FakeNodes()
    nodes.add("old", version="v1.27.7-kubeedge-v1.16.0")
    nodes.add("odd", version="v1.30.7")
    dialects = Dialects(nodes)
    assert [dialects.of(name) for name in ("old", "odd", "nobody")] == ["v1alpha1", "v1alpha2", "v1alpha2"]
    for name in ("old", "odd", "nobody"):
        assert not dialects.has_answered(name)
        dialects.heard(name, Dialect.V1ALPHA1 if name != "old" else Dialect.V1ALPHA2)
        assert dialects.has_answered(name)
        assert dialects.of(name) is Dialect.V1ALPHA1
    dialects.forget("odd")
    dialects.forget("never-heard")
    assert dialects.of("odd") is Dialect.V1ALPHA2
    # An upgrade is seen as soon as the Node says so.
    nodes.add("old", version="v1.32.10-kubeedge-v1.23.1")
    assert dialects.of("old") is Dialect.V1ALPHA2
