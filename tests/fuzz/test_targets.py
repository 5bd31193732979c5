"""Spoiled samples of everything that is read: its own error or none, in bounded words, with no secret in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.mutate import SECRET, spoiled, texts_of
from tests.fuzz.runs import fuzzing, ran
from tests.fuzz.targets import TARGETS, Target

LONGEST_ERROR = 2048


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    kinds: list[st.SearchStrategy[bytes]] = [spoiled(sample) for sample in target.raw]
    if target.documents:
        kinds += [texts_of(target.documents)] * 3
    return st.one_of(kinds)


def refusal(target: Target, data: bytes) -> str | None:
    """What is said of the input. Any other exception than the target's own is the test's failure."""
    try:
        target.feed(data)
    except target.errors as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_a_spoiled_input_is_read_or_refused_in_words(name: str) -> None:
    target = TARGETS[name]

    @fuzzing
    @given(inputs(target))
    def run(data: bytes) -> None:
        said = refusal(target, data)
        ran(name, refused=said is not None)
        if said is not None:
            assert len(said) <= LONGEST_ERROR
            assert SECRET not in said

    run()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.documents])
def test_the_samples_themselves_are_good(name: str) -> None:
    import json

    target = TARGETS[name]
    for document in target.documents:
        assert refusal(target, json.dumps(document).encode()) is None


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.raw])
def test_the_samples_of_bytes_are_good(name: str) -> None:
    for sample in TARGETS[name].raw:
        assert refusal(TARGETS[name], sample) is None


def test_an_error_that_is_nobodys_is_found() -> None:
    def feed(data: bytes) -> None:
        raise KeyError(data)

    with pytest.raises(KeyError):
        refusal(Target(feed, (ValueError,)), b"")
