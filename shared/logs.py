"""The programs' logs: structlog to standard error, readable on a terminal or one JSON object a line.

Messages are constant, what varies stands in fields. A field whose name says that it holds a secret is never written,
whoever logged it; tracebacks show no local variables. What libraries log with the standard library comes out in the
same form from warnings on, at debug level too: kubernetes_asyncio prints whole bodies, and so Secrets, at its debug.

An agent imports this before anything else that imports structlog: structlog looks for rich
and greenlet and loads them when they are installed, which costs a node 6 MB of memory for coloured tracebacks and
green threads that nobody sees. So both are hidden for that one import.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

_hidden = [name for name in ("rich", "greenlet") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]
import structlog  # noqa: E402

for _name in _hidden:
    del sys.modules[_name]

from shared.cli import LogFormat  # noqa: E402

HIDDEN: Final = "[hidden]"
_SECRET_FIELDS: Final = frozenset(
    {"token", "password", "authorization", "credential", "credentials", "secret", "secret_data", "private_key", "jwt"}
)


def configure_logs(*, form: LogFormat, debug: bool = False, first: Sequence[Any] = ()) -> None:
    """``first``: processors before all others, for what is logged with structlog."""
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        hide_secrets,
    ]
    renderer: Any
    if form is LogFormat.JSON:
        common.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[*first, *common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=common,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field in event:
        if field.lower() in _SECRET_FIELDS:
            event[field] = HIDDEN
    return event
