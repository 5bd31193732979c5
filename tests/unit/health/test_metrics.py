from __future__ import annotations

from cloudhub.metrics import MAX_LABEL_VALUES, OTHER, Metrics, sample


async def text(metrics: Metrics) -> list[str]:
    return (await metrics.render()).decode().splitlines()


async def test_everything_that_is_counted_is_in_the_text() -> None:
    metrics = Metrics()
    metrics.sessions.set(3)
    metrics.dispatches_total.inc()
    metrics.reports_total.inc(2)
    metrics.refusals_total.labels(reason="late").inc()
    metrics.handshakes_refused_total.labels("node limit").inc()
    metrics.messages_ignored_total.count("membership")
    metrics.commit_seconds.observe(0.003)
    metrics.publish_seconds.observe(0.03)
    metrics.count_jobs(lambda: {"Pulling": 2})
    metrics.count_node_tasks(lambda: {"Successful": 40, "Failed": 1})
    assert {
        "cloudhub_sessions 3.0",
        "cloudhub_dispatches_total 1.0",
        "cloudhub_reports_total 2.0",
        'cloudhub_refusals_total{reason="late"} 1.0',
        'cloudhub_handshakes_refused_total{reason="node limit"} 1.0',
        'cloudhub_messages_ignored_total{operation="membership"} 1.0',
        'cloudhub_commit_seconds_bucket{le="0.005"} 1.0',
        'cloudhub_publish_seconds_bucket{le="0.025"} 0.0',
        'cloudhub_jobs{state="Pulling"} 2.0',
        'cloudhub_node_tasks{state="Successful"} 40.0',
        'cloudhub_node_tasks{state="Failed"} 1.0',
    } <= set(await text(metrics))


async def test_states_are_counted_when_they_are_scraped() -> None:
    metrics = Metrics()
    states = {"Pulling": 1}
    metrics.count_jobs(lambda: states)
    states["Pulling"] = 7

    async def refresh() -> None:
        states["Failed"] = 2

    metrics.before_scrape(refresh)
    assert {'cloudhub_jobs{state="Pulling"} 7.0', 'cloudhub_jobs{state="Failed"} 2.0'} <= set(await text(metrics))


async def test_a_peer_cannot_fill_the_memory_with_label_values() -> None:
    metrics = Metrics()
    for number in range(10_000):
        metrics.messages_ignored_total.count(f"operation-{number}")
    lines = [line for line in await text(metrics) if line.startswith("cloudhub_messages_ignored_total{")]
    assert len(lines) == MAX_LABEL_VALUES + 1
    assert metrics.messages_ignored_total.value(OTHER) == 10_000 - MAX_LABEL_VALUES
    metrics.messages_ignored_total.count("x" * 10_000)
    assert all(len(line) < 200 for line in await text(metrics))


async def test_a_label_of_a_peer_cannot_break_the_text() -> None:
    metrics = Metrics()
    metrics.messages_ignored_total.count('a"\n\\evil 1')
    (line,) = [line for line in await text(metrics) if line.startswith("cloudhub_messages_ignored_total{")]
    assert line == r'cloudhub_messages_ignored_total{operation="a\"\n\\evil 1"} 1.0'


def test_two_hubs_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.dispatches_total.inc()
    assert (sample(one.dispatches_total), sample(other.dispatches_total)) == (1, 0)
    assert other.refusals_total.value("late") == 0
