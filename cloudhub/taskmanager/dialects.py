"""Which of KubeEdge's two kinds of task messages a stock node understands.

EdgeCore 1.16 to 1.20 knows v1alpha1 alone; from 1.21 on it knows v1alpha2, and the older one besides. Its version
stands in the Node's ``kubeletVersion`` (``v1.27.7-kubeedge-v1.16.0``), which whoever builds EdgeCore may decorate, and
which is missing where no kubelet registers a Node. A node of which nothing is known is spoken to in v1alpha2, and what
it answers in is remembered: an EdgeCore drops what it does not understand without a word, so silence is all that is
heard of a wrong guess (`cloudhub.taskmanager.stock` asks once more then).

Looking a node up costs two looks into a dict: it is done for each message. What was learned is in memory; after a
restart of the hub it is learned anew.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cloudhub.taskmanager.ports import Nodes

Version = tuple[int, int]
"""Major and minor."""

FIRST_WITH_TASKS: Final[Version] = (1, 16)
FIRST_V1ALPHA2: Final[Version] = (1, 21)

_EDGE_VERSION: Final = re.compile(r"kubeedge-v?(?P<major>[0-9]{1,4})\.(?P<minor>[0-9]{1,4})(?![0-9])", re.IGNORECASE)
_MAX_TEXT: Final = 256


class Dialect(StrEnum):
    V1ALPHA1 = "v1alpha1"
    V1ALPHA2 = "v1alpha2"


@lru_cache(maxsize=1024)
def edge_version(kubelet_version: str) -> Version | None:
    """EdgeCore's version in a Node's kubeletVersion. None when it says nothing of it; a build that was not made from a
    release says 0.0 and means nothing."""
    match = _EDGE_VERSION.search(kubelet_version[:_MAX_TEXT])
    if match is None or int(match["major"]) == 0:
        return None
    return int(match["major"]), int(match["minor"])


def dialect_of(version: Version) -> Dialect:
    """What nodes below 1.16 are sent means nothing to them; `likely_cause` says so when they stay silent."""
    return Dialect.V1ALPHA2 if version >= FIRST_V1ALPHA2 else Dialect.V1ALPHA1


class Dialects:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._heard: dict[str, Dialect] = {}
        """By node: what its last report was in."""

    def version(self, node: str) -> Version | None:
        found = self._nodes.get(node)
        return edge_version(found.kubelet_version) if found is not None else None

    def of(self, node: str) -> Dialect:
        return self.to_speak(node)[0]

    def to_speak(self, node: str) -> tuple[Dialect, bool]:
        """As `of`, and whether that is a mere guess."""
        version = self.version(node)
        if version is not None:
            return dialect_of(version), False
        heard = self._heard.get(node)
        return (Dialect.V1ALPHA2, True) if heard is None else (heard, False)

    def heard(self, node: str, dialect: Dialect) -> None:
        self._heard[node] = dialect

    def has_answered(self, node: str) -> bool:
        return node in self._heard

    def forget(self, node: str) -> None:
        """It has left a task unanswered to the end: another EdgeCore may be there by now."""
        self._heard.pop(node, None)

    def likely_cause(self, node: str) -> str:
        """Why a stock node that is connected has never reported anything."""
        version = self.version(node)
        if version is None:
            return (
                "is modules.taskManager enabled in its edgecore.yaml (KubeEdge 1.21+), or is its EdgeCore too old "
                "(before 1.16)?"
            )
        if version >= FIRST_V1ALPHA2:
            return "is modules.taskManager enabled in its edgecore.yaml (KubeEdge 1.21+)?"
        if version < FIRST_WITH_TASKS:
            return f"its EdgeCore {version[0]}.{version[1]} is too old: ImagePrePullJob needs KubeEdge 1.16 or later"
        return f"see the log of its EdgeCore {version[0]}.{version[1]}"
