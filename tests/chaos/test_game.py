"""A whole run: what it says before and after, that no finding ends it, and that an interrupt leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.__main__ import Game, main, run
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import World
from tests.e2e.processes import eventually


class Bare(World):
    """Nothing runs in it."""

    async def _open(self) -> None:
        (self.folder / "here").touch()

    def begin_round(self) -> None:
        self.problems.clear()


class Barren(Bare):
    async def _open(self) -> None:
        raise AssertionError("no room for it")


class Lasting(Bare):
    async def __aexit__(self, *error: object) -> None:
        raise OSError("its disk is busy")


class Failing(Round):
    name, about, world = "failing", "", Bare

    async def play(self, scene: Scene) -> None:
        scene.world.problems.append("and the hub ended by itself")
        raise AssertionError("first\nsecond line")


class Hanging(Failing):
    name = "hanging"

    async def play(self, scene: Scene) -> None:
        await asyncio.Event().wait()


class Nowhere(Failing):
    name, world = "nowhere", Barren


class Unending(Failing):
    name, world = "unending", Lasting


async def test_no_finding_ends_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(chaos, "ROUND_WITHIN", 0.05)
    game = Game(seed=7)
    await run([(Failing, 0), (Hanging, 3), (Nowhere, 0), (Nowhere, 1), (Unending, 0), (Failing, 1)], game)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == game.found
    assert [(line["round"], line["number"], line["problems"]) for line in lines] == [
        ("failing", 0, ["the round broke off: AssertionError: first\nsecond line", "and the hub ended by itself"]),
        ("hanging", 3, ["the round broke off: TimeoutError: "]),
        ("nowhere", 0, ["the world did not come up: AssertionError: no room for it"]),
        ("nowhere", 1, ["the world did not come up: AssertionError: no room for it"]),
        ("unending", 0, ["the round broke off: AssertionError: first\nsecond line", "and the hub ended by itself"]),
        ("unending", 0, ["the world did not end: OSError: its disk is busy"]),
        ("failing", 1, ["the round broke off: AssertionError: first\nsecond line", "and the hub ended by itself"]),
    ]
    assert all(line["again"].startswith("--seed 7 --only ") for line in lines)
    kept = [Path(line["files"]) for line in lines if "files" in line]
    assert all((folder / "here").exists() for folder in kept)
    for folder in kept:
        (folder / "here").unlink()
        folder.rmdir()


class Short(Bare):
    most_rounds = 2
    folders: ClassVar[list[Path]] = []

    async def _open(self) -> None:
        self.folders.append(self.folder)


class Brief(Failing):
    name, world = "brief", Short

    async def play(self, scene: Scene) -> None:
        await asyncio.sleep(0)


async def test_a_world_that_has_had_its_rounds_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing(_: Scene) -> list[str]:
        return []

    monkeypatch.setattr(Scene, "finish", nothing)
    await run([(Brief, number) for number in range(5)], Game(seed=7))
    numbers = [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()]
    assert (numbers, len(set(Short.folders))) == ([0, 1, 2, 3, 4], 3)


def test_the_plan_is_told_first_and_what_was_found_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chaos, "ROUNDS", (Nowhere,))
    monkeypatch.setattr(chaos, "BY_NAME", {"nowhere": Nowhere})
    assert main(["--seed", "7", "--rounds", "2"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "2 rounds of seed 7: 2 nowhere",
        "2 rounds found something:",
        "  --seed 7 --only nowhere --first 0 --rounds 1",
        "    the world did not come up: AssertionError: no room for it",
        "  --seed 7 --only nowhere --first 1 --rounds 1",
        "    the world did not come up: AssertionError: no room for it",
    ]


@pytest.mark.e2e
@pytest.mark.timeout(180)
async def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        # Who runs in a shell's background inherits that SIGINT is ignored.
        "env", "--default-signal=INT", sys.executable, "-m", "tests.chaos", "--only", "network-cut", "--rounds", "1",
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    seen: dict[int, psutil.Process] = {}

    async def up() -> bool:
        seen.update((child.pid, child) for child in psutil.Process(process.pid).children(recursive=True))
        return any("edgehub" in _command_of(child) for child in _living(seen))

    try:
        await eventually("an agent is started", up)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, out) == (130, b""), err.decode()
    assert err.decode().splitlines()[-1] == "ended before its time"
    assert _living(seen) == []
    assert os.listdir(tmp_path) == []


def _command_of(child: psutil.Process) -> str:
    try:
        return " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # it has ended since it was looked for
        return ""


def _living(processes: dict[int, psutil.Process]) -> list[psutil.Process]:
    return [child for child in processes.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
