"""One target under atheris, for so many seconds: inputs that reach new branches are kept and changed further.

Started by `tests.fuzz.__main__`; atheris ends the process itself, and prints its runs and, of a failure, the input.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog


def main(name: str, seconds: str) -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.exit("coverage needs atheris: .venv/bin/pip install atheris")
    with atheris.instrument_imports(include=["shared", "cloudhub", "edgehub"]):
        from tests.fuzz import all_targets

        # It imports what is to be followed; nothing of ours may have been imported before.
        targets = all_targets()
    from tests.fuzz.target import check

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    (target,) = (target for target in targets if target.name == name)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, sample in enumerate(target.samples):
        (corpus / str(number)).write_bytes(sample)
    sys.stderr.write(f"--- {name}\n")
    with target.open() as feed:
        arguments = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=30", "-rss_limit_mb=2048", str(corpus)]
        atheris.Setup([sys.argv[0], *arguments], lambda data: check(target, feed, data) and None)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
