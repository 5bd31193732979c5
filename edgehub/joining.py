"""`edgehub join`: from the options to keys and edgecore.yaml.

Guarantee: the options are checked before the hub is asked, and edgecore.yaml is written last, so a join that failed
leaves no configuration that looks complete. An edgecore.yaml that is there keeps what the options do not name. The
token is never written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgehub.config import (
    DEFAULT_CONFIG,
    DEFAULT_RUNTIME_ENDPOINT,
    WEBSOCKET_PORT,
    ConfigError,
    check_http_server,
    check_node_name,
    load_config,
    parse_config,
    read_document,
    split_host_port,
)
from edgehub.identity import identity_files, write_config
from edgehub.link.join import join, parse_token
from shared.files import private_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    server: str
    token: str = field(repr=False)
    node: str
    config: Path | None = None
    data_dir: Path | None = None
    runtime_endpoint: str | None = None
    websocket_server: str | None = None


async def join_node(options: JoinOptions) -> Path:
    """Returns the edgecore.yaml that was written. Raises `ConfigError`, `LinkError`, OSError."""
    path = _config_path(options)
    changes = _changes(options, new=not path.exists())
    token = parse_token(options.token)
    document = read_document(path) if path.exists() else {}
    config = parse_config(_merged(document, changes), path)
    if options.data_dir is not None:
        private_folder(options.data_dir)
    server = config.modules.edgeHub.httpServer
    await join(server=server, token=token, node=config.node, files=identity_files(config))
    write_config(path, changes)
    load_config(path)
    return path


def _config_path(options: JoinOptions) -> Path:
    if options.config is not None:
        return options.config.absolute()
    return options.data_dir.absolute() / "edgecore.yaml" if options.data_dir is not None else DEFAULT_CONFIG


def _changes(options: JoinOptions, *, new: bool) -> dict[str, Any]:
    server = _checked("--server", check_http_server, options.server)
    host, _ = split_host_port(server.removeprefix("https://"), 0)
    websocket = options.websocket_server or (f"[{host}]" if ":" in host else host)
    host, port = _checked("--websocket-server", lambda text: split_host_port(text, WEBSOCKET_PORT), websocket)
    hub: dict[str, Any] = {
        "httpServer": server,
        "token": "",
        "websocket": {"enable": True, "server": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"},
    }
    edged: dict[str, Any] = {"hostnameOverride": _checked("--node-name", check_node_name, options.node)}
    tasks: dict[str, Any] = {"enable": True}
    if options.runtime_endpoint is not None or new:
        endpoint = DEFAULT_RUNTIME_ENDPOINT if options.runtime_endpoint is None else options.runtime_endpoint
        edged["tailoredKubeletConfig"] = {"containerRuntimeEndpoint": endpoint}
    if options.data_dir is not None:
        folder = options.data_dir.absolute()
        hub["tlsCaFile"] = str(folder / "certs" / "rootCA.crt")
        hub["tlsCertFile"] = str(folder / "certs" / "server.crt")
        hub["tlsPrivateKeyFile"] = str(folder / "certs" / "server.key")
        tasks["dataDir"] = str(folder)
    return {"modules": {"edgeHub": hub, "edged": edged, "taskManager": tasks}}


def _checked(option: str, check: Any, value: str) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ConfigError(f"{option} is {value[:100]!r}; it {error}") from None


def _merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in changes.items():
        present = merged.get(key)
        merged[key] = _merged(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return merged
