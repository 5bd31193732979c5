"""The bench's records as a table, each figure beside what is to be reached.

Some figures compare two cases of the same run; they are left out when one of the two did not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench.cases import MAX_OBJECT, broken

Records = Mapping[str, Mapping[str, Any]]

STALL_MS: Final = 200
BIG: Final = "10000-nodes"


@dataclass(frozen=True, slots=True)
class Line:
    case: str
    figure: str
    to_reach: str
    measured: str
    met: bool


def lines(records: Records) -> Iterator[Line]:
    slow, big, small = records.get("1000-nodes-2s"), records.get(BIG), records.get("1000-nodes")
    bare, restart = records.get("ceiling"), records.get("restart")
    if slow:
        yield _most("1,000 nodes, 2 s an action", "s beyond the edges' delay", slow["seconds"], 1.0)
    if big:
        yield _most("10,000 nodes at once", "s to the end", big["seconds"], 10.0)
        yield _most("10,000 nodes at once", "bytes of the object", big["object_bytes"], MAX_OBJECT, "{:,.0f}")
        yield _most("10,000 nodes at once", "writes", big["writes"], 3 + big["seconds"], "{:.0f}")
        yield _most("10,000 sessions", "KB a session", big["session_kb"], 60.0, "{:.1f}")
    if big and small:
        ratio = small["tasks_per_cpu_s"] / big["tasks_per_cpu_s"]
        yield _most("cost of a node task", "10,000 over 1,000", ratio, 1.3)
    if big and bare:
        share = big["tasks_per_cpu_s"] / bare["tasks_per_cpu_s"]
        text = f"{share:.0%}: {big['tasks_per_cpu_s']:,.0f} of {bare['tasks_per_cpu_s']:,.0f}"
        yield Line("10,000 nodes at once", "node tasks a CPU-s", "at least 50 % of the ceiling", text, share >= 0.5)
    if restart:
        whole = restart["open"] == restart["nodes"] and restart["ended"] and not restart["pulled_twice"]
        text = f"{restart['open']} back, ended: {restart['ended']}, {restart['pulled_twice']} pulled twice"
        yield Line("hub killed within a job", "nodes", "all back, ended, none twice", text, bool(whole))
    if restart and bare:
        yield _most("hub killed within a job", "s until all are back", restart["back_s"], 1.5 * bare["connect_s"])
    if many := records.get("100-jobs"):
        yield _most("100 jobs of 100 nodes", "first to last end", 100 * many["spread"], 30.0, "{:.0f} %")
    if quiet := records.get("idle"):
        case = f"{quiet['nodes']:,} idle sessions, {quiet['minutes']:.0f} min"
        yield _most(case, "share of a core", 100 * quiet["core_share"], 15.0, "{:.1f} %")
        text = f"{quiet['lost']} lost"
        yield Line(case, "sessions", "none lost", text, quiet["lost"] == 0)
        yield _most(case, "growth of memory", 100 * quiet["rss_growth"], 2.0, "{:.1f} %")
    for name, record in records.items():
        if "stall_ms" in record:
            text = f"{record['stall_ms']:.0f} ms, own work {record['busy_ms']:.0f} ms"
            yield Line(name, "event loop stall", f"at most {STALL_MS} ms", text, record["stall_ms"] <= STALL_MS)
        if "ended" in record:
            problems = broken(record)
            yield Line(name, "invariants", "all hold", "; ".join(problems) or "all hold", not problems)


def _most(case: str, figure: str, value: float, bound: float, form: str = "{:.2f}") -> Line:
    return Line(case, figure, f"at most {form.format(bound)}", form.format(value), value <= bound)


def show(records: Records, console: Console) -> None:
    table = Table("case", "figure", "to reach", "measured", "")
    for line in lines(records):
        table.add_row(line.case, line.figure, line.to_reach, line.measured, "met" if line.met else "[red]missed[/red]")
    console.print(table)
    for name, record in records.items():
        if "note" in record:
            console.print(f"{name}: {record['note']}")
