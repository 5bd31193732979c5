"""One target under atheris, for so many seconds: inputs that reach new branches are kept and changed further, mostly by
our own rules, which leave a document a document.

Started by `tests.fuzz.__main__`; atheris ends the process itself, and prints its runs and, of a failure, the input.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

MAX_LENGTH: Final = 256 * 1024


def main(name: str, seconds: str) -> None:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.exit("coverage needs atheris: .venv/bin/pip install atheris")
    with atheris.instrument_imports(include=["shared", "cloudhub", "edgehub"]):
        from tests.fuzz import all_targets

        # It imports what is to be followed; nothing of ours may have been imported before.
        targets = all_targets()
    from tests.fuzz.mutation import changed, made
    from tests.fuzz.target import check

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    (target,) = (target for target in targets if target.name == name)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, sample in enumerate(target.samples):
        (corpus / str(number)).write_bytes(sample)
    sys.stderr.write(f"--- {name}\n")
    with target.open() as feed:

        def one(data: bytes) -> None:
            check(target, feed, data)

        def change(data: bytes, most: int, number: int) -> bytes:
            random = Random(number)
            if random.randrange(4) == 0:
                return bytes(atheris.Mutate(data, most))
            return (made(random, target) if random.randrange(4) == 0 else changed(random, target, data))[:most]

        arguments = [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-len_control=0", "-timeout=60",
                     "-rss_limit_mb=2048", str(corpus)]  # fmt: skip
        atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
