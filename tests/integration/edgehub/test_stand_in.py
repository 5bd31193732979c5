"""The agent where an EdgeCore was, with its very files, and beside one, under another node name. The hub is a
CloudCore, the agent the real process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgehub.link.identity import IdentityFiles
from tests.integration.edgehub.conftest import NODE, give_identity
from tests.integration.edgehub.hub import Hub, Session, dispatch
from tests.integration.edgehub.test_agent import Node
from tests.unit.edgehub.test_config import KUBEEDGE

IMAGES_NODE = "edge.kubeedge-images"


def left_by_an_edgecore(hub: Hub, folder: Path) -> Node:
    """A node that joined long ago: EdgeCore has taken the token out of its file."""
    certs = folder / "etc" / "certs"
    files = IdentityFiles(
        ca=folder / "etc" / "ca" / "rootCA.crt", certificate=certs / "server.crt", key=certs / "server.key"
    )
    give_identity(hub.ca, files)
    assert "BEGIN EC PRIVATE KEY" in files.key.read_text()
    node = Node(hub, folder)
    text = KUBEEDGE.replace("https://192.0.2.1:10002", hub.join_url).replace("192.0.2.1:10000", f"127.0.0.1:{hub.port}")
    text = text.replace("/etc/kubeedge/", f"{folder}/etc/").replace("unix:///run/containerd/containerd.sock", "builtin")
    data = folder / "data"
    text = text.replace(
        "  taskManager: {enable: true}\n", f"  taskManager: {{enable: true, dataDir: {data}, firstReportDelay: 0.1}}\n"
    )
    node.config.write_text(text)
    return node


def ended(session: Session) -> bool:
    return ("Pull", False) in session.outcomes


async def test_it_takes_an_edgecores_place_and_then_runs_beside_one_under_another_name(
    hub: Hub, tmp_path: Path
) -> None:
    hub.features = None
    node, beside = left_by_an_edgecore(hub, tmp_path / "edgecores"), Node(hub, tmp_path / "beside")
    before = node.config.read_text()
    run = ("-m", "edgehub", "run", "--config")
    try:
        await node.start(*run, str(node.config))
        session = await hub.session()
        await hub.until(lambda: bool(session.keepalives), within=60)
        assert (session.headers["node_id"], session.headers["ConnectionUse"]) == (NODE, "msg")
        # With EdgeCore's certificate; nothing was asked of the join endpoints, and nothing changed in its file.
        assert hub.requests == []
        assert node.config.read_text() == before
        # The other one has files of its own, and its tasks.
        await beside.join(node=IMAGES_NODE)
        text = beside.config.read_text()
        beside.config.write_text(text.replace("  taskManager:\n", "  taskManager:\n    firstReportDelay: 0.1\n"))
        await beside.start(*run, str(beside.config))
        other = await hub.session(2)
        assert other.headers["node_id"] == IMAGES_NODE
        image = "127.0.0.1:1/team/app:1"  # a registry that is not there: what counts is who reports
        for name, tells in ((NODE, session), (IMAGES_NODE, other)):
            await tells.tell(dispatch(name, image, job=f"of-{name}", uid=None))
            await hub.until(partial(ended, tells), within=60)
            assert {report["route"]["resource"].rpartition("/")[2] for report in tells.reports} == {name}
        # A task of the other node is none of its own.
        await other.tell(dispatch(NODE, image, job="stray", uid=None))
        await other.tell(dispatch(IMAGES_NODE, image, job="again", uid=None))
        await hub.until(lambda: len(other.reports) == 4, within=60)
        assert not any("/stray/" in report["route"]["resource"] for report in other.reports)
        assert not session.ended.is_set()
    finally:
        for running in (node, beside):
            if running.process is not None:
                assert await running.stop() == 0, running.log.read_text()[-4000:]
