"""The process that `edgehub run` becomes: the agent, and nothing that only a command line needs.

Problem: this process stays for a year on a small machine. The command line's library costs it 2 MB, and unloading a
Python module gives nothing back. So `edgehub run` replaces itself by this process; its id stays the same, and whoever
started it (systemd, a shell, a container) sees one process from start to end.

Guarantee: `main` ends with 0 after a signal, with one line on standard error and 1 after an error, and within
`EXIT_WITHIN` seconds of a signal, whatever hangs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from shared.logs import configure_logs  # isort: skip - first: it keeps rich and greenlet out of structlog
import edgehub.spare  # noqa: F401  # isort: skip - second: it keeps more out of pydantic and websockets

from edgehub.agent import run_agent
from edgehub.config import BUILTIN, EdgeCoreConfig, load_config
from shared.cli import LogFormat, run_command

EXIT_WITHIN = 9.0
"""Seconds; the agent itself needs less."""


def main() -> None:
    """``run --config PATH --log-format FORMAT [--debug]``, as `edgehub.cli` writes them after it checked them."""
    config, form, debug = Path(sys.argv[3]), sys.argv[5], "--debug" in sys.argv[6:]
    configure_logs(form=LogFormat(form), debug=debug)
    run_command(lambda: run(config), program="edgehub", debug=lambda: debug)


def run(config: Path) -> None:
    loaded = load_config(config)

    async def program() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop, exit_within=EXIT_WITHIN)
        await run_agent(loaded, stop=stop)

    if _pulls_itself(loaded.config):
        import uvloop

        uvloop.run(program())
    else:
        # One session and a runtime that does the work: the standard loop is as good, and 2 MB smaller.
        asyncio.run(program())


def _pulls_itself(config: EdgeCoreConfig) -> bool:
    return config.modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint in ("", BUILTIN)


def stop_on_signals(stop: asyncio.Event, *, exit_within: float) -> None:
    """Sets ``stop`` on SIGTERM and SIGINT, and ends the process ``exit_within`` seconds later, whatever hangs."""

    def leave() -> None:
        # A thread that hangs in the kernel (a dead network mount) would keep the interpreter for ever.
        sys.stderr.write(f"edgehub: did not end within {exit_within:g} s, leaving\n")
        os._exit(1)

    def stopping() -> None:
        if not stop.is_set():
            watchdog = threading.Timer(exit_within, leave)
            watchdog.daemon = True
            watchdog.start()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)


if __name__ == "__main__":
    main()
