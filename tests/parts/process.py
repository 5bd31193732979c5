"""One child process with a log, a readiness check and an end that is certain."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

_ATTEMPT_EVERY = 0.02
_STOP_WITHIN = 10.0


class PartError(Exception):
    """A part did not start or did not do what it was told; the text holds the end of its log."""


class Process:
    """Starts ``command`` with its output in ``log`` and waits until ``ready`` says so.

    Stopped by SIGTERM, then SIGKILL; when the interpreter ends without `stop`, killed."""

    def __init__(
        self, command: Sequence[str], *, log: Path, ready: Callable[[], bool], start_within: float = 60
    ) -> None:
        self._command = list(command)
        self.log = log
        self._ready = ready
        self._start_within = start_within
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise PartError(f"{self._command[0]} is not running")
        return self._child.pid

    def start(self) -> None:
        if self.running:
            raise PartError(f"{self._command[0]} runs already")
        require_program(self._command[0])
        with self.log.open("ab") as output:
            # Of its own session: a Ctrl-C on the terminal reaches pytest alone, which then stops its parts in order.
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        atexit.register(self.kill)
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self._start_within
        while not self._ready():
            if not self.running:
                raise PartError(f"{self._command[0]} ended while it started{self._log_end()}")
            if time.monotonic() > deadline:
                raise PartError(f"{self._command[0]} is not ready after {self._start_within:g} s{self._log_end()}")
            time.sleep(_ATTEMPT_EVERY)

    def stop(self) -> None:
        if self._child is not None and self.running:
            self._child.terminate()
            try:
                self._child.wait(_STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._child is not None and self.running:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        self._forget()

    def pause(self) -> None:
        """SIGSTOP: it is there and does nothing. `resume` undoes it."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal reaches its threads one by one; until then it may answer once more.
        stopping = psutil.Process(self.pid)
        while stopping.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.01)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _forget(self) -> None:
        self._child = None
        atexit.unregister(self.kill)

    def _log_end(self) -> str:
        text = self.log.read_text(errors="replace")[-4000:]
        return f"; {self.log} ends with:\n{text}"


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        raise PartError(f"{name} is not on PATH; tests/debian-packages.txt names the Debian packages that tests need")


def run(command: Sequence[str], *, timeout: float = 60) -> str:
    """Standard output of a command that must succeed."""
    require_program(command[0])
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise PartError(f"{command[0]} {command[1]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
