"""Which nodes were revoked, and what of them is still believed: the rule, without store and clock.

The problem: a node was stolen. Its certificate is good for a year and there is no telling where its key went, so from
`cloudhub revoke NAME` on nothing of that name is let in: no session, no renewal, no join, whatever the token. When the
machine is back or replaced the name is wanted again (`cloudhub revoke --undo NAME`), and the key may still be out.

The rule for a name that was ever revoked, as long as the record is kept:

- revoked: refused, whatever it shows;
- undone: a token made after the undoing joins; a certificate is believed only when it was signed after the undoing and
  noted here. What was signed before, by whoever has the CA's key, is never believed again.

Certificates are told apart by their serial numbers and not by their dates: dates are begun early for clocks that are
wrong, and clocks are set back. Tokens have nothing but a date (`cloudhub.pki.tokens`).

A name that was never revoked costs one look into a dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cryptography import x509

from cloudhub.pki.errors import Refused

REVOKED: Final = "revoked"
"""The reason of refusals, in metrics and logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What is kept of one name. Times in seconds since the epoch."""

    node: str
    number: int
    """Counts the revocations and undoings of this name."""
    revoked_at: float
    undone_at: float | None = None
    certificates: frozenset[int] = frozenset()
    """Serial numbers of the certificates signed since it was undone."""


class Revoked(Protocol):
    """What those who let nodes in ask. The checks raise `Refused`."""

    def check_certificate(self, node: str, serial: int) -> None: ...
    def check_token(self, node: str, issued_at: float | None) -> None: ...
    async def note(self, node: str, certificate: x509.Certificate, number: int | None) -> None:
        """``certificate`` was signed for ``node``, upon a check when its record had this ``number``; it must not be
        handed out before this returns. Raises `Refused`."""
        ...

    def number(self, node: str) -> int | None:
        """None for a name without a record."""
        ...


class RevocationList:
    """The records in memory."""

    def __init__(self, records: Iterable[Revocation] = ()) -> None:
        self._records: dict[str, Revocation] = {record.node: record for record in records}

    @property
    def records(self) -> Mapping[str, Revocation]:
        return self._records

    def get(self, node: str) -> Revocation | None:
        return self._records.get(node)

    def replace(self, records: Iterable[Revocation]) -> None:
        self._records = {record.node: record for record in records}

    def add_certificate(self, node: str, number: int, serial: int) -> None:
        """Signed for the record as of ``number``; another one is left as it is."""
        record = self._records.get(node)
        if record is not None and record.number == number:
            self._records[node] = replace(record, certificates=record.certificates | {serial})

    def revoked(self) -> int:
        """How many names are revoked now."""
        return sum(record.undone_at is None for record in self._records.values())

    def check_certificate(self, node: str, serial: int) -> None:
        record = self._records.get(node)
        if record is None:
            return
        self._check_name(record)
        if serial not in record.certificates:
            raise Refused(403, REVOKED, f"this certificate of node {node} is revoked; join again with a new token")

    def check_token(self, node: str, issued_at: float | None) -> None:
        record = self._records.get(node)
        if record is None:
            return
        self._check_name(record)
        if issued_at is None or record.undone_at is None or not issued_at >= record.undone_at:
            raise Refused(
                403, REVOKED, f"node {node} was revoked after this token was made; ask for a new one (cloudhub token)"
            )

    def _check_name(self, record: Revocation) -> None:
        if record.undone_at is None:
            raise Refused(403, REVOKED, f"node {record.node} is revoked")


class NothingRevoked:
    """A hub without a store of revocations, as tests of other things want it."""

    def check_certificate(self, node: str, serial: int) -> None:
        return

    def check_token(self, node: str, issued_at: float | None) -> None:
        return

    async def note(self, node: str, certificate: x509.Certificate, number: int | None) -> None:
        return

    def number(self, node: str) -> int | None:
        return None
