"""`cloudhub revoke` and a hub's two servers over real TLS, with the real store between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.exceptions import InvalidStatus

from cloudhub import revoke as command
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import utc_now
from cloudhub.pki.tokens import TokenIssuer
from cloudhub.revocations import Revocations
from cloudhub.revoke import RevokeError
from cloudhub.store.engine import is_owned, open_beside, open_database
from cloudhub.store.revocations import FILE, RevocationStore
from tests.integration.certificates import Key, client_context, csr, node_certificate, node_subject
from tests.integration.pki.test_join import Answer, Join, join
from tests.integration.sessions.hub import Hub, closed, eventually, hub

NO_HUB = "no hub runs on this folder now; the next one heeds it"


class Looks:
    """Counts the hub's looks at the store, which it takes sooner here."""

    def __init__(self) -> None:
        self._count = 0
        self._go_on = asyncio.Event()
        self._go_on.set()
        self._held = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        await asyncio.sleep(seconds / 10)
        if not self._go_on.is_set():
            self._held.set()
        await self._go_on.wait()

    @contextlib.asynccontextmanager
    async def none(self) -> AsyncIterator[None]:
        """Within the block the hub does not look."""
        self._go_on.clear()
        self._held.clear()
        await self._held.wait()
        yield
        self._go_on.set()

    async def two_more(self) -> None:
        """Returns after a look that began after this was called."""
        before = self._count
        await eventually(lambda: self._count >= before + 2)


@dataclass
class Served:
    """Both servers of a hub, of one CA, and the file that they heed."""

    sessions: Hub
    joins: Join
    revocations: Revocations
    looks: Looks

    async def join(self, *, token: str | None = None, context: ssl.SSLContext | None = None) -> tuple[Answer, Key]:
        key = ec.generate_private_key(ec.SECP256R1())
        request = csr(node_subject("edge-1"), key)
        return await self.joins.certificate("edge-1", token=token, context=context, request=request), key

    async def joined(self) -> ssl.SSLContext:
        """What a session of edge-1 is opened with, after a join with a token of now."""
        answer, key = await self.join(token=self.joins.token())
        assert answer.status == 200, answer.text
        return client_context(self.sessions.ca, (answer.body, key))

    async def refused_session(self, context: ssl.SSLContext) -> str:
        with pytest.raises(InvalidStatus) as caught:
            await self.sessions.connect("edge-1", context=context)
        assert caught.value.response.status_code == 403
        return (caught.value.response.body or b"").decode().strip()


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with contextlib.AsyncExitStack() as stack:
        store = RevocationStore(await open_database(folder / FILE, "revocations"))
        stack.push_async_callback(store.close)
        metrics, looks = Metrics(), Looks()
        revocations = Revocations(store=store, metrics=metrics, sleep=looks.sleep)
        await revocations.load()
        sessions = await stack.enter_async_context(hub(metrics=metrics, revoked=revocations))
        joins = await stack.enter_async_context(join(ca=sessions.ca, metrics=metrics, revoked=revocations))
        heeding = asyncio.create_task(revocations.run(sessions.server.disconnect))
        try:
            yield Served(sessions, joins, revocations, looks)
        finally:
            heeding.cancel()
            await asyncio.gather(heeding, return_exceptions=True)


async def test_a_revoked_node_loses_its_session_and_everything_that_it_shows_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        stolen = await s.joined()
        token = s.joins.token("edge-1")
        async with s.sessions.connect("edge-1", context=stolen) as socket, s.sessions.connect("edge-2"):
            await eventually(lambda: s.sessions.server.get("edge-1"))
            assert await command.revoke(tmp_path, ["edge-1"]) == ["node edge-1 is revoked; its session has ended"]
            # In effect when the command returns: nothing is waited for here.
            assert s.sessions.server.get("edge-1") is None
            assert await s.refused_session(stolen) == "node edge-1 is revoked"
            assert await closed(socket) == (1008, "this node is revoked")
            for answer, _ in (await s.join(token=token), await s.join(context=stolen)):
                assert (answer.status, answer.text) == (403, "node edge-1 is revoked\n")
            report = await s.joins.get("/nodeupgrade", method="POST", body=b"{}", context=stolen)
            assert report.status == 403
            assert s.sessions.server.get("edge-2") is not None
        assert s.sessions.metrics.handshakes_refused_total.value("revoked") == 1
        assert s.sessions.metrics.joins_refused_total.value("revoked") == 3
        assert b"cloudhub_revoked_nodes 1.0" in await s.sessions.metrics.render()


async def test_after_the_undoing_the_old_certificate_and_token_stay_refused_and_a_new_join_works(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as s:
        stolen, old_token = await s.joined(), s.joins.token("edge-1")
        await command.revoke(tmp_path, ["edge-1"])
        (line,) = await command.undo(tmp_path, ["edge-1"])
        assert line == "node edge-1 may join again, with a new token (cloudhub token --node edge-1)"
        expected = "this certificate of node edge-1 is revoked; join again with a new token"
        assert await s.refused_session(stolen) == expected
        assert (await s.join(context=stolen))[0].text == f"{expected}\n"
        assert "was revoked after this token was made" in (await s.join(token=old_token))[0].text

        fresh = await s.joined()
        async with s.sessions.connect("edge-1", context=fresh):
            await eventually(lambda: s.sessions.server.get("edge-1"))
            # A renewal of the new one, and a session with that; the look that comes meanwhile ends neither.
            renewed, key = await s.join(context=fresh)
            assert renewed.status == 200
            await s.looks.two_more()
            assert s.sessions.server.get("edge-1") is not None
        async with s.sessions.connect("edge-1", context=client_context(s.sessions.ca, (renewed.body, key))):
            await eventually(lambda: s.sessions.server.get("edge-1"))
        assert await s.refused_session(stolen) == expected


async def test_certificates_that_the_hub_did_not_sign_itself_stay_out_too(tmp_path: Path) -> None:
    """Signed by a CloudCore with the same CA, or by whoever had its key, with whatever dates."""
    async with served(tmp_path) as s:
        await command.revoke(tmp_path, ["edge-1"])
        await command.undo(tmp_path, ["edge-1"])
        later = node_certificate(s.sessions.ca, "edge-1", life=timedelta(days=900))
        assert "is revoked" in await s.refused_session(client_context(s.sessions.ca, later))


async def test_tokens_of_a_cloudcore_say_not_when_they_were_made_and_join_no_name_that_was_revoked(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as s:
        token = jwt.encode({"exp": int(utc_now().timestamp()) + 3600}, s.sessions.ca.key.der, algorithm="HS256")
        assert (await s.join(token=token))[0].status == 200
        await command.revoke(tmp_path, ["edge-1"])
        await command.undo(tmp_path, ["edge-1"])
        assert (await s.join(token=token))[0].status == 403
        assert (await s.joins.certificate("edge-2", token=token)).status == 200


async def test_a_certificate_that_is_asked_for_while_its_node_is_revoked_is_not_handed_out(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", s.joins.server.port, ssl=client_context(s.sessions.ca)
        )
        body = csr(node_subject("edge-1"), ec.generate_private_key(ec.SECP256R1()))
        head = f"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer {s.joins.token()}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        await writer.drain()
        runner = s.joins.server._listener._runner
        await eventually(lambda: runner.server and runner.server.requests_count)
        # Past the check of its token, and slow with the rest.
        await command.revoke(tmp_path, ["edge-1"])
        await command.undo(tmp_path, ["edge-1"])
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert b" 403 " in answer.split(b"\r\n")[0]
        assert b"node edge-1 is revoked" in answer


async def test_revoked_and_undone_between_two_looks_ends_the_session_all_the_same(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        stolen = await s.joined()
        async with s.sessions.connect("edge-1", context=stolen) as socket:
            await eventually(lambda: s.sessions.server.get("edge-1"))
            beside = RevocationStore(await open_beside(tmp_path / FILE, "revocations"))
            async with s.looks.none():
                await beside.revoke(["edge-1"], 100.0)
                await beside.undo(["edge-1"], 100.0)
            await beside.close()
            assert await closed(socket) == (1008, "this node is revoked")
        assert "join again" in await s.refused_session(stolen)


async def test_without_a_hub_it_is_kept_and_the_next_hub_heeds_it_from_its_first_moment(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        stolen = node_certificate(s.sessions.ca, "edge-1")
        ca = s.sessions.ca
    assert await command.revoke(tmp_path, ["edge-1"]) == [f"node edge-1 is revoked; {NO_HUB}"]
    assert not is_owned(tmp_path / FILE)
    store = RevocationStore(await open_database(tmp_path / FILE, "revocations"))
    revocations = Revocations(store=store, metrics=Metrics())
    await revocations.load()
    async with hub(ca=ca, revoked=revocations) as sessions:
        with pytest.raises(InvalidStatus):
            await sessions.connect("edge-1", context=client_context(ca, stolen))
    await store.close()
    (line,) = await command.undo(tmp_path, ["edge-1"])
    assert line.endswith(f"(cloudhub token --node edge-1); {NO_HUB}")


async def test_what_was_done_is_listed(tmp_path: Path) -> None:
    assert await command.listing(tmp_path) == ["NODE  REVOKED  STATE"]
    async with served(tmp_path) as s:
        await command.revoke(tmp_path, ["edge-1", "a-node-with-a-long-name", "edge-3"])
        await command.undo(tmp_path, ["edge-1", "edge-3"])
        await s.joined()
        lines = await command.listing(tmp_path)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    for line, pattern in zip(
        lines,
        (
            "NODE                     REVOKED               STATE",
            rf"a-node-with-a-long-name  {time}  revoked",
            rf"edge-1                   {time}  has joined again, last certificate of {time}",
            rf"edge-3                   {time}  may join again since {time}",
        ),
        strict=True,
    ):
        assert re.fullmatch(pattern, line)


async def test_what_makes_no_sense_is_said_and_changes_nothing(tmp_path: Path) -> None:
    await command.revoke(tmp_path, ["edge-1", "edge-1"])
    (line,) = await command.revoke(tmp_path, ["edge-1"])
    assert re.fullmatch(r"node edge-1 was revoked already, at 20\d\d-.*Z", line)
    with pytest.raises(RevokeError, match="node edge-2 is not revoked; nothing was changed"):
        await command.undo(tmp_path, ["edge-1", "edge-2"])
    for call in (command.revoke, command.undo):
        with pytest.raises(ValueError, match=r"'\.\./x' is no node name"):
            await call(tmp_path, ["edge-1", "../x"])
    assert [line.split()[0::2] for line in (await command.listing(tmp_path))[1:]] == [["edge-1", "revoked"]]


async def test_a_hub_that_does_not_act_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PATIENCE", 0.3)
    store = RevocationStore(await open_database(tmp_path / FILE, "revocations"))
    with pytest.raises(RevokeError, match=r"kept, but the hub has not acted upon it within 0\.3 s"):
        await command.revoke(tmp_path, ["edge-1"])
    assert len(await store.load()) == 1
    await store.close()


async def test_commands_at_the_same_time_all_do_their_work(tmp_path: Path) -> None:
    lines = await asyncio.gather(*(command.revoke(tmp_path, [f"edge-{number}"]) for number in range(5)))
    assert len(lines) == 5
    assert len(await command.listing(tmp_path)) == 6


async def test_what_cannot_be_noted_is_not_handed_out_and_the_hub_says_why(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        await command.revoke(tmp_path, ["edge-1"])
        await command.undo(tmp_path, ["edge-1"])
        token = TokenIssuer(s.sessions.ca).issue(timedelta(hours=1)).split(".", 1)[1]
        connection = sqlite3.connect(tmp_path / FILE)
        connection.execute("DROP TABLE certificates")
        connection.commit()
        connection.close()
        answer, _ = await s.join(token=token)
        assert (answer.status, answer.text) == (503, "the hub cannot keep what it signs now; try again later\n")
        assert (await s.joins.certificate("edge-2", token=token)).status == 200
        await eventually(s.revocations.problem)
        assert "no such table" in (s.revocations.problem() or "")


async def test_what_root_makes_in_the_hubs_folder_is_the_hubs(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    await command.revoke(tmp_path, ["edge-1"])
    owners = {file.name: (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) for file in os.scandir(tmp_path)}
    assert set(owners) >= {FILE, f"{FILE}.lock"}
    assert set(owners.values()) == {(12345, 0o600)}


async def test_the_heeding_ends_with_the_store(tmp_path: Path) -> None:
    store = RevocationStore(await open_database(tmp_path / FILE, "revocations"))
    looks = Looks()
    revocations = Revocations(store=store, metrics=Metrics(), sleep=looks.sleep)
    await revocations.load()
    heeding = asyncio.create_task(revocations.run(lambda node, reason: False))
    await looks.two_more()
    await store.close()
    await asyncio.wait_for(heeding, 60)


def test_a_folder_that_no_hub_heeds_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "cloudcore.yaml"
    for call, words in (
        (lambda: command.data_folder(tmp_path, config), "is no folder of a `cloudhub standalone`"),
        (lambda: command.data_folder(None, config), "cloudcore.yaml; name it with --config"),
    ):
        _refused(call, words)
    config.write_text(
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha2\nkind: CloudCore\n"
        f"modules:\n  taskManager:\n    dataDir: {tmp_path / 'data'}\n"
    )
    _refused(lambda: command.data_folder(None, config), "the hub makes it at its start")
    (tmp_path / "data").mkdir()
    assert command.data_folder(None, config) == tmp_path / "data"


def _refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(RevokeError) as caught:
        call()
    assert words in str(caught.value)
