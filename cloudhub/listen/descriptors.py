"""How many sockets may wait, by the descriptors that the process has.

Each socket that waits for its turn is a descriptor, and so are sessions, the store's files and the way to the
Kubernetes API. Shells and old service managers give a process 1024, of which one silent address could take all. So the
limit is raised to what the system allows, as Go's programs do, and what may wait is what is left beside the rest.
"""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Final

import structlog

from cloudhub.listen.acceptor import AcceptLimits

RESERVE: Final = 448
"""For everything that is neither a session nor a peer without a name, for all who may be at /metrics
(`cloudhub.health.LIMITS`), and for whose turn it is at the embedded API."""
LEAST_WAITING: Final = 64
API_SHARE: Final = 8
"""One of so many descriptors may be of a peer that waits for its turn at the embedded API."""
MANY: Final = 1 << 20

log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """The number of descriptors that this process may have from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files cannot be raised", soft=soft, hard=hard, error=str(error))
            return soft
    return MANY if hard == resource.RLIM_INFINITY else hard


def bounded(limits: AcceptLimits, *, descriptors: int, sessions: int, servers: int) -> AcceptLimits:
    """``limits`` with no more waiting than fits: ``servers`` of these beside ``sessions`` sessions and the API."""
    free = descriptors - RESERVE - descriptors // API_SHARE - sessions
    return _with_waiting(limits, free // servers - limits.running)


def bounded_api(limits: AcceptLimits, *, descriptors: int) -> AcceptLimits:
    """The same for the embedded API."""
    return _with_waiting(limits, descriptors // API_SHARE)


def _with_waiting(limits: AcceptLimits, fits: int) -> AcceptLimits:
    waiting = min(limits.waiting, max(LEAST_WAITING, fits))
    return replace(limits, waiting=waiting, waiting_per_address=min(limits.waiting_per_address, waiting))


def warn_if_few(*, descriptors: int, sessions: int) -> None:
    if descriptors < sessions + RESERVE + 1024:
        log.warning(
            "few open files are allowed for so many nodes; raise the limit (LimitNOFILE, ulimit -n)",
            limit=descriptors,
            node_limit=sessions,
        )
