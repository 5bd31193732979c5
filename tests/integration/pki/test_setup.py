"""Finding and making the CA and the server's certificate: files, Secrets, a folder; crashes and mistakes."""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cloudhub.pki import files, secrets
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.errors import PKIError
from cloudhub.pki.refresh import TokenRefresher, file_sink, forever, secret_sink
from cloudhub.pki.setup import CA_FILE, CA_KEY_FILE, PKI, SERVER_FILE, TOKEN_FILE, PKISources, open_pki
from cloudhub.pki.tokens import TokenIssuer
from cloudhub.taskmanager.ports import Unavailable
from tests.integration.certificates import new_ca
from tests.integration.pki.secret_store import MemorySecrets

ADDRESSES = ["127.0.0.1"]


async def opened(sources: PKISources, **settings: Any) -> PKI:
    settings.setdefault("addresses", ADDRESSES)
    settings.setdefault("dns_names", ["localhost"])
    return await open_pki(sources=sources, **settings)


def names_of(pki: PKI) -> set[str]:
    found = pki.server_certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


class TestFolder:
    async def test_a_new_folder_gets_a_ca_that_only_its_owner_can_read_and_the_next_start_has_the_same(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "pki"
        first = await opened(PKISources(folder=folder))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(path.name for path in folder.iterdir()) == [CA_FILE, CA_KEY_FILE, SERVER_FILE]
        for path in folder.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        again = await opened(PKISources(folder=folder))
        assert again.ca.fingerprint == first.ca.fingerprint
        assert again.server_certificate == first.server_certificate
        again.tokens.verify(first.tokens.issue(timedelta(hours=1)).split(".", 1)[1], "edge-1")

    async def test_a_crash_at_any_write_leaves_what_the_next_start_can_go_on_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.replace
        for crash_at in range(1, 5):
            folder = tmp_path / str(crash_at)
            count = 0

            def replace(source: Any, target: Any, at: int = crash_at) -> None:
                nonlocal count
                count += 1
                if count == at:
                    raise KeyboardInterrupt
                real(source, target)

            monkeypatch.setattr(os, "replace", replace)
            try:
                await asyncio.to_thread(_open_in_thread, folder)
            except KeyboardInterrupt:
                crashed = True
            else:
                crashed = False
            assert crashed == (crash_at <= 3)
            monkeypatch.setattr(os, "replace", real)
            certificate = files.read_private(folder / CA_FILE)
            pki = await opened(PKISources(folder=folder))
            assert certificate is None or pki.ca.certificate_pem == certificate
            assert (await opened(PKISources(folder=folder))).ca.fingerprint == pki.ca.fingerprint

    async def test_a_certificate_without_its_key_is_an_error_and_nothing_is_overwritten(self, tmp_path: Path) -> None:
        await opened(PKISources(folder=tmp_path))
        (tmp_path / CA_KEY_FILE).unlink()
        before = (tmp_path / CA_FILE).read_bytes()
        with pytest.raises(PKIError, match=f"{CA_KEY_FILE}: is missing, but .*{CA_FILE} is there"):
            await opened(PKISources(folder=tmp_path))
        assert (tmp_path / CA_FILE).read_bytes() == before
        assert not (tmp_path / CA_KEY_FILE).exists()

    async def test_a_key_of_another_ca_is_an_error_and_nothing_is_overwritten(self, tmp_path: Path) -> None:
        await opened(PKISources(folder=tmp_path))
        other = new_ca().key.pem
        (tmp_path / CA_KEY_FILE).write_bytes(other)
        with pytest.raises(PKIError, match="does not belong to the certificate"):
            await opened(PKISources(folder=tmp_path))
        assert (tmp_path / CA_KEY_FILE).read_bytes() == other

    async def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(PKIError, match=r"file/pki/rootCA\.\w+: cannot be (read|written): Not a directory"):
            await opened(PKISources(folder=tmp_path / "file" / "pki"))

    async def test_neither_a_folder_nor_a_cluster_is_an_error(self) -> None:
        with pytest.raises(PKIError, match="neither a cluster nor a folder"):
            await opened(PKISources())


class TestServerCertificate:
    async def test_it_is_issued_anew_when_addresses_change_and_kept_when_they_do_not(self, tmp_path: Path) -> None:
        sources = PKISources(folder=tmp_path)
        first = await opened(sources)
        assert names_of(first) == {"127.0.0.1", "localhost"}
        same = await opened(sources, addresses=["127.0.0.1"], dns_names=["localhost"])
        assert same.server_certificate == first.server_certificate
        more = await opened(sources, addresses=["127.0.0.1", "10.0.0.7"])
        assert names_of(more) == {"127.0.0.1", "10.0.0.7", "localhost"}
        assert more.ca.fingerprint == first.ca.fingerprint

    async def test_it_is_renewed_while_the_hub_runs_when_a_tenth_of_its_life_is_left(self, tmp_path: Path) -> None:
        start = utc_now()
        now = start
        pki = await opened(PKISources(folder=tmp_path), now=lambda: now)
        first = pki.server_certificate
        assert not await pki.refresh_server_certificate()
        now = start + timedelta(days=3650 * 0.85)
        assert not await pki.refresh_server_certificate()
        now = start + timedelta(days=3650 * 0.95)
        assert await pki.refresh_server_certificate()
        assert pki.server_certificate.not_valid_after_utc > first.not_valid_after_utc
        assert not await pki.refresh_server_certificate()

    async def test_a_damaged_one_is_issued_anew(self, tmp_path: Path) -> None:
        sources = PKISources(folder=tmp_path)
        first = await opened(sources)
        (tmp_path / SERVER_FILE).write_bytes(b"damaged")
        again = await opened(sources)
        assert again.server_certificate != first.server_certificate

    async def test_the_operators_own_is_used_as_it_is(self, tmp_path: Path) -> None:
        ca, (crt, key) = await asyncio.to_thread(_operators_files, tmp_path, ["192.0.2.1"])
        sources = PKISources(
            folder=tmp_path / "own",
            ca_file=tmp_path / "ca.crt",
            ca_key_file=tmp_path / "ca.key",
            server_file=crt,
            server_key_file=key,
        )
        pki = await opened(sources)
        assert names_of(pki) == {"192.0.2.1"}
        assert pki.ca.fingerprint == ca.fingerprint
        key.write_bytes(new_ca().key.pem)
        with pytest.raises(PKIError, match=r"server\.crt with .*server\.key: the private key does not belong"):
            await opened(sources)
        key.unlink()
        with pytest.raises(PKIError, match=r"server\.key: is missing, but .*server\.crt is there"):
            await opened(sources)


class TestCluster:
    async def test_a_new_cluster_gets_kubeedges_secrets(self) -> None:
        store = MemorySecrets()
        pki = await opened(PKISources(store=store))
        data = store.secrets[secrets.NAMESPACE, "casecret"]
        assert data == {"cadata": pki.ca.certificate_der, "cakeydata": pki.ca.key.der}
        server = store.secrets[secrets.NAMESPACE, "cloudcoresecret"]
        assert set(server) == {"cloudcoredata", "cloudcorekeydata"}
        assert x509.load_der_x509_certificate(server["cloudcoredata"]) == pki.server_certificate
        assert set(store.types.values()) == {"Opaque"}

    async def test_a_ca_that_a_cloudcore_left_is_used(self) -> None:
        store, ca = MemorySecrets(), new_ca()
        await store.create(
            "kubeedge", "casecret", type="Opaque", data={"cadata": ca.certificate_der, "cakeydata": ca.key.der}
        )
        pki = await opened(PKISources(store=store))
        assert pki.ca.fingerprint == ca.fingerprint
        assert pki.ca.key.der == ca.key.der

    async def test_of_two_hubs_that_start_at_once_one_makes_the_ca(self) -> None:
        store = MemorySecrets()
        one, other = await asyncio.gather(opened(PKISources(store=store)), opened(PKISources(store=store)))
        assert one.ca.fingerprint == other.ca.fingerprint

    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ({}, "Secret kubeedge/casecret: key cadata is missing"),
            ({"cadata": b"x", "cakeydata": b"x"}, "Secret kubeedge/casecret: not a certificate in DER form"),
        ],
    )
    async def test_a_broken_secret_is_named_and_left_as_it_is(self, data: dict[str, bytes], text: str) -> None:
        store = MemorySecrets()
        await store.create("kubeedge", "casecret", type="Opaque", data=data)
        with pytest.raises(PKIError, match=text):
            await opened(PKISources(store=store))
        assert store.secrets["kubeedge", "casecret"] == data

    async def test_configured_files_win_and_are_copied_into_the_secret(self, tmp_path: Path) -> None:
        ca, _ = await asyncio.to_thread(_operators_files, tmp_path, ADDRESSES)
        store = MemorySecrets()
        sources = PKISources(store=store, ca_file=tmp_path / "ca.crt", ca_key_file=tmp_path / "ca.key")
        pki = await opened(sources)
        assert pki.ca.fingerprint == ca.fingerprint
        assert store.secrets["kubeedge", "casecret"]["cadata"] == ca.certificate_der
        writes = store.writes
        await opened(sources)
        assert store.writes == writes

    async def test_an_api_that_is_away_is_the_callers_to_wait_for(self) -> None:
        store = MemorySecrets()
        store.away = True
        with pytest.raises(Unavailable):
            await opened(PKISources(store=store))


class TestTokenRefresh:
    async def test_it_goes_on_after_errors_and_the_token_stays_good(self) -> None:
        store, ca = MemorySecrets(), new_ca()
        slept: list[float] = []
        done = asyncio.Event()

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            store.away = len(slept) in (1, 2, 3)
            if len(slept) == 6:
                done.set()
                await asyncio.Event().wait()

        refresher = TokenRefresher(
            tokens=TokenIssuer(ca), sink=secret_sink(store), every=timedelta(hours=12), sleep=sleep
        )
        task = asyncio.create_task(refresher.run())
        await asyncio.wait_for(done.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Written; then away three times, each a longer wait; then written at its usual times again.
        assert slept[0] == slept[4] == slept[5] == 12 * 3600
        assert 0.5 <= slept[1] <= 1 <= slept[2] <= 2 <= slept[3] <= 4
        token = store.secrets["kubeedge", "tokensecret"]["tokendata"].decode()
        assert token.startswith(ca.fingerprint + ".")
        TokenIssuer(ca, now=lambda: utc_now() + timedelta(hours=23.9)).verify(token.split(".", 1)[1], "edge-1")

    async def test_waits_do_not_grow_without_end(self) -> None:
        slept: list[float] = []

        async def fail() -> None:
            raise RuntimeError("broken in a way that nobody thought of")

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 40:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await forever("x", fail, every=timedelta(hours=12), sleep=sleep, jitter=lambda: 1.0)
        assert slept[:4] == [1.0, 2.0, 4.0, 8.0]
        assert max(slept) == 300

    async def test_without_a_cluster_the_token_is_in_a_file_that_only_its_owner_can_read(self, tmp_path: Path) -> None:
        ca, path = new_ca(), tmp_path / TOKEN_FILE
        refresher = TokenRefresher(tokens=TokenIssuer(ca), sink=file_sink(path), every=timedelta(hours=12))
        await refresher.refresh()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        TokenIssuer(ca).verify(path.read_text().strip().split(".", 1)[1], "edge-1")

    async def test_the_pki_runs_until_it_is_cancelled(self, tmp_path: Path) -> None:
        pki = await opened(PKISources(folder=tmp_path))
        task = asyncio.create_task(pki.run())
        async with asyncio.timeout(60):
            while not (tmp_path / TOKEN_FILE).exists():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def _open_in_thread(folder: Path) -> None:
    asyncio.run(opened(PKISources(folder=folder)))


def _operators_files(folder: Path, addresses: list[str]) -> tuple[CertificateAuthority, tuple[Path, Path]]:
    ca = new_ca()
    (folder / "ca.crt").write_bytes(ca.certificate_pem)
    (folder / "ca.key").write_bytes(ca.key.pem)
    identity = ca.issue_server_certificate(addresses=addresses, dns_names=[], now=utc_now())
    (folder / "server.crt").write_bytes(identity.chain_pem)
    (folder / "server.key").write_bytes(identity.key.pem)
    return ca, (folder / "server.crt", folder / "server.key")
