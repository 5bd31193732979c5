"""What is believed of a name that was revoked, and of one that may join again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudhub.pki.errors import Refused
from cloudhub.pki.revocation import Revocation, RevocationList

OLD, NEW = 0xA1, 0xB2


def revoked() -> Revocation:
    return Revocation(node="edge-1", number=1, revoked_at=100.0)


def undone(*certificates: int) -> Revocation:
    return Revocation(node="edge-1", number=2, revoked_at=100.0, undone_at=200.5, certificates=frozenset(certificates))


def refusal(check: Callable[[], None]) -> str:
    with pytest.raises(Refused) as caught:
        check()
    assert (caught.value.status, caught.value.reason) == (403, "revoked")
    return str(caught.value)


def test_a_name_that_was_never_revoked_is_not_looked_at() -> None:
    records = RevocationList([revoked()])
    records.check_certificate("edge-2", OLD)
    records.check_token("edge-2", None)
    assert records.get("edge-2") is None


def test_of_a_revoked_name_nothing_is_believed() -> None:
    records = RevocationList([revoked()])
    for check in (
        lambda: records.check_certificate("edge-1", OLD),
        lambda: records.check_token("edge-1", 1e12),
        lambda: records.check_token("edge-1", None),
    ):
        assert refusal(check) == "node edge-1 is revoked"


def test_after_the_undoing_only_what_was_signed_since_is_believed() -> None:
    records = RevocationList([undone(NEW)])
    records.check_certificate("edge-1", NEW)
    text = refusal(lambda: records.check_certificate("edge-1", OLD))
    assert text == "this certificate of node edge-1 is revoked; join again with a new token"


@pytest.mark.parametrize("issued_at", [None, 0.0, 150.0, 200.4, float("nan")])
def test_after_the_undoing_an_older_token_joins_nothing(issued_at: float | None) -> None:
    records = RevocationList([undone()])
    assert "was revoked after this token was made" in refusal(lambda: records.check_token("edge-1", issued_at))


@pytest.mark.parametrize("issued_at", [200.5, 200.6, 1e10])
def test_after_the_undoing_a_newer_token_joins(issued_at: float) -> None:
    RevocationList([undone()]).check_token("edge-1", issued_at)


def test_a_certificate_is_added_to_the_record_that_it_was_signed_for_and_to_no_other() -> None:
    records = RevocationList([undone()])
    records.add_certificate("edge-1", 1, NEW)
    refusal(lambda: records.check_certificate("edge-1", NEW))
    records.add_certificate("edge-1", 2, NEW)
    records.check_certificate("edge-1", NEW)
    records.add_certificate("edge-2", 2, NEW)
    assert records.get("edge-2") is None


def test_only_those_that_are_revoked_now_are_counted() -> None:
    records = RevocationList([undone(), Revocation(node="edge-2", number=1, revoked_at=1.0)])
    assert records.revoked() == 1
    records.replace([])
    assert records.revoked() == 0
