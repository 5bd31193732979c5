"""docs/errors.md quotes what the programs say: each quoted text stands in the source, and each text that is raised for
a user stands on the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "errors.md"
ANYTHING: Final = "…"

USERS: Final = (
    "cloudhub/jointoken.py", "cloudhub/revoke.py", "cloudhub/revocations.py",
    "cloudhub/config.py", "cloudhub/settings.py", "cloudhub/app.py",
    "cloudhub/taskmanager/spec.py", "cloudhub/taskmanager/selection.py", "cloudhub/store/engine.py",
    "cloudhub/pki", "cloudhub/kube/credentials.py",
    "edgehub/config.py", "edgehub/joining.py", "edgehub/status.py", "edgehub/identity.py", "edgehub/link",
    "edgehub/runtime/__init__.py", "edgehub/runtime/oci", "shared/credentials.py",
)  # fmt: skip
"""Where an error that is raised is one that a user reads."""
NOT_THE_USERS: Final = {
    # Of one part of the programs to another.
    "there is neither a cluster nor a folder", "ssl_context does not ask for client certificates",
    "the join server is not running", "is a …, not a MetaData", "is no sha256 or sha512 digest",
    "there is a check named", "ttl of", "Must be set before",
    # To clients that are no agents; the page has some of them in a sentence of its own.
    "certificate request", "body is no certificate request", "body of … bytes is no certificate request",
    "header ExtKeyUsages", "key is on curve", "RSA key has", "key is neither P-256 nor RSA", "subject has",
    "the client certificate is ", "the client certificate cannot be read", "header NodeName",
    "the CA's key is neither", "token of another node",
    # What would be right, behind 'it must be'.
    "an IP address such as", "a URL such as", "host:port with a port",
}  # fmt: skip


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        text = "".join(ANYTHING if isinstance(part, ast.FormattedValue) else _text(part) or "" for part in node.values)
        return re.sub(f"{ANYTHING}+", ANYTHING, text)
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def said() -> str:
    """All texts of the source, a line each; what is filled in at run time is `ANYTHING`."""
    texts = [(ROOT / "cloudhub/kube/crds/imageprepulljobs.yaml").read_text()]
    for package in ("cloudhub", "edgehub", "shared"):
        for path in sorted((ROOT / package).rglob("*.py")):
            texts += [text for node in ast.walk(_tree(path)) if (text := _text(node))]
    return "\n".join(texts)


def quoted() -> list[str]:
    """The texts in the first column of the tables that have causes and cures."""
    found: list[str] = []
    for table in re.findall(r"^\| text \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE):
        for row in table.splitlines():
            found += re.findall(r"`([^`]+)`", row.split(" | ")[0])
    return found


def raised() -> Iterator[tuple[str, str]]:
    """Where and what: the texts of what is raised for users."""
    for place in USERS:
        paths = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).glob("*.py"))
        for path in paths:
            for node in ast.walk(_tree(path)):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    for text in _texts(node.exc):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _texts(error: ast.Call) -> list[str]:
    # `_wrong` and `right` take the rest of a sentence that the page has: '… is wrong: it must be …'.
    if isinstance(error.func, ast.Name) and error.func.id == "_wrong":
        return []
    arguments = [*error.args, *(keyword.value for keyword in error.keywords if keyword.arg != "right")]
    return [text for argument in arguments if (text := _text(argument)) and text.count(" ") >= 2]


def test_what_the_page_quotes_stands_in_the_source() -> None:
    gone = [text for text in quoted() if text not in said()]
    assert gone == [], f"docs/errors.md quotes what no program says any more: {gone}"


def test_the_page_quotes_what_it_is_for() -> None:
    assert len(quoted()) > 200
    assert "… is damaged; restore it or move it away" in quoted()


def test_what_is_raised_for_users_stands_on_the_page() -> None:
    page = [text for text in quoted() if text.strip(f"{ANYTHING} :") != ""]
    missing = [
        f"{where}: {text}"
        for where, text in raised()
        if not any(quote in text for quote in page if len(quote) > 8)
        and not any(word in text for word in NOT_THE_USERS)
    ]
    assert missing == [], f"docs/errors.md has no row with these; add one (or a word to NOT_THE_USERS):\n{missing}"
