"""The hub's Prometheus metrics: one object, on a registry of its own.

Every part that counts something receives this object by its constructor, so two hubs in one process (as in tests) never
share a number, and a part can be run without any server: nothing here listens, `cloudhub.health` serves what `render`
returns. Every name is listed in ``docs/metrics.md``.

Guarantees: labels whose values come from peers (operations, reasons) hold at most `MAX_LABEL_VALUES` different values,
what comes after is counted as ``other``, so that a peer cannot fill the hub's memory with metrics. Counts by state are
asked for when they are scraped, not kept up to date with every change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
MAX_LABEL_VALUES: Final = 32
MAX_LABEL_LENGTH: Final = 64
OTHER: Final = "other"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A commit on a good disk takes 1 to 5 ms, a status patch 5 to 50 ms; beyond 10 s the API or the disk is away."""

StateCounts = Callable[[], Mapping[str, int]]
"""How many there are by state (`shared.jobs.State` as text), asked at each scrape; cheap, must not block."""


class BoundedCounter:
    """A counter with one label of a bounded number of values; see the module's guarantee."""

    def __init__(self, name: str, documentation: str, label: str, registry: CollectorRegistry) -> None:
        self._counter = Counter(name, documentation, [label], registry=registry)
        self._label = label
        self._children: dict[str, Counter] = {}

    def labels(self, *values: str, **named: str) -> Counter:
        """The counter of this value, given by place or by the label's name, as prometheus_client takes it."""
        value = str(values[0] if values else named[self._label])[:MAX_LABEL_LENGTH]
        if value not in self._children and len(self._children) >= MAX_LABEL_VALUES:
            value = OTHER
        if value not in self._children:
            self._children[value] = self._counter.labels(value)
        return self._children[value]

    def count(self, value: str) -> None:
        self.labels(value).inc()

    def value(self, value: str) -> float:
        """What was counted for ``value`` so far; for tests and for logs at the end."""
        child = self._children.get(value[:MAX_LABEL_LENGTH])
        return sample(child) if child is not None else 0.0


class Metrics:
    """All metrics of one hub. Attributes are the metrics' names without the prefix ``cloudhub_``."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.sessions = Gauge("cloudhub_sessions", "Nodes with a live session.", registry=registry)
        self.handshakes_refused_total = BoundedCounter(
            "cloudhub_handshakes_refused_total", "Session handshakes refused, by reason.", "reason", registry
        )
        self.joins_refused_total = BoundedCounter(
            "cloudhub_joins_refused_total",
            "Requests for certificates, and connections for them, refused, by reason.",
            "reason",
            registry,
        )
        self.revoked_nodes = Gauge("cloudhub_revoked_nodes", "Nodes that are revoked now.", registry=registry)
        self.messages_ignored_total = BoundedCounter(
            "cloudhub_messages_ignored_total", "Messages of nodes that nothing here acts on.", "operation", registry
        )
        self.dispatches_total = Counter("cloudhub_dispatches_total", "Node tasks sent to nodes.", registry=registry)
        self.reports_total = Counter("cloudhub_reports_total", "Reports received from nodes.", registry=registry)
        self.refusals_total = BoundedCounter(
            "cloudhub_refusals_total",
            "Reports that changed nothing (late, repeated, ...), by reason.",
            "reason",
            registry,
        )
        self.progress_messages_total = BoundedCounter(
            "cloudhub_progress_messages_total",
            "Messages of nodes that say how far a pull is, by outcome.",
            "outcome",
            registry,
        )
        self.edge_requests_total = BoundedCounter(
            "cloudhub_edge_requests_total",
            "Questions of nodes about their Node and Lease, by outcome.",
            "outcome",
            registry,
        )
        self.commit_seconds = Histogram(
            "cloudhub_commit_seconds", "Time of one grouped commit to the store.", buckets=_SECONDS, registry=registry
        )
        self.publish_seconds = Histogram(
            "cloudhub_publish_seconds", "Time of one write of a job's status.", buckets=_SECONDS, registry=registry
        )
        self.api_requests_total = BoundedCounter(
            "cloudhub_api_requests_total",
            "Requests to the Kubernetes API, by code or kind of failure.",
            "code",
            registry,
        )
        self.api_lists_total = BoundedCounter(
            "cloudhub_api_lists_total",
            "Complete lists read by an informer; more than a few mean trouble.",
            "resource",
            registry,
        )
        self.event_loop_stall_seconds_max = Gauge(
            "cloudhub_event_loop_stall_seconds_max",
            "Longest time that the event loop was late since the hub was ready.",
            registry=registry,
        )
        self.event_loop_busy_seconds_max = Gauge(
            "cloudhub_event_loop_busy_seconds_max",
            "The part of such a time in which the hub itself worked; longest since it was ready.",
            registry=registry,
        )
        self._refreshers: list[Callable[[], Awaitable[None]]] = []
        self._states = _States()
        registry.register(self._states)
        ProcessCollector(registry=registry)

    def count_jobs(self, counts: StateCounts) -> None:
        """From now on ``cloudhub_jobs{state}`` is what ``counts`` says at each scrape."""
        self._states.jobs = counts

    def count_node_tasks(self, counts: StateCounts) -> None:
        """From now on ``cloudhub_node_tasks{state}`` is what ``counts`` says at each scrape."""
        self._states.node_tasks = counts

    def count_progress(self, totals: Callable[[], tuple[int, int, int]]) -> None:
        """From now on ``cloudhub_progress_tasks`` and ``cloudhub_progress_bytes{of}`` are what ``totals`` says at each
        scrape: tasks, bytes on the nodes, bytes in all."""
        self._states.progress = totals

    def before_scrape(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """``refresh`` is awaited before each scrape: for a count that needs a query first."""
        self._refreshers.append(refresh)

    async def render(self) -> bytes:
        """The exposition text, type `CONTENT_TYPE`."""
        for refresh in self._refreshers:
            await refresh()
        return generate_latest(self.registry)


class _States(Collector):
    """Jobs and node tasks by state, and how far pulls are, asked for when scraped."""

    def __init__(self) -> None:
        self.jobs: StateCounts = dict
        self.node_tasks: StateCounts = dict
        self.progress: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield self._family("cloudhub_jobs", "Jobs by state.", self.jobs())
        yield self._family("cloudhub_node_tasks", "Node tasks by state.", self.node_tasks())
        tasks, done, total = self.progress()
        yield GaugeMetricFamily(
            "cloudhub_progress_tasks", "Node tasks in flight of which the node said how far it is.", value=tasks
        )
        yield self._family(
            "cloudhub_progress_bytes",
            "Bytes of these tasks' images that are on the nodes, and in all where the node knows.",
            {"done": done, "total": total},
            label="of",
        )

    @staticmethod
    def _family(name: str, documentation: str, counts: Mapping[str, int], label: str = "state") -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, documentation, labels=[label])
        for state, count in counts.items():
            family.add_metric([str(state)], count)
        return family


def sample(metric: Counter | Gauge) -> float:
    """The present value of a counter or gauge without labels."""
    for family in metric.collect():
        for found in family.samples:
            if not found.name.endswith("_created"):
                return found.value
    return 0.0
