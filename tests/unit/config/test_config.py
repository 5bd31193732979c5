"""cloudcore.yaml as KubeEdge's operators have it, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudhub.config import CloudCoreConfig, ConfigError, LoadedConfig, default_yaml, load_config, parse_config
from cloudhub.settings import parse_document

KUBEEDGE_DEFAULT = """
apiVersion: cloudcore.config.kubeedge.io/v1alpha1
commonConfig:
  monitorServer:
    bindAddress: 127.0.0.1:9091
  tunnelPort: 10351
kind: CloudCore
kubeAPIConfig:
  burst: 10000
  contentType: application/vnd.kubernetes.protobuf
  kubeConfig: ""
  master: ""
  qps: 5000
modules:
  cloudHub:
    advertiseAddress:
    - 192.0.2.10
    authorization:
      debug: true
      enable: false
      modes:
      - node:
          enable: true
    dnsNames:
    - ""
    edgeCertSigningDuration: 365
    enable: true
    https:
      address: 0.0.0.0
      enable: true
      port: 10002
    keepaliveInterval: 30
    nodeLimit: 1000
    quic:
      address: 0.0.0.0
      enable: false
      maxIncomingStreams: 10000
      port: 10001
    tlsCAFile: /etc/kubeedge/ca/rootCA.crt
    tlsCAKeyFile: /etc/kubeedge/ca/rootCA.key
    tlsCertFile: /etc/kubeedge/certs/server.crt
    tlsPrivateKeyFile: /etc/kubeedge/certs/server.key
    tokenRefreshDuration: 12
    unixsocket:
      address: unix:///var/lib/kubeedge/kubeedge.sock
      enable: true
    websocket:
      address: 0.0.0.0
      enable: true
      port: 10000
    writeTimeout: 30
  cloudStream:
    enable: false
  deviceController:
    enable: true
  dynamicController:
    enable: false
  edgeController:
    buffer:
      configMapEvent: 1
    enable: true
  iptablesManager:
    enable: true
    mode: internal
  router:
    enable: false
  syncController:
    enable: true
  taskManager:
    buffer:
      taskEvent: 1
      taskStatus: 1024
    enable: false
    load:
      taskWorkers: 1
"""


def load(text: str, tmp_path: Path) -> LoadedConfig:
    path = tmp_path / "cloudcore.yaml"
    path.write_text(text)
    return load_config(path)


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(parse_document(text, name="cloudcore.yaml"))
    return str(caught.value)


def test_the_default_file_of_kubeedge_is_read_as_it_is(tmp_path: Path) -> None:
    loaded = load(KUBEEDGE_DEFAULT, tmp_path)
    hub = loaded.config.modules.cloudHub
    assert (hub.nodeLimit, hub.keepaliveInterval, hub.writeTimeout) == (1000, 30, 30)
    assert (hub.advertiseAddress, hub.dnsNames) == (["192.0.2.10"], [])
    assert (loaded.config.api_qps, loaded.config.api_burst) == (5000, 10000)
    assert not loaded.config.modules.taskManager.enable
    assert loaded.ignored == (
        "commonConfig.tunnelPort",
        "kubeAPIConfig.contentType",
        "modules.cloudHub.authorization",
        "modules.cloudHub.quic",
        "modules.cloudHub.unixsocket",
        "modules.cloudStream",
        "modules.deviceController",
        "modules.dynamicController",
        "modules.edgeController.buffer",
        "modules.iptablesManager",
        "modules.router",
        "modules.syncController",
        "modules.taskManager.buffer",
        "modules.taskManager.load",
    )


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2"])
def test_both_versions_of_the_file_are_accepted(version: str) -> None:
    document = {"apiVersion": f"cloudcore.config.kubeedge.io/{version}", "kind": "CloudCore"}
    assert parse_config(document).ignored == ()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "modules:\n", "modules:\n  cloudHub:\n    websocket:\n"):
        assert load(text, tmp_path) == LoadedConfig(config=CloudCoreConfig())


def test_the_defaults_are_kubeedges() -> None:
    config = CloudCoreConfig()
    hub = config.modules.cloudHub
    assert config.commonConfig.monitorServer.address == ("127.0.0.1", 9091)
    assert (hub.websocket.port, hub.https.port, hub.nodeLimit, hub.keepaliveInterval) == (10000, 10002, 500, 30)
    assert (hub.edgeCertSigningDuration, hub.tokenRefreshDuration) == (365, 12)
    assert (config.api_qps, config.api_burst) == (2500, 5000)
    assert (config.modules.taskManager.enable, hub.registerNodes) == (False, False)


def test_qps_and_burst_follow_the_node_limit_unless_they_are_given() -> None:
    config = parse_config({"modules": {"cloudHub": {"nodeLimit": 10000}}}).config
    assert (config.api_qps, config.api_burst) == (50_000, 100_000)
    config = parse_config({"kubeAPIConfig": {"qps": 7, "burst": 8}}).config
    assert (config.api_qps, config.api_burst) == (7, 8)


def test_the_printed_default_file_is_the_default() -> None:
    loaded = parse_config(parse_document(default_yaml(), name="printed"))
    assert loaded == LoadedConfig(config=CloudCoreConfig())


def test_every_setting_is_printed_and_explained() -> None:
    lines = default_yaml().splitlines()
    for number, line in enumerate(lines):
        key = line.strip().removeprefix("# ")
        if line.endswith(":") or line.startswith(("#", "apiVersion", "kind")) or ":" not in key:
            continue
        if not line.strip().startswith("#"):
            assert lines[number - 1].strip().startswith("#"), f"nothing explains {line.strip()}"


def test_the_manifest_of_the_config_map_will_do_too(tmp_path: Path) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cloudcore", "namespace": "kubeedge"},
        "data": {"cloudcore.yaml": "modules:\n  taskManager:\n    enable: true\n"},
    }
    assert load(yaml.safe_dump(manifest), tmp_path).config.modules.taskManager.enable
    with pytest.raises(ConfigError, match=r"data\.cloudcore\.yaml.*no such key"):
        parse_config({**manifest, "data": {}})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modules: {cloudHub: {nodeLimit: 0}}", ["modules.cloudHub.nodeLimit", "0", "greater than or equal to 1"]),
        ("modules: {cloudHub: {nodeLimit: many}}", ["modules.cloudHub.nodeLimit", "'many'", "a whole number"]),
        ("modules: {cloudHub: {nodeLimit: 1.5}}", ["modules.cloudHub.nodeLimit", "1.5", "a whole number"]),
        ("modules: {cloudHub: {nodeLimit: true}}", ["modules.cloudHub.nodeLimit", "true", "a whole number"]),
        ("modules: {cloudHub: {websocket: {port: 70000}}}", ["websocket.port", "70000", "65535"]),
        ("modules: {cloudHub: {websocket: {port: '10000'}}}", ["websocket.port", "'10000'", "a whole number"]),
        ("modules: {cloudHub: {advertiseAddress: [hub.example]}}", ["advertiseAddress.0", "'hub.example'", "IP"]),
        ("modules: {cloudHub: {advertiseAddress: 192.0.2.1}}", ["advertiseAddress", "'192.0.2.1'", "a list"]),
        ("modules: {taskManager: {enable: 'yes'}}", ["modules.taskManager.enable", "'yes'", "true or false"]),
        ("modules: {taskManager: {publishInterval: 0}}", ["publishInterval", "0", "0.1"]),
        ("modules: []", ["modules", "a list", "keys and values"]),
        ("kind: EdgeCore", ["kind", "'EdgeCore'", "'CloudCore'"]),
        ("apiVersion: v1", ["apiVersion", "'v1'", "cloudcore.config.kubeedge.io/v1alpha1"]),
        ("kubeAPIConfig: {master: 10.0.0.1}", ["kubeAPIConfig.master", "'10.0.0.1'", "https://"]),
        ("kubeAPIConfig: {unavailableAfter: .nan}", ["kubeAPIConfig.unavailableAfter", "nan"]),
        ("kubeAPIConfig: {qps: x}", ["kubeAPIConfig.qps", "'x'", "a whole number"]),
        ("commonConfig: {monitorServer: {bindAddress: '9091'}}", ["bindAddress", "'9091'", "host:port"]),
        ("commonConfig: {monitorServer: {bindAddress: 'a:b'}}", ["bindAddress", "'a:b'", "host:port"]),
        ("commonConfig: {monitorServer: {bindAddress: '::1:9091'}}", ["bindAddress", "[::1]:9091"]),
        ("featureGates: {a: 1}", ["featureGates.a", "1", "true or false"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_would_be_right(text: str, parts: list[str]) -> None:
    said = problem(text)
    assert [part for part in parts if part not in said] == [], said


def test_the_guides_line_taken_literally_is_explained() -> None:
    said = problem("modules:\n  taskManager:\n    enable: true  // 由false修改为true\n")
    assert "modules.taskManager.enable" in said
    assert "true or false" in said
    assert "comment begins with ' #'" in said


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: [", ["line 1", "not YAML"]),
        ("modules:\n\tcloudHub: {}\n", ["line 2", "not YAML"]),
        ("modules: {}\nkind: CloudCore\nmodules: {}\n", ["line 3", "modules is given twice"]),
        ("a: &x [1]\nb: *x\n", ["line 2", "aliases"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["line 1", "not YAML"]),
        ("- a\n- b\n", ["a list", "keys and values"]),
        ("text", ["a single value", "keys and values"]),
        ("[" * 3000, ["not YAML"]),
        ("? [1, 2]\n: 3\n", ["not YAML"]),
        ("a: 2024-99-99\n", ["not YAML"]),
        ("x: \x00\n", ["not YAML"]),
    ],
)
def test_bad_yaml_is_told_with_its_line(text: str, parts: list[str]) -> None:
    said = problem(text)
    assert [part for part in ["cloudcore.yaml", *parts] if part not in said] == [], said


def test_a_value_is_cut_and_a_secret_is_not_shown() -> None:
    assert len(problem(f"kind: {'x' * 10_000}")) < 200
    assert "hunter2" not in problem("featureGates: {myToken: hunter2}")


def test_a_missing_an_unreadable_and_an_endless_file_are_clear(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="larger than"):
        load_config(Path("/dev/zero"))
    (tmp_path / "binary").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 3"):
        load_config(tmp_path / "binary")


def test_ipv6_addresses_are_understood() -> None:
    config = parse_config(
        {
            "commonConfig": {"monitorServer": {"bindAddress": "[::1]:9091"}},
            "modules": {"cloudHub": {"advertiseAddress": ["2001:DB8::1"]}},
        }
    ).config
    assert config.commonConfig.monitorServer.address == ("::1", 9091)
    assert config.modules.cloudHub.advertiseAddress == ["2001:db8::1"]
    config = parse_config({"commonConfig": {"monitorServer": {"bindAddress": ":0"}}}).config
    assert config.commonConfig.monitorServer.address == ("0.0.0.0", 0)  # noqa: S104 - what ":0" means


def outcome(text: str) -> str:
    """What is said of a text; nothing when it is good. Any other exception is the test's failure."""
    try:
        parse_config(parse_document(text, name="cloudcore.yaml"))
    except ConfigError as error:
        return str(error) or "no words\n"
    return ""


KEYS = st.sampled_from(
    [
        "modules",
        "cloudHub",
        "taskManager",
        "enable",
        "kubeAPIConfig",
        "qps",
        "nodeLimit",
        "websocket",
        "port",
        "dnsNames",
        "x",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_whatever_the_file_holds_ends_in_a_configuration_or_a_config_error(document: dict[str, Any]) -> None:
    assert "\n" not in outcome(yaml.safe_dump(document))


@settings(max_examples=300)
@given(st.text(alphabet="{}[]:,&*!|>'\"%@`#- \n\tabc1?<~.", max_size=60))
def test_whatever_the_text_is_it_ends_in_a_configuration_or_a_config_error(text: str) -> None:
    assert "\n" not in outcome(text)
