"""Peers of the embedded API who have not shown the token: few, and for seconds. Who has, stays."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import structlog

from cloudhub.standalone.server import LIMITS, StandaloneAPI


async def connected(api: StandaloneAPI, said: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=api.ca_pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
    writer.write(said.encode())
    return reader, writer


async def test_a_stranger_is_cut_when_its_turn_is_over_and_who_has_the_token_stays(tmp_path: Path) -> None:
    async with StandaloneAPI(data_dir=tmp_path, limits=replace(LIMITS, turn=1.0)) as api:
        bearer = f"Authorization: Bearer {api.token}\r\n"
        known, writer = await connected(api, f"GET /api HTTP/1.1\r\nHost: x\r\n{bearer}\r\n")
        await known.readuntil(b"\r\n\r\n")
        for said, answer in (
            ("", b""),
            ("GET /api HTTP/1.1\r\nX: ", b""),
            ("GET /version HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
            ("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n", b"401 Unauthorized"),
            ("POST /api/v1/nodes HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{", b"401 Unauthorized"),
        ):
            stranger, other = await connected(api, said)
            assert answer in await asyncio.wait_for(stranger.read(), 60)
            other.transport.abort()
        writer.write(f"GET /version HTTP/1.1\r\nHost: x\r\n{bearer}\r\n".encode())
        assert b"200 OK" in await asyncio.wait_for(known.readuntil(b"\r\n\r\n"), 60)
        writer.transport.abort()


async def test_many_with_the_token_are_no_flood(tmp_path: Path) -> None:
    few = replace(LIMITS, turn=60.0, running=2, running_per_address=2)
    async with StandaloneAPI(data_dir=tmp_path, limits=few) as api:
        watch = f"GET /api/v1/nodes?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n\r\n"
        peers = [await connected(api, watch) for _ in range(20)]
        for reader, _ in peers:
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        for _, writer in peers:
            writer.transport.abort()


async def test_a_wrong_token_is_logged_without_it_and_ends_the_connection(tmp_path: Path) -> None:
    async with StandaloneAPI(data_dir=tmp_path) as api:
        wrong = f"{api.token[:-4]}xxxx"
        for header, other_token in ((f"Authorization: Bearer {wrong}\r\n", True), ("", False)):
            with structlog.testing.capture_logs() as logs:
                stranger, writer = await connected(api, f"GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\n{header}\r\n" * 3)
                answer = await asyncio.wait_for(stranger.read(), 60)
                writer.transport.abort()
            assert answer.count(b"HTTP/1.1 401") == 1
            (entry,) = [entry for entry in logs if entry["event"] == "request without the token"]
            assert (entry["address"], entry["method"], entry["other_token"]) == ("127.0.0.1", "GET", other_token)
            assert wrong not in str(logs)
            assert api.token not in str(logs) + answer.decode()
