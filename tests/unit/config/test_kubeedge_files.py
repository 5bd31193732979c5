"""Whole cloudcore.yaml files as KubeEdge writes them, read as they are: minimal, default, and its chart's ConfigMap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from cloudhub.app import run_hub
from cloudhub.config import ConfigError, LoadedConfig, load_config
from cloudhub.settings import parse_document

CLOUD_HUB = """
    advertiseAddress:
    - 192.0.2.10
    - 2001:db8::10
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
"""
CLOUD_STREAM = """
    enable: true
    streamPort: 10003
    tlsStreamCAFile: /etc/kubeedge/ca/streamCA.crt
    tlsStreamCertFile: /etc/kubeedge/certs/stream.crt
    tlsStreamPrivateKeyFile: /etc/kubeedge/certs/stream.key
    tlsTunnelCAFile: /etc/kubeedge/ca/rootCA.crt
    tlsTunnelCertFile: /etc/kubeedge/certs/server.crt
    tlsTunnelPrivateKeyFile: /etc/kubeedge/certs/server.key
    tunnelPort: 10004
"""
DEVICE_CONTROLLER = """
    buffer:
      deviceEvent: 1
      deviceModelEvent: 1
      updateDeviceStates: 1024
      updateDeviceTwins: 1024
    enable: true
    load:
      updateDeviceStatusWorkers: 1
"""
EDGE_CONTROLLER = """
    buffer:
      certificateSigningRequest: 1024
      configMapEvent: 1
      createLease: 1024
      createNode: 1024
      createPod: 1024
      deletePod: 1024
      patchNode: 1024
      patchPod: 1024
      podEvent: 1
      queryConfigMap: 1024
      queryLease: 1024
      queryNode: 1024
      queryPersistentVolume: 1024
      queryPersistentVolumeClaim: 1024
      querySecret: 1024
      queryVolumeAttachment: 1024
      ruleEndpointsEvent: 1
      rulesEvent: 1
      secretEvent: 1
      serviceAccountToken: 1024
      updateNode: 1024
      updateNodeStatus: 1024
      updatePodStatus: 1024
    enable: true
    load:
      CreateLeaseWorks: 4
      ServiceAccountTokenWorkers: 4
      UpdateRuleStatusWorkers: 4
      createNodeWorkers: 4
      createPodWorks: 4
      deletePodWorkers: 4
      patchNodeWorkers: 10
      patchPodWorkers: 10
      queryConfigMapWorkers: 4
      queryLeaseWorkers: 4
      queryNodeWorkers: 4
      queryPersistentVolumeClaimWorkers: 4
      queryPersistentVolumeWorkers: 4
      querySecretWorkers: 4
      queryVolumeAttachmentWorkers: 4
      updateNodeStatusWorkers: 1
      updateNodeWorkers: 4
      updatePodStatusWorkers: 1
    nodeUpdateFrequency: 10
"""
TASK_MANAGER = """
    buffer:
      taskEvent: 1
      taskStatus: 1024
    enable: false
    load:
      taskWorkers: 1
"""
COMMON = """
commonConfig:
  monitorServer:
    bindAddress: 127.0.0.1:9091
    enableProfiling: false
  tunnelPort: 10351
kind: CloudCore
"""


def full(*, version: str, gates: str, api: str, more: str = "") -> str:
    """What `cloudcore --defaultconfig` prints, every module with every key."""
    return f"""
apiVersion: cloudcore.config.kubeedge.io/{version}
{COMMON}
{gates}
kubeAPIConfig:
  contentType: application/vnd.kubernetes.protobuf
  kubeConfig: /root/.kube/config
  master: ""
{api}
modules:
  cloudHub:{CLOUD_HUB}
  cloudStream:{CLOUD_STREAM}
  deviceController:{DEVICE_CONTROLLER}
  dynamicController:
    enable: false
  edgeController:{EDGE_CONTROLLER}
  iptablesManager:
    enable: true
    mode: internal
  router:
    address: 0.0.0.0
    enable: false
    port: 9443
    restTimeout: 60
  syncController:
    enable: true
  taskManager:{TASK_MANAGER}
{more}
"""


V1_16 = full(
    version="v1alpha2", gates="featureGates:\n  requireAuthorization: false", api="  burst: 10000\n  qps: 5000"
)
V1_21 = full(
    version="v1alpha1",
    gates="featureGates:\n  disableNodeTaskV1alpha2: false\n  requireAuthorization: false",
    api="  burst: 10000\n  qps: 5000",
    more="  imagePrePullController:\n    enable: true\n",
)

CHART = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: cloudcore
  namespace: kubeedge
  annotations:
    meta.helm.sh/release-name: cloudcore
    meta.helm.sh/release-namespace: kubeedge
  creationTimestamp: "2026-01-02T03:04:05Z"
  labels:
    app.kubernetes.io/managed-by: Helm
    k8s-app: kubeedge
    kubeedge: cloudcore
  resourceVersion: "4711"
  uid: 7b2a7a3e-4a1e-4d3b-9a0c-1d8a3f0a9b1c
data:
  cloudcore.yaml: |
    apiVersion: cloudcore.config.kubeedge.io/v1alpha2
    kind: CloudCore
    commonConfig:
      tunnelPort: 10350
      monitorServer:
        bindAddress: 127.0.0.1:9091
        enableProfiling: false
    featureGates:
      requireAuthorization: false
    kubeAPIConfig:
      burst: 200
      contentType: application/vnd.kubernetes.protobuf
      kubeConfig: ""
      master: ""
      qps: 100
    modules:
      cloudHub:
        advertiseAddress:
        - 192.0.2.10
        dnsNames:
        edgeCertSigningDuration: 365
        enable: true
        https:
          address: 0.0.0.0
          enable: true
          port: 10002
        keepaliveInterval: 30
        nodeLimit: 1500
        quic:
          address: 0.0.0.0
          enable: false
          maxIncomingStreams: 10000
          port: 10001
        tlsCAFile: /etc/kubeedge/ca/rootCA.crt
        tlsCAKeyFile: /etc/kubeedge/ca/rootCA.key
        tlsCertFile: /etc/kubeedge/certs/edge.crt
        tlsPrivateKeyFile: /etc/kubeedge/certs/edge.key
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
        enable: true
        streamPort: 10003
        tunnelPort: 10004
      deviceController:
        enable: true
      dynamicController:
        enable: false
      edgeController:
        enable: true
        nodeUpdateFrequency: 10
      iptablesManager:
        enable: true
        mode: external
      router:
        address: 0.0.0.0
        enable: false
        port: 9443
        restTimeout: 60
      syncController:
        enable: true
      taskManager:
        enable: false
"""
MEANINGLESS = {
    "commonConfig.monitorServer.enableProfiling",
    "commonConfig.tunnelPort",
    "kubeAPIConfig.contentType",
    "modules.cloudHub.quic",
    "modules.cloudHub.unixsocket",
    "modules.cloudStream",
    "modules.deviceController",
    "modules.dynamicController",
    "modules.edgeController.nodeUpdateFrequency",
    "modules.iptablesManager",
    "modules.router",
    "modules.syncController",
}
OF_FULL = MEANINGLESS | {
    "modules.cloudHub.authorization",
    "modules.edgeController.buffer",
    "modules.edgeController.load",
    "modules.taskManager.buffer",
    "modules.taskManager.load",
}


def load(text: str, folder: Path) -> LoadedConfig:
    path = folder / "cloudcore.yaml"
    path.write_text(text)
    return load_config(path)


@pytest.mark.parametrize(
    ("text", "ignored"),
    [(V1_16, OF_FULL), (V1_21, OF_FULL | {"modules.imagePrePullController"}), (CHART, MEANINGLESS)],
    ids=["v1.16", "v1.21", "chart"],
)
def test_a_file_of_kubeedge_is_read_as_it_is_and_what_means_nothing_is_named_once(
    text: str, ignored: set[str], tmp_path: Path
) -> None:
    loaded = load(text, tmp_path)
    assert sorted(loaded.ignored) == sorted(ignored)
    modules = loaded.config.modules
    assert modules.cloudHub.advertiseAddress[0] == "192.0.2.10"
    assert modules.cloudHub.dnsNames == []
    assert (modules.cloudHub.websocket.port, modules.cloudHub.https.port) == (10000, 10002)
    assert modules.cloudHub.tlsCAFile == "/etc/kubeedge/ca/rootCA.crt"
    assert not modules.taskManager.enable
    assert modules.edgeController.enable, "as its file says; a file without the key leaves it off"
    assert loaded.config.featureGates["requireAuthorization"] is False


def test_the_charts_few_requests_a_second_do_not_starve_the_leases_of_its_nodes(tmp_path: Path) -> None:
    loaded = load(CHART, tmp_path).config
    assert (loaded.api_qps, loaded.api_burst) == (7500, 15000)
    off = load(CHART.replace("enable: true\n        nodeUpdate", "enable: false\n        nodeUpdate"), tmp_path).config
    assert (off.api_qps, off.api_burst) == (100, 200)


def test_the_guides_edit_of_the_charts_config_map_turns_the_task_manager_on(tmp_path: Path) -> None:
    edited = CHART.replace("taskManager:\n        enable: false", "taskManager:\n        enable: true")
    assert load(edited, tmp_path).config.modules.taskManager.enable


def test_the_mounted_key_of_the_config_map_is_a_file_like_any_other(tmp_path: Path) -> None:
    manifest: dict[str, Any] = parse_document(CHART, name="chart")
    assert load(manifest["data"]["cloudcore.yaml"], tmp_path).config == load(CHART, tmp_path).config


@pytest.mark.parametrize("text", [V1_16, V1_21], ids=["v1.16", "v1.21"])
def test_keys_with_nothing_behind_them_have_their_defaults(text: str, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    document["modules"]["taskManager"] = None
    document["modules"]["edgeController"] = None
    document["featureGates"] = None
    loaded = load(yaml.safe_dump(document), tmp_path).config
    assert not loaded.modules.taskManager.enable
    assert not loaded.modules.edgeController.enable


async def test_the_log_names_what_means_nothing_once(tmp_path: Path) -> None:
    off = V1_21.replace("    enable: true\n    https:", "    enable: false\n    https:")
    with structlog.testing.capture_logs() as logs, pytest.raises(ConfigError, match=r"modules\.cloudHub\.enable"):
        await run_hub(load(off, tmp_path))
    (line,) = [entry for entry in logs if "mean nothing here" in entry["event"]]
    assert set(line["keys"]) == OF_FULL | {"modules.imagePrePullController"}
