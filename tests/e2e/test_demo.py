"""`cloudhub demo` as a process: what it prints, how it ends, and that nothing of it is left."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.documents import ROOT, blocks, missing
from tests.e2e.leaks import WRITTEN
from tests.e2e.processes import BIN, command, eventually
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

pytestmark = pytest.mark.e2e

WITHIN = 90.0


class Demo:
    """One run, with a TMPDIR of its own that shows what it leaves there."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(
                [BIN / "cloudhub", "demo", *args],
                env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    @property
    def printed(self) -> str:
        return self._out.read_text()

    async def says(self, text: str) -> None:
        async def said() -> bool:
            assert self._process.poll() is None, self.printed
            return text in self.printed

        await eventually(f"the demo says {text!r}", said, within=WITHIN)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    async def code(self) -> int:
        async def ended() -> bool:
            return self._process.poll() is not None

        await eventually("the demo ends", ended, within=WITHIN)
        return self._process.returncode

    def processes(self) -> list[psutil.Process]:
        """All that run on its files."""
        return [process for process in psutil.process_iter(["cmdline"]) if self._is_of_it(process)]

    def _is_of_it(self, process: psutil.Process) -> bool:
        return str(self.temporary) in " ".join(process.info["cmdline"] or ())

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []

    def end(self) -> None:
        """For a test that failed half-way."""
        self._process.kill()
        self._process.wait()
        for process in self.processes():
            process.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's tmp_path: it has unix sockets in here, whose paths are short.
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        WRITTEN.folders.add(Path(name))
        yield Path(name)


async def test_the_demo_shows_what_the_readme_shows_and_leaves_nothing(folder: Path) -> None:
    demo = Demo(folder)
    try:
        assert await demo.code() == 0, demo.printed
        shown = next(block.text for block in blocks(ROOT / "README.md") if block.language == "text")
        assert missing(shown, demo.printed) == [], demo.printed
        for node in ("edge-1", "edge-2", "edge-3"):
            assert f"\n{node}\nIMAGE " in demo.printed
        demo.assert_nothing_is_left()
    finally:
        demo.end()


async def test_keep_leaves_all_running_until_ctrl_c_which_is_a_good_end(folder: Path) -> None:
    demo = Demo(folder, "--nodes", "1", "--keep")
    try:
        await demo.says("Ctrl-C ends it all")
        assert len(demo.processes()) >= 2, "the hub and an agent"
        kubectl = next(line.split() for line in demo.printed.splitlines() if line.endswith("get nodes"))
        assert "edge-1   Ready" in await command(BIN / kubectl[0], *kubectl[1:])
        assert WRITTEN.leaks() == [], "also of what is gone afterwards"
        demo.interrupt()
        assert await demo.code() == 0, demo.printed
        demo.assert_nothing_is_left()
    finally:
        demo.end()


async def test_an_image_that_cannot_be_pulled_fails_the_demo_and_leaves_nothing(folder: Path) -> None:
    demo = Demo(folder, "--nodes", "1", "--image", "127.0.0.1:1/no:such")
    try:
        assert await demo.code() == 1, demo.printed
        assert "The job did not end as it should: 1 of 1 nodes failed" in demo.printed
        assert "127.0.0.1:1" in demo.printed
        demo.assert_nothing_is_left()
    finally:
        demo.end()


async def test_the_demo_fills_a_container_runtime_that_it_is_told(
    folder: Path, containerd: Containerd, open_registry: Registry
) -> None:
    image = open_registry.push_image("demo/runtime", tag="v1")
    demo = Demo(folder, "--nodes", "2", "--runtime", containerd.endpoint, "--image", image.reference)
    try:
        assert await demo.code() == 0, demo.printed
        assert image.reference in containerd.ctr_images()
        demo.assert_nothing_is_left()
    finally:
        demo.end()
