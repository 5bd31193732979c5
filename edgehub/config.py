"""edgecore.yaml: KubeEdge's keys as far as an agent that only pulls images needs them, and a few of ours beside them.

Problem: a node may have an edgecore.yaml of KubeEdge's making already, with dozens of keys of modules that do not
exist here, in one of two API versions.

Guarantee: what we use has KubeEdge's name, unit and default. A key that we do not use is accepted, and `load_config`
returns its name so that the log can say it once. A wrong value is a `ConfigError` that names the key, the value and
what would be right; the value of `token` is never repeated. Settings are read once, at start.

Under each field of ours: unit, default, and what breaks when it is wrong.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared.wire import DEFAULT_PROJECT_ID

DEFAULT_CONFIG: Final = Path("/etc/kubeedge/config/edgecore.yaml")
DEFAULT_DATA_DIR: Final = Path("/var/lib/kubeedge/edgehub")
DEFAULT_RUNTIME_ENDPOINT: Final = "unix:///run/containerd/containerd.sock"
BUILTIN: Final = "builtin"
API_VERSION: Final = "edgecore.config.kubeedge.io/v1alpha2"
WEBSOCKET_PORT: Final = 10000
JOIN_PORT: Final = 10002
MAX_CONFIG_BYTES: Final = 1 << 20

_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_SECRET_KEYS: Final = frozenset({"token"})


class ConfigError(ValueError):
    """edgecore.yaml cannot be used. The text names the key, its value and what would be right."""


def check_node_name(name: str) -> str:
    """Kubernetes' rule for a Node's name. Raises `ValueError`."""
    if not _NODE_NAME.fullmatch(name):
        raise ValueError("must be a Kubernetes node name: lower-case letters, digits, '-' and '.', at most 253")
    return name


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[v6]:port``. Raises `ValueError`."""
    parts = urlsplit(f"//{text.strip()}")
    if parts.path or parts.query or parts.username is not None or not parts.hostname:
        raise ValueError("must be host or host:port")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("must be host or host:port with a port of 1 to 65535") from None
    return parts.hostname, port or default_port


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _go_duration(value: object) -> object:
    """Seconds of a Go duration such as ``2m`` or ``1m30s``."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError("must be a duration such as 2m or 90s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Seconds = Annotated[float, Field(gt=0, le=86_400, description="seconds")]
Duration = Annotated[float, BeforeValidator(_go_duration), Field(gt=0, le=86_400, description="for example 2m")]
Percent = Annotated[float, Field(gt=0, le=100, description="percent")]
PathText = Annotated[str, Field(min_length=1, max_length=4096, description="a path")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_set(cls, value: object) -> object:
        """YAML's ``key:`` with nothing behind it; Go reads it as not given."""
        if isinstance(value, Mapping):
            return {key: item for key, item in value.items() if item is not None}
        return value


class WebSocketConfig(_Section):
    enable: bool = True
    server: str = Field(default="", max_length=512, description="host:port")
    """Empty: the host of httpServer with port 10000."""
    handshakeTimeout: Seconds = 30
    readDeadline: Seconds = 15
    """How long a peer may leave a WebSocket ping unanswered before the link counts as dead."""
    writeDeadline: Seconds = 15

    @field_validator("server")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            split_host_port(value, WEBSOCKET_PORT)
        return value


class ReconnectConfig(_Section):
    """Ours. After a drop the agent waits a random time up to `firstDelay`, then up to twice that, and so on."""

    firstDelay: Seconds = 4
    """Seconds. Too small, and all nodes come back to a restarted hub at once."""
    maxDelay: Seconds = 60
    """Seconds. Too large, and nodes stay away long after an outage of the hub."""


class EdgeHubConfig(_Section):
    enable: bool = True
    heartbeat: Seconds = 15
    """Must stay below the hub's keepaliveInterval (30), or the hub ends the session."""
    projectID: str = Field(default=DEFAULT_PROJECT_ID, min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._-]+$")
    httpServer: str = Field(default="", max_length=512, description="https://HOST:10002")
    token: str = Field(default="", max_length=65_536, repr=False)
    """Used when there is no certificate yet, then removed from the file."""
    rotateCertificates: bool = True
    tlsCaFile: PathText = "/etc/kubeedge/ca/rootCA.crt"
    tlsCertFile: PathText = "/etc/kubeedge/certs/server.crt"
    tlsPrivateKeyFile: PathText = "/etc/kubeedge/certs/server.key"
    messageQPS: float = Field(default=30, gt=0, le=10_000, description="messages a second")
    messageBurst: int = Field(default=60, ge=1, le=100_000, description="messages")
    websocket: WebSocketConfig = WebSocketConfig()
    reconnect: ReconnectConfig = ReconnectConfig()

    @field_validator("httpServer")
    @classmethod
    def _https(cls, value: str) -> str:
        return check_http_server(value) if value else value


class KubeletConfig(_Section):
    """tailoredKubeletConfig."""

    containerRuntimeEndpoint: str = Field(default=DEFAULT_RUNTIME_ENDPOINT, max_length=4096)
    """``unix://PATH`` of a CRI runtime; empty or ``builtin`` for the built-in image store."""
    runtimeRequestTimeout: Duration = 120

    @field_validator("containerRuntimeEndpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value.startswith("/"):
            return f"unix://{value}"
        if value in ("", BUILTIN) or (value.startswith("unix:///") and len(value) > len("unix:///")):
            return value
        raise ValueError(f"must be unix:///PATH of a CRI socket, or {BUILTIN}")


class EdgedConfig(_Section):
    hostnameOverride: str = Field(
        default_factory=lambda: socket.gethostname().lower(), validate_default=True, description="the node's name"
    )
    tailoredKubeletConfig: KubeletConfig = KubeletConfig()
    imageStore: str = Field(default="", max_length=4096, description="a folder")
    """Ours. Folder of the built-in image store; empty: ``images`` in taskManager.dataDir. On a filesystem that is too
    small, pulls fail with a reason that names it."""
    insecureRegistries: list[Annotated[str, Field(min_length=1, max_length=512)]] = Field(
        default_factory=list, max_length=100, description="a list of host:port"
    )
    """Ours. Registries that the built-in image store may speak plain http to. What they serve, and the credentials
    sent to them, can be read and altered on the way."""

    @model_validator(mode="before")
    @classmethod
    def _keys_of_v1alpha1(cls, value: object) -> object:
        """Up to KubeEdge 1.12 the endpoint stood here, and the timeout in minutes."""
        if not isinstance(value, Mapping):
            return value
        kubelet = value.get("tailoredKubeletConfig") or {}
        if not isinstance(kubelet, Mapping):
            return value
        older: dict[str, object] = {}
        if value.get("remoteRuntimeEndpoint"):
            older["containerRuntimeEndpoint"] = value["remoteRuntimeEndpoint"]
        if isinstance(value.get("runtimeRequestTimeout"), int):
            older["runtimeRequestTimeout"] = f"{value['runtimeRequestTimeout']}m"
        return {**value, "tailoredKubeletConfig": {**older, **kubelet}}

    @field_validator("hostnameOverride")
    @classmethod
    def _node_name(cls, value: str) -> str:
        return check_node_name(value)


class MetaManagerConfig(_Section):
    enable: bool = True
    remoteQueryTimeout: Seconds = 60


class LimitsConfig(_Section):
    """Ours. Above its limit a check item fails the node's task, with the numbers in the reason."""

    cpu: Percent = 80
    """Percent busy, over cpuSampleSeconds. Too low, and busy nodes never pull."""
    mem: Percent = 80
    """Percent of memory not available. Too low, and small nodes never pull."""
    disk: Percent = 80
    """Percent used of the filesystem that holds the images. Above the runtime's own garbage collection threshold
    (80 to 85), a runtime may remove what was just pulled."""


class TaskManagerConfig(_Section):
    enable: bool = True
    """KubeEdge has false here since 1.21; files of older versions have no such key and pull all the same. Written out
    as false, each task is refused with a reason that says so."""
    dataDir: str = Field(default=str(DEFAULT_DATA_DIR), min_length=1, max_length=4096, description="a folder")
    """Ours. Folder of the journal and of the status file. When it is lost, finished results that the hub has not
    acknowledged are lost, and the hub asks again."""
    limits: LimitsConfig = LimitsConfig()
    cpuSampleSeconds: Seconds = 5
    """Ours. Seconds. Too short, and one spike fails the node."""
    parallelTasks: int = Field(default=2, ge=1, le=64)
    """Ours. Jobs at work at once; the others wait. Too high, and a small node runs out of memory."""
    parallelPulls: int = Field(default=3, ge=1, le=64)
    """Ours. Images in transfer at once, over all jobs."""
    queueLength: int = Field(default=100, ge=0, le=10_000)
    """Ours. Jobs that may wait; one more is refused with a reason. Too low, and bursts of jobs fail."""
    firstReportDelay: float = Field(default=2, ge=0, le=60, description="seconds, 0 to 60")
    """Ours. Seconds that a report waits before it goes to a CloudCore, whose own note that the node is at work would
    cover an earlier one for good, and the job would never end. Not used under cloudhub."""
    progressInterval: float = Field(default=5, ge=0, le=3600, description="seconds, 0 to 3600")
    """Ours. Seconds between two messages that tell how far the pulls of one job are; 0 for none. Some 450 bytes each.
    A job that is done sooner sends none, and a busy link leaves them out. Only under cloudhub."""
    taskTimeout: Seconds = 3600
    """Ours. Seconds for a whole task when the hub names no limit of its own (a CloudCore does not)."""


class ModulesConfig(_Section):
    edgeHub: EdgeHubConfig = EdgeHubConfig()
    edged: EdgedConfig = Field(default_factory=EdgedConfig)
    metaManager: MetaManagerConfig = MetaManagerConfig()
    taskManager: TaskManagerConfig = TaskManagerConfig()


class EdgeCoreConfig(_Section):
    apiVersion: Literal["edgecore.config.kubeedge.io/v1alpha2", "edgecore.config.kubeedge.io/v1alpha1"] = API_VERSION
    kind: Literal["EdgeCore"] = "EdgeCore"
    modules: ModulesConfig = Field(default_factory=ModulesConfig)

    @property
    def node(self) -> str:
        return self.modules.edged.hostnameOverride

    @property
    def data_dir(self) -> Path:
        return Path(self.modules.taskManager.dataDir)

    @property
    def image_store(self) -> Path:
        return Path(self.modules.edged.imageStore) if self.modules.edged.imageStore else self.data_dir / "images"

    @property
    def websocket_address(self) -> tuple[str, int]:
        """Raises `ConfigError` when neither it nor httpServer is set."""
        hub = self.modules.edgeHub
        if hub.websocket.server:
            return split_host_port(hub.websocket.server, WEBSOCKET_PORT)
        host = urlsplit(hub.httpServer).hostname
        if not host:
            raise ConfigError("modules.edgeHub.websocket.server is not set; it must be the hub's host:10000")
        return host, WEBSOCKET_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    path: Path
    config: EdgeCoreConfig
    ignored: tuple[str, ...]
    """Keys of the file that mean nothing here, in the file's order."""


def check_http_server(value: str) -> str:
    """``https://HOST[:PORT]`` with the port filled in. Raises `ValueError`."""
    parts = urlsplit(value.strip())
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError("must be https://HOST:10002")
    host, port = split_host_port(parts.netloc, JOIN_PORT)
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, with which a small file can unfold without end, and doubled keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "YAML aliases (*name) are not supported", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"key {key.value[:80]!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_document(path: Path) -> dict[str, Any]:
    """The file's YAML mapping, not validated. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} has more than {MAX_CONFIG_BYTES} bytes; it is no edgecore.yaml")
    try:
        document = yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date such as 2026-13-99 is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{where} is no YAML: {getattr(error, 'problem', None) or 'cannot be read'}") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold keys and values (apiVersion, kind, modules)")
    return cast("dict[str, Any]", document)


def load_config(path: Path) -> LoadedConfig:
    """Raises `ConfigError`."""
    document = read_document(path)
    return LoadedConfig(
        path=path, config=parse_config(document, path), ignored=tuple(_ignored(EdgeCoreConfig, document))
    )


def parse_config(document: Mapping[str, Any], path: Path) -> EdgeCoreConfig:
    try:
        return EdgeCoreConfig.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{path}: {_problem(cast('Mapping[str, Any]', problems[0]))}{more}") from None


def _problem(problem: Mapping[str, Any]) -> str:
    parts = [str(part) for part in problem["loc"]]
    key = ".".join(parts)
    shown = repr(problem["input"])
    # Also where a whole section is of the wrong kind and has the secret inside of it.
    hidden = not _SECRET_KEYS.isdisjoint(parts) or any(secret in shown for secret in _SECRET_KEYS)
    value = "" if hidden else f" is {shown[:80]}; it"
    # Of a section the library would name a class of ours.
    message = "must be keys and values" if problem["type"] == "model_type" else str(problem["msg"])
    what = message.removeprefix("Value error, ").replace("Input should be", "must be")
    unit = _description(parts)
    return f"{key}{value} {what[:1].lower()}{what[1:]}" + (f" ({unit})" if unit else "")


def _description(parts: list[str]) -> str:
    model: type[BaseModel] | None = EdgeCoreConfig
    text = ""
    for part in parts:
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            return text
        text = field.description or ""
        model = _model_of(field.annotation)
    return text


def _model_of(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


_KEYS_OF_V1ALPHA1: Final = frozenset({"modules.edged.remoteRuntimeEndpoint", "modules.edged.runtimeRequestTimeout"})


def _ignored(model: type[BaseModel], document: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in document.items():
        name = f"{prefix}{key}"
        field = model.model_fields.get(str(key))
        if field is None:
            if name not in _KEYS_OF_V1ALPHA1:
                names.append(name)
            continue
        nested = _model_of(field.annotation)
        if nested is not None and isinstance(value, Mapping):
            names += _ignored(nested, value, f"{name}.")
    return names
