"""docs/configuration.md, written from the models that the programs read their files with.

    python -m tests.unit.config.reference > docs/configuration.md

A test holds the file to what this prints.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import edgehub.config
from cloudhub.config import CloudCoreConfig
from cloudhub.settings import nested_model, type_name
from edgehub.config import EdgeCoreConfig

HEAD: Final = """# Configuration

Both programs read KubeEdge's files with KubeEdge's keys, units and defaults: `cloudcore.yaml` for cloudhub,
`edgecore.yaml` for edgehub. A key that is missing, or has nothing behind it, has its default. Keys of modules that do
not exist here are accepted; the log names them once at the start. A wrong value stops the start with one line that
names the key, the value and what would be right. Settings are read once, at the start: restart the program after an
edit.

YAML aliases and keys given twice are refused. A comment begins with `#`.

(This page is written from the programs' own models: `python -m tests.unit.config.reference > docs/configuration.md`.)
"""

CLOUD: Final = """## cloudcore.yaml

`cloudhub run --config cloudcore.yaml`; `cloudhub config` prints this as a file with every default. The manifest of
KubeEdge's ConfigMap `cloudcore` (with the file under `data`) is read too. `apiVersion` is
`cloudcore.config.kubeedge.io/v1alpha1` or `/v1alpha2`, `kind` is `CloudCore`.
"""

CLOUD_WITHOUT_EFFECT: Final = """### KubeEdge's keys without effect

Accepted, named once in the log, and nothing more:

| key | why |
| --- | --- |
| `commonConfig.tunnelPort`, `modules.cloudStream`, `modules.iptablesManager` | there is no tunnel for logs and exec |
| `commonConfig.monitorServer.enableProfiling` | there is no Go profile |
| `kubeAPIConfig.contentType` | the API is spoken to in JSON |
| `modules.cloudHub.quic`, `modules.cloudHub.unixsocket` | nodes connect over WebSocket |
| `modules.cloudHub.authorization` | always on, and stricter: a node's certificate decides which node it is |
| `modules.taskManager.buffer`, `modules.taskManager.load` | work is queued in the database |
| `modules.edgeController`, but for `enable` | one set of workers serves all; their number is no setting |
| `modules.deviceController`, `modules.syncController`, `modules.dynamicController`, `modules.router` | there are no \
such modules |
"""

EDGE: Final = """## edgecore.yaml

`edgehub run --config edgecore.yaml`; `edgehub join` writes it. `apiVersion` is
`edgecore.config.kubeedge.io/v1alpha2` or `/v1alpha1`, `kind` is `EdgeCore`.
"""

EDGE_NOTES: Final = {
    "modules.edgeHub.enable": "Accepted; edgehub always connects.",
    "modules.edgeHub.projectID": "Part of the URL that the hub is dialled at. As the hub's operator says.",
    "modules.edgeHub.httpServer": "Where the node joins and renews its certificate. Wrong: it cannot do either.",
    "modules.edgeHub.rotateCertificates": "Whether the certificate is renewed at 70 to 90 % of its life. Off: the node "
    "is locked out when it ends.",
    "modules.edgeHub.tlsCaFile": "The hub's CA, PEM.",
    "modules.edgeHub.tlsCertFile": "The node's certificate, PEM.",
    "modules.edgeHub.tlsPrivateKeyFile": "The node's private key, PEM, readable by root alone.",
    "modules.edgeHub.messageQPS": "Messages a second that the node sends at most, on average.",
    "modules.edgeHub.messageBurst": "Messages that may be sent at once before messageQPS holds.",
    "modules.edgeHub.websocket.enable": "Accepted; there is no other way.",
    "modules.edgeHub.websocket.handshakeTimeout": "How long connecting may take. Too short: slow links never connect.",
    "modules.edgeHub.websocket.writeDeadline": "How long one write may take before the link counts as dead.",
    "modules.edged.hostnameOverride": "The node's name, as in its certificate. Default: the machine's host name.",
    "modules.edged.tailoredKubeletConfig.runtimeRequestTimeout": "How long the runtime may take for each "
    "answer; a pull has the task's time. Too short: a busy runtime counts as away. Not for `builtin`.",
    "modules.metaManager.enable": "Accepted; nothing changes.",
    "modules.metaManager.remoteQueryTimeout": "Accepted; credentials come with the task.",
}
"""What is to be said of KubeEdge's own keys that the agent's models leave to KubeEdge."""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    kind: str
    default: str
    what: str


def render() -> str:
    parts = [
        HEAD,
        CLOUD,
        _table(_cloud_rows(CloudCoreConfig(), "")),
        CLOUD_WITHOUT_EFFECT,
        EDGE,
        _table(_edge_rows(EdgeCoreConfig, EdgeCoreConfig(), "")),
    ]
    return "\n".join(parts)


def _table(rows: Iterator[Row]) -> str:
    lines = ["| key | value | default | what it is |", "| --- | --- | --- | --- |"]
    lines += [f"| `{row.key}` | {row.kind} | {row.default} | {row.what} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cloud_rows(settings: BaseModel, prefix: str) -> Iterator[Row]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _cloud_rows(value, f"{prefix}{name}.")
        elif field.description:
            extra: Any = field.json_schema_extra
            unit = f", {extra['unit']}" if extra["unit"] else ""
            shown = f"worked out: `{extra['example']}`" if value is None else _default(value)
            yield Row(f"{prefix}{name}", f"{type_name(field)}{unit}", shown, f"{field.description} *{extra['breaks']}*")


def _edge_rows(model: type[BaseModel], settings: BaseModel, prefix: str) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = nested_model(field)
        if inner is not None:
            yield from _edge_rows(inner, getattr(settings, name), f"{key}.")
        elif prefix:
            yield Row(key, _edge_kind(field), _edge_default(key, settings, name), _edge_what(model, name, key))


def _edge_kind(field: FieldInfo) -> str:
    said = [field.description, *(getattr(part, "description", None) for part in field.metadata)]
    return next((text for text in said if text), type_name(field))


def _edge_default(key: str, settings: BaseModel, name: str) -> str:
    return "" if key.endswith("hostnameOverride") else _default(getattr(settings, name))


def _edge_what(model: type[BaseModel], name: str, key: str) -> str:
    said = _field_docstrings().get((model.__name__, name), "")
    return " ".join(part for part in (EDGE_NOTES.get(key, ""), said) if part)


@cache
def _field_docstrings() -> dict[tuple[str, str], str]:
    """The text below each field of the agent's models."""
    found = {}
    for node in ast.parse(inspect.getsource(edgehub.config)).body:
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    said = _string(text)
                    if said:
                        found[node.name, field.target.id] = " ".join(said.split()).replace("``", "`")
    return found


def _string(node: ast.stmt) -> str:
    value = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _default(value: Any) -> str:
    if value == "":
        return "empty"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`"


if __name__ == "__main__":
    sys.stdout.write(render())
