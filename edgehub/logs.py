"""The agent's log: structlog to standard error, readable on a terminal or one JSON object a line.

Imported before anything else that imports structlog: structlog looks for rich and greenlet and loads them when they are
installed, which costs a node 6 MB of memory for coloured tracebacks and green threads that nobody sees. So both are
hidden for that one import.
What libraries log with the standard library's `logging` (warnings and worse) comes out in the same form.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

_hidden = [name for name in ("rich", "greenlet") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]
import structlog  # noqa: E402

for _name in _hidden:
    del sys.modules[_name]

LogFormat = Literal["text", "json"]


def configure_logs(*, form: LogFormat, debug: bool = False) -> None:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any
    if form == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    level = logging.DEBUG if debug else logging.INFO
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
