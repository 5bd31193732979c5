"""The other pages: links lead somewhere, commands and options exist, metrics and keys have the programs' names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import cloudhub.cli
import edgehub.cli
from cloudhub.health import HealthServer
from cloudhub.metrics import Metrics
from cloudhub.pki.revocation import REVOKED
from cloudhub.taskmanager import lifecycle, reports
from tests.unit.docs import differences

ROOT: Final = Path(__file__).parents[3]
DOCS: Final = ROOT / "docs"
PAGES: Final = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
COMMANDS: Final[dict[str, Any]] = {
    "cloudhub": typer.main.get_command(cloudhub.cli.app),
    "edgehub": typer.main.get_command(edgehub.cli.app),
}


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        found = page.parent / file if file else page
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in _commands(block)]
    lines += [code for code in re.findall(r"`((?:cloudhub|edgehub) [^`]+)`", text) if "…" not in code]
    for line in lines:
        _check(line)


def _commands(block: str) -> list[str]:
    return [
        line.strip() for line in block.replace("\\\n", " ").splitlines() if re.match(r" *(cloudhub|edgehub) ", line)
    ]


def _check(line: str) -> None:
    program, *words = shlex.split(re.split(r"[|>]", line)[0])
    names = [word for word in words if not word.startswith("-")]
    group = COMMANDS[program]
    if not names:
        return
    assert names[0] in group.commands, line
    known = {option for parameter in group.commands[names[0]].params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, line


def test_every_metric_is_on_the_page_and_no_other() -> None:
    metrics = Metrics()
    families = {family.name: family.type for family in metrics.registry.collect()}
    real = {
        f"{name}_total" if kind == "counter" else name
        for name, kind in families.items()
        if not name.startswith("process_")
    }
    page = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(cloudhub_\w+)` \|", page, re.MULTILINE)) == real
    for name, kind in families.items():
        if kind in ("histogram", "gauge", "counter") and not name.startswith("process_"):
            shown = f"{name}_total" if kind == "counter" else name
            assert f"| `{shown}` | {kind}" in page


def test_the_reasons_of_refusals_are_on_the_page() -> None:
    page = (DOCS / "metrics.md").read_text()
    _, _, table = page.partition("| `reason` of `cloudhub_refusals_total` |")
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    ours = {reports.MALFORMED, reports.FOREIGN_NODE, reports.OVERFLOW}
    known = ours | {refusal.value for refusal in lifecycle.Refusal}
    assert listed <= known
    assert known - listed <= {"no_room"}, "that one is of a dispatch, which no report is"


def test_the_reasons_for_which_peers_are_sent_away_are_on_the_page() -> None:
    page = (DOCS / "metrics.md").read_text()
    table = page.partition("| `reason` of `cloudhub_handshakes_refused_total`")[2].partition("\n\n")[0]
    listed = {reason for row in table.splitlines()[2:] for reason in re.findall(r"`([a-z ]+)`", row.split(" | ")[0])}
    sources = [*(ROOT / "cloudhub" / "pki").glob("*.py"), *(ROOT / "cloudhub" / "sessions").glob("*.py")]
    sources += [ROOT / "cloudhub" / "listen" / "acceptor.py", ROOT / "cloudhub" / "revocations.py"]
    text = "\n".join(path.read_text() for path in sources)
    given = set(re.findall(r'(?:Refused\(\s*\d+,|self\._refused\()\s*"([a-z ]+)"', text)) | {REVOKED}
    assert len(given) > 15
    assert listed == given


def test_the_paths_of_health_are_on_the_page() -> None:
    assert HealthServer.__module__ == "cloudhub.health"
    source = (ROOT / "cloudhub" / "health.py").read_text()
    page = (DOCS / "metrics.md").read_text()
    for path in re.findall(r'add_get\("(/\w+)"', source):
        assert f"| `{path}` |" in page


def test_every_readiness_check_is_on_the_page() -> None:
    sources = [(ROOT / "cloudhub" / name).read_text() for name in ("app.py", "health.py")]
    names = {name for source in sources for name in re.findall(r'health\.add\("(\w+)"', source)} | {"process"}
    page = (DOCS / "metrics.md").read_text()
    table = page.partition("## Readiness")[2].partition("## Metrics")[0]
    for name in names:
        assert f"`{name}`" in table, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_that_a_page_names_are_in_the_reference(page: Path) -> None:
    reference = (DOCS / "configuration.md").read_text()
    for key in re.findall(r"`((?:modules|kubeAPIConfig|commonConfig)\.[\w.]+)", page.read_text()):
        # Itself, or the beginning of others.
        assert f"{key}`" in reference or f"{key}." in reference, key


def test_the_list_of_differences_is_that_of_the_source() -> None:
    assert differences.PAGE.read_text() == differences.rendered(), "run: python -m tests.unit.docs.differences"


def test_the_tests_that_the_page_on_kubeedge_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "kubeedge.md").read_text())
    assert len(named) > 50
    root = DOCS.parent
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (root / file).exists() or re.search(rf"def {name}\(", (root / file).read_text()) is None
    ]
    assert missing == []
