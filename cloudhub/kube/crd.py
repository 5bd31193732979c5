"""The CustomResourceDefinition of ImagePrePullJob: its text, and seeing to it that the API server has it.

A CRD that KubeEdge installed, or anyone else, is left as it is: jobs work on it, only our additions to the status are
dropped by it. One of ours is brought up to date when this program has a newer edition; never back, and never when it
serves versions that ours does not know, since that could strand stored objects.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final, Literal

import structlog
import yaml

from cloudhub.kube.client import KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.taskmanager.ports import Forbidden, NotFound

log = structlog.get_logger(__name__)

EDITION_ANNOTATION: Final = "cloudhub.kubeedge.io/crd-edition"
_PATH: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_FILE: Final = "imageprepulljobs.yaml"

Outcome = Literal["created", "updated", "kept", "foreign", "forbidden"]


def crd_yaml() -> str:
    """The text of the CRDs, as ``cloudhub crds`` prints it for ``kubectl apply -f -``."""
    return resources.files("cloudhub.kube").joinpath("crds", _FILE).read_text()


def load_crd() -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load(crd_yaml())
    return crd


async def ensure_crd(client: KubeClient) -> Outcome:
    """What was found or done. Raises `KubeError` when the API does not answer or refuses."""
    ours = load_crd()
    try:
        outcome = await _ensure(client, ours)
    except Forbidden as error:
        # Least rights: an administrator has installed the CRD, and the hub may only use it.
        log.warning("the CRD cannot be checked; it has to be installed already", reason=str(error))
        return "forbidden"
    if outcome == "foreign":
        log.info("the CRD is not of cloudhub's making and is left as it is", crd=ours["metadata"]["name"])
    elif outcome != "kept":
        log.info("the CRD was installed", crd=ours["metadata"]["name"], outcome=outcome)
    return outcome


async def _ensure(client: KubeClient, ours: dict[str, Any]) -> Outcome:
    path = f"{_PATH}/{ours['metadata']['name']}"
    try:
        found = await client.request("GET", path)
    except NotFound:
        try:
            await client.request("POST", _PATH, body=ours)
        except Conflict:
            return await _ensure(client, ours)  # another hub made it in between
        return "created"
    edition = _edition(found)
    if edition is None or not _versions(found) <= _versions(ours):
        return "foreign"
    if edition >= (_edition(ours) or 0):
        return "kept"
    about = found["metadata"]
    labels = {**(about.get("labels") or {}), **ours["metadata"]["labels"]}
    annotations = {**(about.get("annotations") or {}), **ours["metadata"]["annotations"]}
    body = {**found, "spec": ours["spec"], "metadata": {**about, "labels": labels, "annotations": annotations}}
    body.pop("status", None)
    try:
        await client.request("PUT", path, body=body)
    except Conflict:
        return await _ensure(client, ours)
    return "updated"


def _edition(crd: dict[str, Any]) -> int | None:
    value = (crd["metadata"].get("annotations") or {}).get(EDITION_ANNOTATION)
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None


def _versions(crd: dict[str, Any]) -> set[str]:
    stored = (crd.get("status") or {}).get("storedVersions") or ()
    return {version["name"] for version in crd["spec"]["versions"]} | set(stored)
