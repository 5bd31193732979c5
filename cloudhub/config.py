"""cloudcore.yaml: KubeEdge's keys, units and defaults, and a few of our own beside them, as small grouped models.

The file is what an operator of KubeEdge has already. Known keys are honoured; keys of modules that we do not have, and
keys that mean nothing here, are accepted and handed back by name, so that the log can say so once. A wrong value is a
`ConfigError` that names the key, the value and what would be right; it never repeats more than the start of a value.

Each field says what it is, its unit, and what breaks when it is wrong: ``cloudhub config`` and docs/configuration.md
are printed from these models. Settings are read once, at the start; this module opens nothing but the file.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cloudhub.settings import (
    ConfigError,
    ignored_keys,
    parse_document,
    read_file,
    render_yaml,
    setting,
    to_config_error,
)

__all__ = ["CloudCoreConfig", "ConfigError", "LoadedConfig", "default_yaml", "load_config", "parse_config"]

DEFAULT_PATH: Final = Path("/etc/kubeedge/config/cloudcore.yaml")
DEFAULT_NODE_LIMIT: Final = 500
CONFIG_MAP_KEY: Final = "cloudcore.yaml"


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an IP address such as 192.0.2.10; names belong in dnsNames") from None


def _url_or_nothing(text: str) -> str:
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("a URL such as https://192.0.2.1:6443, or nothing")
    return text


def _without_empty(values: Any) -> Any:
    # KubeEdge's own default file has `dnsNames: [""]`.
    return [value for value in values if value != ""] if isinstance(values, list) else values


def split_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as its two parts. Raises `ValueError` with what would be right."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or (":" in host and not bracketed):
        raise ValueError("host:port with a port from 0 to 65535, such as 127.0.0.1:9091 or [::1]:9091")
    return (host[1:-1] if bracketed else host) or "0.0.0.0", int(port)  # noqa: S104 - as in Go, ":9091" is every address


def _bind_address(text: str) -> str:
    split_address(text)
    return text


IPAddress = Annotated[str, AfterValidator(_ip_address)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Settings(BaseModel):
    # Strict: a port given as "10000" is a slip that KubeEdge refuses too. Unknown keys are found by `ignored_keys`.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class MonitorServer(_Settings):
    """Health checks and metrics."""

    bindAddress: Annotated[str, AfterValidator(_bind_address)] = setting(
        "127.0.0.1:9091",
        what="Where /healthz, /readyz and /metrics are served over plain HTTP, without authentication.",
        unit="host:port",
        breaks="On an address that others reach, they can read the metrics; on a port in use the hub does not start.",
    )

    @property
    def address(self) -> tuple[str, int]:
        return split_address(self.bindAddress)


class CommonConfig(_Settings):
    """What all modules share."""

    monitorServer: MonitorServer = MonitorServer()


class KubeAPIConfig(_Settings):
    """The Kubernetes API server to work against."""

    kubeConfig: Annotated[str, Field(max_length=4096)] = setting(
        "",
        what="Path of the kubeconfig file. Empty: the service account of the pod that the hub runs in.",
        breaks="Without either the hub does not start.",
    )
    master: Annotated[str, AfterValidator(_url_or_nothing), Field(max_length=4096)] = setting(
        "",
        what="URL of the API server; wins over the one in the kubeconfig.",
        breaks="With http:// tokens and Secrets travel in the clear.",
    )
    qps: Annotated[int, Field(ge=1, le=1_000_000)] | None = setting(
        None,
        what="Requests a second to the API server on average. Without it 5 x nodeLimit.",
        unit="requests a second",
        breaks="Too low: statuses are published late. Too high: the API server throttles the hub.",
        example=5 * DEFAULT_NODE_LIMIT,
    )
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = setting(
        None,
        what="Requests that may come at once before qps holds. Without it 10 x nodeLimit.",
        unit="requests",
        breaks="As qps.",
        example=10 * DEFAULT_NODE_LIMIT,
    )
    unavailableAfter: Annotated[float, Field(gt=0, le=86400)] = setting(
        30,
        what="How long the API server may be away before /readyz says so. Ours, not KubeEdge's.",
        unit="seconds",
        breaks="Too short: /readyz is red at each restart of the API server.",
    )


class WebSocketServer(_Settings):
    """The sessions' listener."""

    enable: bool = setting(
        True, what="Whether nodes can connect over WebSocket; there is no other way.", breaks="Off: no node connects."
    )
    address: Text = setting("0.0.0.0", what="Address to listen on.", breaks="Nodes cannot reach another one.")  # noqa: S104
    port: Port = setting(
        10000,
        what="Port to listen on.",
        unit="TCP port",
        breaks="Nodes have it in edgecore.yaml (modules.edgeHub.websocket.server).",
    )


class HTTPSServer(_Settings):
    """The join endpoints' listener: /ca.crt and /edge.crt."""

    enable: bool = setting(
        True,
        what="Whether nodes can join and renew certificates.",
        breaks="Off: no node joins, and certificates run out unrenewed.",
    )
    address: Text = setting("0.0.0.0", what="Address to listen on.", breaks="Nodes cannot reach another one.")  # noqa: S104
    port: Port = setting(
        10002,
        what="Port to listen on.",
        unit="TCP port",
        breaks="Nodes have it in edgecore.yaml (modules.edgeHub.httpServer).",
    )


class CloudHubConfig(_Settings):
    """modules.cloudHub: sessions, certificates, joining."""

    enable: bool = setting(True, what="Whether nodes are served at all.", breaks="Off: no node connects or joins.")
    keepaliveInterval: Annotated[int, Field(ge=1, le=86400)] = setting(
        30,
        what="How long a node may be silent before its session is closed.",
        unit="seconds",
        breaks="Not more than the nodes' heartbeat (15): every session is closed again and again.",
    )
    nodeLimit: Annotated[int, Field(ge=1, le=1_000_000)] = setting(
        DEFAULT_NODE_LIMIT,
        what="How many nodes may be connected at a time.",
        unit="nodes",
        breaks="Nodes beyond it are turned away.",
    )
    tlsCAFile: Text = setting(
        "/etc/kubeedge/ca/rootCA.crt",
        what="The CA's certificate, PEM. If it is missing, the Secret kubeedge/casecret; if that is too, one is made.",
        breaks="Another CA than the one the nodes joined with: every node must join again.",
    )
    tlsCAKeyFile: Text = setting(
        "/etc/kubeedge/ca/rootCA.key",
        what="The CA's private key, PEM.",
        breaks="Without the right key no certificate can be signed.",
    )
    tlsCertFile: Text = setting(
        "/etc/kubeedge/certs/server.crt",
        what="The server's certificate, PEM. If it is not there, one is made.",
        breaks="Without the name or address that nodes dial, they refuse the hub.",
    )
    tlsPrivateKeyFile: Text = setting(
        "/etc/kubeedge/certs/server.key",
        what="The server's private key, PEM.",
        breaks="If it does not fit the certificate, the hub does not start.",
    )
    writeTimeout: Annotated[int, Field(ge=1, le=86400)] = setting(
        30,
        what="How long one write to a node may take before its session is closed.",
        unit="seconds",
        breaks="Too short: nodes on slow links lose their session.",
    )
    advertiseAddress: Annotated[list[IPAddress], BeforeValidator(_without_empty), Field(max_length=256)] = setting(
        [],
        what="IP addresses at which nodes reach the hub; they stand in the server's certificate.",
        breaks="Nodes that dial an address that is not here refuse the hub.",
    )
    dnsNames: Annotated[list[Text], BeforeValidator(_without_empty), Field(max_length=256)] = setting(
        [],
        what="Names by which nodes reach the hub; they stand in the server's certificate.",
        breaks="Nodes that dial a name that is not here refuse the hub.",
    )
    edgeCertSigningDuration: Annotated[int, Field(ge=1, le=36500)] = setting(
        365,
        what="How long a node's certificate is good; nodes renew it at 70 to 90 % of that.",
        unit="days",
        breaks="Too short: a node that is off for longer must join again.",
    )
    tokenRefreshDuration: Annotated[int, Field(ge=1, le=87600)] = setting(
        12,
        what="How often the join token in the Secret tokensecret is made anew; each is good for twice as long.",
        unit="hours",
        breaks="Too long: a token that leaked is good for long.",
    )
    websocket: WebSocketServer = WebSocketServer()
    https: HTTPSServer = HTTPSServer()
    registerNodes: bool = setting(
        False,
        what="Whether a node that has no Node object gets one, unschedulable, Ready while it is connected. "
        "Ours, not KubeEdge's; `cloudhub standalone` always does it.",
        breaks="On beside a CloudCore or another kubelet for the same nodes, both write their readiness.",
    )


class TaskManagerConfig(_Settings):
    """modules.taskManager: ImagePrePullJobs."""

    enable: bool = setting(
        False, what="Whether jobs are acted on.", breaks="Off, the default as in KubeEdge: jobs are left alone."
    )
    dataDir: Text = setting(
        "/var/lib/kubeedge/cloudhub",
        what="Folder of queue.db, which holds the jobs' node tasks, and of revoked.db, which holds the revoked nodes, "
        "also with `enable: false`. Ours, not KubeEdge's.",
        breaks="On a disk that does not outlive the hub, jobs that run start again after a restart, and revoked nodes "
        "are let in again.",
    )
    statusEntries: Annotated[int, Field(ge=0, le=10_000)] = setting(
        500,
        what="How many nodes at most a job's status lists one by one; the counts are always complete. Ours.",
        unit="nodes",
        breaks="Too many: the object comes near etcd's limit of 1.5 MB, and its writes get slow.",
    )
    publishInterval: Annotated[float, Field(ge=0.1, le=3600)] = setting(
        1,
        what="Shortest time between two writes of one job's status; longer with more than 10 jobs at a time. Ours.",
        unit="seconds",
        breaks="Too short: many jobs load the API server. Too long: the status lags.",
    )
    progressInterval: Annotated[float, Field(ge=0, le=3600)] = setting(
        10,
        what="Shortest time between two writes of one job's status that only show how far its pulls are; 0 for none. "
        "Ours.",
        unit="seconds",
        breaks="Too short: jobs whose pulls take long load the API server.",
    )
    dialectTimeout: Annotated[float, Field(ge=1, le=3600)] = setting(
        20,
        what="How long an EdgeCore of unknown version may leave a v1alpha2 task unanswered before it is sent it in "
        "v1alpha1 too (KubeEdge 1.16 to 1.20); at most half of the time that the task has. Ours.",
        unit="seconds",
        breaks="Too short: slow nodes check twice. Too long: old nodes lose that much of timeoutSeconds.",
    )


class EdgeControllerConfig(_Settings):
    """modules.edgeController: the Node and the Lease of nodes whose EdgeCore has edged on."""

    enable: bool = setting(
        False,
        what="Whether nodes may make their Node, patch its status and renew their Lease through the hub. Off by "
        "default, unlike KubeEdge, whose own files say true. On, kubeAPIConfig.qps is at least 5 x nodeLimit.",
        breaks="Off: an EdgeCore with edged on never becomes Ready. On: the hub's account must be allowed to "
        "(docker/kubernetes/edge-controller).",
    )


class Modules(_Settings):
    """What the hub does."""

    cloudHub: CloudHubConfig = CloudHubConfig()
    edgeController: EdgeControllerConfig = EdgeControllerConfig()
    taskManager: TaskManagerConfig = TaskManagerConfig()


class CloudCoreConfig(_Settings):
    """The whole of cloudcore.yaml."""

    apiVersion: Literal["cloudcore.config.kubeedge.io/v1alpha1", "cloudcore.config.kubeedge.io/v1alpha2"] = (
        "cloudcore.config.kubeedge.io/v1alpha2"
    )
    kind: Literal["CloudCore"] = "CloudCore"
    commonConfig: CommonConfig = CommonConfig()
    kubeAPIConfig: KubeAPIConfig = KubeAPIConfig()
    modules: Modules = Modules()
    featureGates: dict[str, bool] = setting(
        {}, what="KubeEdge's feature gates; accepted, none changes anything here.", breaks="Nothing."
    )

    @property
    def api_qps(self) -> int:
        """KubeEdge forces 5 x nodeLimit; what the operator wrote wins here, unless nodes renew their Leases through
        the hub: that alone is a request in 10 s for each, and KubeEdge's own files say 100 with any nodeLimit."""
        return self._at_least(self.kubeAPIConfig.qps, 5 * self.modules.cloudHub.nodeLimit)

    @property
    def api_burst(self) -> int:
        return self._at_least(self.kubeAPIConfig.burst, 10 * self.modules.cloudHub.nodeLimit)

    def _at_least(self, given: int | None, least: int) -> int:
        return max(given or 0, least) if self.modules.edgeController.enable else given or least


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    config: CloudCoreConfig
    ignored: tuple[str, ...] = ()
    """Paths of keys that mean nothing here, such as ``modules.edgeController``; to be named once in the log."""


def load_config(path: Path) -> LoadedConfig:
    """The configuration of this file. Raises `ConfigError`, whose text is all that the operator needs."""
    return parse_config(parse_document(read_file(path), name=str(path)))


def parse_config(document: dict[str, Any]) -> LoadedConfig:
    """As `load_config`, of a document that is parsed already; the manifest of KubeEdge's ConfigMap will do too."""
    if document.get("kind") == "ConfigMap":
        data = document.get("data")
        inner = data.get(CONFIG_MAP_KEY) if isinstance(data, dict) else None
        if not isinstance(inner, str):
            raise ConfigError(
                key=f"data.{CONFIG_MAP_KEY}",
                problem="this ConfigMap has no such key",
                right="the text of cloudcore.yaml",
            )
        document = parse_document(inner, name=CONFIG_MAP_KEY)
    try:
        config = CloudCoreConfig.model_validate(document)
    except ValidationError as error:
        raise to_config_error(error) from None
    return LoadedConfig(config=config, ignored=ignored_keys(document, CloudCoreConfig))


def default_yaml() -> str:
    """cloudcore.yaml with every key, its default, and what it is, as comments."""
    return render_yaml(
        CloudCoreConfig(), title="cloudcore.yaml: the defaults of cloudhub. Keys and units are KubeEdge's."
    )
