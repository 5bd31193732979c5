"""Long computations beside the event loop.

The problem: a job's status of several hundred kilobytes takes tens of milliseconds to parse, prune, validate and
compare, and the loop that would stand still also serves thousands of nodes. What is that large is computed in one
thread. The computation sees immutable stored objects and its own copies only, and the committer checks that the object
it came from is still live, so nothing else is needed to keep it right. Small requests stay on the loop: going to
another thread costs more than they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

THRESHOLD_BYTES: Final = 32 * 1024

_T = TypeVar("_T")


class Offload:
    def __init__(self) -> None:
        # One thread: more would only take turns at the interpreter's lock, and fight the loop for it.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="standalone-compute")

    async def run(self, size: int, compute: Callable[[], _T]) -> _T:
        """``compute()``, in the thread when ``size`` bytes have to be gone through."""
        if size < THRESHOLD_BYTES:
            return compute()
        return await asyncio.get_running_loop().run_in_executor(self._executor, compute)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
