from tests.integration.taskmanager.world import World


async def test_guide(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job(nodes=["a", "b"])
    await world.until_state("Successful")
    print(world.status())
