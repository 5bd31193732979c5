"""The API server is away while thousands of nodes report: it and the log are asked once in a while, not each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudhub.taskmanager.ports import Unavailable
from tests.integration.taskmanager.world import World


async def test_a_status_that_cannot_be_written_is_not_tried_at_every_report(world: World) -> None:
    names = [f"n{number:02}" for number in range(60)]
    world.nodes.add(*names)
    tries = 0
    written = world.jobs.patch_status

    async def counted(*, name: str, uid: str, status: Mapping[str, Any]) -> None:
        nonlocal tries
        tries += 1
        await written(name=name, uid=uid, status=status)

    world.jobs.patch_status = counted  # type: ignore[method-assign]
    world.jobs.problem = Unavailable("the API server is away")
    world.sessions.connect(*names, behaviour=world.sessions.obey)
    world.job(nodes=names)
    await world.until(lambda: all(world.asked(name) for name in names[:-1]))
    # The clock stands still: this all happens within one interval.
    assert tries <= 2
    world.jobs.problem = None
    await world.until_state("Successful")
    assert world.status()["counts"]["succeeded"] == 60
