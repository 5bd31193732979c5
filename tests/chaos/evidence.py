"""What is known of a round, from all who can tell: the nodes, the store, the API, /readyz, and the harness itself.

Plain data, so that a test can make up any of it. Times are of the wall clock, which all processes share: the store's
own times are compared with those of the nodes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True)
class Deed:
    """One line of a node's log."""

    at: float
    node: str
    kind: str
    """``up``, ``down``: a session. ``asked``, ``begun`` (a pull of what is not held), ``finished``, ``failed``,
    ``acked`` (the last report)."""
    job: str = ""
    uid: str = ""
    """Empty of a stock node, which is told none."""
    images: tuple[str, ...] = ()
    reason: str = ""


FINAL_STATES: Final = ("Successful", "Failed", "NotStarted")
"""Of a node task in the store."""


@dataclass(frozen=True, slots=True)
class Row:
    """A node task in the store."""

    node: str
    state: str
    attempt: int
    event: str
    reason: str
    changed_at: float
    images: tuple[tuple[str, bool, str], ...] = ()
    """Image, whether it went well, and why not."""

    @property
    def words(self) -> str:
        """All that is said of a failure. An EdgeCore's overall reason is one and the same sentence for all of them."""
        return "\n".join([self.reason, *(why for _, _, why in self.images)])

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Sample:
    """One question at /readyz; code 0 is no answer."""

    asked: float
    answered: float
    code: int
    body: str = ""


FaultKind = Literal["hub", "api", "store"]


@dataclass(slots=True)
class Fault:
    kind: FaultKind
    began: float
    ended: float | None = None
    must_show: bool = False
    """/readyz must have been red because of it, and from then on until it ended."""


class Faults:
    """What the harness did, and when."""

    def __init__(self) -> None:
        self.all: list[Fault] = []

    def begin(self, kind: FaultKind, *, must_show: bool = False) -> Fault:
        fault = Fault(kind, time.time(), must_show=must_show)
        self.all.append(fault)
        return fault

    def end(self, kind: FaultKind) -> None:
        """Of all of this kind that go on."""
        for fault in self.all:
            if fault.kind == kind and fault.ended is None:
                fault.ended = time.time()

    @contextlib.contextmanager
    def of(self, kind: FaultKind, *, must_show: bool = False) -> Iterator[Fault]:
        fault = self.begin(kind, must_show=must_show)
        try:
            yield fault
        finally:
            if fault.ended is None:
                fault.ended = time.time()


@dataclass(slots=True)
class Job:
    """A job as it was made, and what became of it."""

    name: str
    uid: str
    nodes: tuple[str, ...]
    images: tuple[str, ...]
    concurrency: int
    timeout_seconds: int
    tolerate: str
    made_at: float
    deleted_at: float | None = None
    true_reasons: tuple[str, ...] = ()
    """Patterns of reasons that the round makes true."""
    no_timeouts: bool = False
    """In this round all of its nodes are there again long before their time is over."""
    no_failures: bool = False
    """In this round nothing is so wrong, or for so long, that a node may fail."""
    one_of_many: bool = False
    """Another job of this name was made: stock nodes, which are told no uid, cannot tell the two apart."""


@dataclass(slots=True)
class Evidence:
    jobs: Sequence[Job]
    statuses: Mapping[str, Sequence[Mapping[str, Any]]]
    """By uid: every status that the watch brought, in order."""
    rows: Mapping[str, Sequence[Row]]
    """By uid."""
    deeds: Sequence[Deed]
    """In order."""
    holds: Mapping[str, frozenset[str]]
    """By node: the images that it holds now, whole."""
    samples: Sequence[Sample]
    faults: Sequence[Fault]
    stock: frozenset[str] = frozenset()
    """Nodes that announce nothing."""
    opaque: frozenset[str] = frozenset()
    """Real agents: of those it is not known when they were asked, or connected."""
    blobs: Mapping[str, int] = field(default_factory=dict)
    """How often each blob went out of the registry whole."""
    blobs_at_most: int = 0
    """As often as that may be: once a node, and once for each agent killed."""
    unacknowledged: Mapping[str, int] = field(default_factory=dict)
    """By node: reports that it keeps for a hub that has been well, and connected to it, for long enough."""
