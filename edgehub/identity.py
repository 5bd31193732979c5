"""How an agent comes by its certificate at start, and how the configuration file looks after a join.

Guarantee: as EdgeCore does, `edgehub run` uses the certificate that is there when it is good for this node, else joins
with the token of edgecore.yaml, and removes the token from the file once it has a certificate. What else stands in the
file, comments included, stays.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
import yaml

from edgehub.config import API_VERSION, ConfigError, EdgeCoreConfig, LoadedConfig, read_document
from edgehub.link.errors import HubUnreachable, IdentityError, IdentityMissing
from edgehub.link.identity import IdentityFiles
from edgehub.link.join import join, parse_token
from edgehub.link.rules import Backoff
from shared.files import write_atomically

log = structlog.get_logger(__name__)

_TOKEN_LINE = re.compile(r"(?m)^([ \t]*(?:token|'token'|\"token\")[ \t]*:)[ \t]*\S.*$")


def identity_files(config: EdgeCoreConfig) -> IdentityFiles:
    hub = config.modules.edgeHub
    return IdentityFiles(ca=Path(hub.tlsCaFile), certificate=Path(hub.tlsCertFile), key=Path(hub.tlsPrivateKeyFile))


async def ensure_identity(loaded: LoadedConfig, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Returns when the node has a good certificate; waits for a hub that is not up yet. Raises `IdentityError`,
    `JoinError`, `ConfigError`, OSError."""
    config = loaded.config
    files, token = identity_files(config), config.modules.edgeHub.token
    try:
        files.load(config.node)
    except IdentityError as error:
        if not token:
            if isinstance(error, IdentityMissing):
                raise IdentityMissing(f"{error}; run edgehub join, or set modules.edgeHub.token") from None
            raise
        log.info("joining with the token", reason=str(error))
        await _join_until_done(config, files, sleep)
        files.load(config.node)
    if token:
        _forget_token(loaded.path)


async def _join_until_done(
    config: EdgeCoreConfig, files: IdentityFiles, sleep: Callable[[float], Awaitable[None]]
) -> None:
    hub = config.modules.edgeHub
    if not hub.httpServer:
        raise ConfigError("modules.edgeHub.httpServer is not set; it must be https://HOST:10002 to join with the token")
    token = parse_token(hub.token)
    backoff = Backoff(first=2.0, maximum=60.0, uniform=random.uniform)
    while True:
        try:
            await join(server=hub.httpServer, token=token, node=config.node, files=files)
        except HubUnreachable as error:
            delay = 1.0 + backoff.next_delay()
            log.warning("not joined", error=str(error), retry_in=round(delay, 1))
            await sleep(delay)
        else:
            log.info("joined", node=config.node, server=hub.httpServer)
            return


def _forget_token(path: Path) -> None:
    try:
        before = path.read_text(encoding="utf-8")
        write_atomically(path, without_token(before).encode())
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        # A read-only mount, say, or somebody edits the file just now. The node works; who can read the file can use
        # the token until it ends. No text of the error: it may be a line of the file.
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        log.warning("token not removed", path=str(path), error=why)
    else:
        log.info("token removed", path=str(path))


def without_token(text: str) -> str:
    """edgecore.yaml's text with an empty token, otherwise as it is; written anew if its form is out of the ordinary."""
    wanted = yaml.safe_load(text)
    wanted["modules"]["edgeHub"]["token"] = ""
    edited = _TOKEN_LINE.sub(r'\1 ""', text)
    try:
        if yaml.safe_load(edited) == wanted:
            return edited
    except yaml.YAMLError:
        pass
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def write_config(path: Path, changes: Mapping[str, Any]) -> None:
    """Sets ``changes`` in edgecore.yaml and keeps what else is in it. Raises `ConfigError`, OSError."""
    document = read_document(path) if path.exists() else {"apiVersion": API_VERSION, "kind": "EdgeCore"}
    _merge(document, changes)
    write_atomically(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode())


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        present = target.get(key)
        if isinstance(value, Mapping) and isinstance(present, dict):
            _merge(present, value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
