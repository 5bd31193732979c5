"""Errors of the PKI, by what the caller does next. Their texts are safe to show and to log: no key, no token."""

from __future__ import annotations


class PKIError(Exception):
    """The hub cannot start (or go on) with these certificates; the text names the file or Secret and what is wrong."""


class Refused(Exception):
    """A node is not given what it asks for. ``reason`` is short and of a fixed set, for logs and metrics; the text is
    for the one who asked; ``status`` is HTTP's."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
