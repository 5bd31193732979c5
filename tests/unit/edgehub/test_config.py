"""edgecore.yaml: KubeEdge's keys, units and defaults; errors that say what to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgehub.config import ConfigError, EdgeCoreConfig, LoadedConfig, check_http_server, load_config, split_host_port

KUBEEDGE = """\
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database: {aliasName: default, driverName: sqlite3}
modules:
  dbTest: {enable: false}
  deviceTwin: {enable: true}
  edgeHub:
    enable: true
    heartbeat: 15
    httpServer: https://192.0.2.1:10002
    messageBurst: 60
    messageQPS: 30
    projectID: e632aba927ea4ac2b575ec1603d56f10
    quic: {enable: false, handshakeTimeout: 30}
    rotateCertificates: true
    tlsCaFile: /etc/kubeedge/ca/rootCA.crt
    tlsCertFile: /etc/kubeedge/certs/server.crt
    tlsPrivateKeyFile: /etc/kubeedge/certs/server.key
    token:
    websocket: {enable: true, handshakeTimeout: 30, readDeadline: 15, server: 192.0.2.1:10000, writeDeadline: 15}
  edged:
    enable: true
    hostnameOverride: edge.kubeedge
    registerNodeNamespace: default
    tailoredKubeletConfig:
      address: 127.0.0.1
      containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
      imageGCHighThresholdPercent: 85
      runtimeRequestTimeout: 2m0s
  metaManager: {enable: true, remoteQueryTimeout: 60, metaServer: {enable: false}}
  taskManager: {enable: true}
"""


def _load(folder: Path, text: str) -> LoadedConfig:
    path = folder / "edgecore.yaml"
    path.write_text(text)
    return load_config(path)


def _error(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text)
    return str(caught.value)


def test_a_file_of_kubeedge_is_read_and_its_other_keys_are_named(tmp_path: Path) -> None:
    loaded = _load(tmp_path, KUBEEDGE)
    assert loaded.config.node == "edge.kubeedge"
    assert loaded.config.websocket_address == ("192.0.2.1", 10000)
    assert loaded.config.modules.edgeHub.token == ""
    assert loaded.config.modules.edged.tailoredKubeletConfig.runtimeRequestTimeout == 120
    assert loaded.ignored == (
        "database",
        "modules.dbTest",
        "modules.deviceTwin",
        "modules.edgeHub.quic",
        "modules.edged.enable",
        "modules.edged.registerNodeNamespace",
        "modules.edged.tailoredKubeletConfig.address",
        "modules.edged.tailoredKubeletConfig.imageGCHighThresholdPercent",
        "modules.metaManager.metaServer",
    )


def test_defaults_are_kubeedges() -> None:
    hub = EdgeCoreConfig().modules.edgeHub
    assert (hub.heartbeat, hub.messageQPS, hub.messageBurst, hub.rotateCertificates) == (15, 30, 60, True)
    assert (hub.websocket.handshakeTimeout, hub.websocket.readDeadline, hub.websocket.writeDeadline) == (30, 15, 15)
    assert hub.tlsCaFile == "/etc/kubeedge/ca/rootCA.crt"
    kubelet = EdgeCoreConfig().modules.edged.tailoredKubeletConfig
    assert kubelet.containerRuntimeEndpoint == "unix:///run/containerd/containerd.sock"
    limits = EdgeCoreConfig().modules.taskManager.limits
    assert (limits.cpu, limits.mem, limits.disk) == (80, 80, 80)


def test_the_older_version_has_its_endpoint_and_minutes_in_edged(tmp_path: Path) -> None:
    loaded = _load(
        tmp_path,
        "apiVersion: edgecore.config.kubeedge.io/v1alpha1\nmodules:\n  edged:\n    hostnameOverride: n1\n"
        "    remoteRuntimeEndpoint: unix:///run/crio/crio.sock\n    runtimeRequestTimeout: 3\n",
    )
    kubelet = loaded.config.modules.edged.tailoredKubeletConfig
    assert (kubelet.containerRuntimeEndpoint, kubelet.runtimeRequestTimeout) == ("unix:///run/crio/crio.sock", 180)
    assert loaded.ignored == ()


@pytest.mark.parametrize("endpoint", ['""', "builtin"])
def test_the_builtin_store_is_chosen_by_an_empty_endpoint_or_its_name(tmp_path: Path, endpoint: str) -> None:
    text = f"modules: {{edged: {{tailoredKubeletConfig: {{containerRuntimeEndpoint: {endpoint}}}}}}}"
    assert _load(tmp_path, text).config.modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint in ("", "builtin")


def test_the_image_store_is_in_the_data_folder_unless_it_is_named(tmp_path: Path) -> None:
    base = "modules: {taskManager: {dataDir: /data}"
    assert _load(tmp_path, base + "}").config.image_store == Path("/data/images")
    assert _load(tmp_path, base + ", edged: {imageStore: /big}}").config.image_store == Path("/big")


def test_the_websocket_server_is_by_default_the_join_servers_host(tmp_path: Path) -> None:
    config = _load(tmp_path, "modules: {edgeHub: {httpServer: 'https://hub.example:10002'}}").config
    assert config.websocket_address == ("hub.example", 10000)
    with pytest.raises(ConfigError, match=r"websocket\.server is not set"):
        _ = EdgeCoreConfig().websocket_address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modules: {edgeHub: {heartbeat: soon}}", ["modules.edgeHub.heartbeat", "'soon'", "number", "seconds"]),
        ("modules: {edgeHub: 3}", ["modules.edgeHub is 3; it must be keys and values"]),
        ("modules: {edgeHub: {heartbeat: 0}}", ["modules.edgeHub.heartbeat", "0", "greater than 0"]),
        ("modules: {edgeHub: {httpServer: 'http://x'}}", ["modules.edgeHub.httpServer", "'http://x'", "https://HOST"]),
        ("modules: {edgeHub: {websocket: {server: 'x:99999'}}}", ["websocket.server", "'x:99999'", "65535"]),
        ("modules: {edgeHub: {projectID: 'a/b'}}", ["modules.edgeHub.projectID", "'a/b'"]),
        ("modules: {edged: {hostnameOverride: Edge_1}}", ["hostnameOverride", "'Edge_1'", "lower-case"]),
        (
            "modules: {edged: {tailoredKubeletConfig: {containerRuntimeEndpoint: 'tcp://x'}}}",
            ["containerRuntimeEndpoint", "'tcp://x'", "unix:///PATH"],
        ),
        (
            "modules: {edged: {tailoredKubeletConfig: {runtimeRequestTimeout: soon}}}",
            ["runtimeRequestTimeout", "'soon'", "2m"],
        ),
        ("modules: {taskManager: {limits: {disk: 120}}}", ["limits.disk", "120", "100", "percent"]),
        ("modules: {taskManager: {parallelPulls: 0}}", ["parallelPulls", "0", "greater than or equal to 1"]),
        ("apiVersion: v1", ["apiVersion", "'v1'", "edgecore.config.kubeedge.io/v1alpha2"]),
        ("kind: CloudCore", ["kind", "'CloudCore'", "EdgeCore"]),
        ("modules: [1]", ["modules", "[1]"]),
        ("- a", ["must hold keys and values"]),
        ("a: [", ["line 1", "no YAML"]),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(tmp_path: Path, text: str, words: list[str]) -> None:
    message = _error(tmp_path, text)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_a_wrong_token_is_never_repeated(tmp_path: Path) -> None:
    assert "sesame" not in _error(tmp_path, "modules: {edgeHub: {token: [sesame]}}")
    loaded = _load(tmp_path, "modules: {edgeHub: {token: sesame}}")
    assert "sesame" not in repr(loaded)


def test_a_missing_file_and_one_that_is_too_large_are_plain_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    assert "more than" in _error(tmp_path, "#" * (1 << 20) + "\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("h", ("h", 1)), ("h:5", ("h", 5)), ("192.0.2.1:7", ("192.0.2.1", 7)), ("[::1]:7", ("::1", 7))],
)
def test_addresses_are_split(text: str, expected: tuple[str, int]) -> None:
    assert split_host_port(text, 1) == expected


@pytest.mark.parametrize("text", ["", "h:x", "h/p", "u@h", "h:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        split_host_port(text, 1)


def test_the_join_servers_port_is_filled_in() -> None:
    assert check_http_server("https://hub.example/") == "https://hub.example:10002"
    assert check_http_server("https://[::1]:7") == "https://[::1]:7"


@pytest.mark.parametrize(
    "text",
    ["modules: {edgeHub: [{token: sesame}]}", 'modules: {edgeHub: "token: sesame"}', "modules: [{token: sesame}]"],
)
def test_a_token_inside_of_what_is_wrong_is_not_repeated_either(tmp_path: Path, text: str) -> None:
    message = _error(tmp_path, text)
    assert "sesame" not in message
    assert "modules" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modules: {a: &x [1], b: *x}", "aliases"),
        ("modules: {edgeHub: {heartbeat: 3, heartbeat: 4}}", "key 'heartbeat' is given twice"),
        ("modules: {edged: {hostnameOverride: 2026-13-99}}", "is no YAML"),
    ],
)
def test_yaml_that_could_be_meant_otherwise_is_refused_by_its_file(tmp_path: Path, text: str, words: str) -> None:
    message = _error(tmp_path, text)
    assert words in message
    assert str(tmp_path) in message
