"""The demo from first to last: registry, hub, agents, Secret, job, what came of it, and the end of it all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console

from cloudhub.demo.fleet import Failed, Fleet
from cloudhub.demo.image import TAG, demo_image
from cloudhub.demo.registry import DemoRegistry
from cloudhub.demo.view import Progress
from cloudhub.kube.client import KubeClient
from cloudhub.taskmanager.ports import KubeError, NotFound
from shared.jobs import API_GROUP, API_VERSION, KIND, PLURAL

JOB: Final = "imageprepull-example"
SECRET: Final = "my-secret"  # noqa: S105 - a Secret's name
USER, PASSWORD = "tiger", "pass1234"  # the guide's, for a registry that lives as long as the demo
JOBS: Final = f"/apis/{API_GROUP}/{API_VERSION}/{PLURAL}"
SECRETS: Final = "/api/v1/namespaces/default/secrets"
READY_SECONDS: Final = 60.0
JOB_SECONDS: Final = 900
BYTES_PER_SECOND: Final = 4_000_000
"""Of the demo's registry, for each transfer: slow enough to be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    nodes: int = 3
    images: tuple[str, ...] = ()
    """Empty: one image in a private registry of the demo's own."""
    runtime: str = "builtin"
    keep: bool = False


async def run_demo(options: DemoOptions) -> int:
    """The exit code: 0 when every image is on every node."""
    console = Console(highlight=False, soft_wrap=True)
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - a coroutine always runs in a task
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, main.cancel)
    try:
        with tempfile.TemporaryDirectory(prefix="cloudhub-demo-") as folder:
            return await _Demo(options, console, Path(folder)).run()
    except asyncio.CancelledError:
        console.print("interrupted; all ended and removed")
        return 130
    except (Failed, KubeError, OSError, TimeoutError) as error:
        console.print(f"demo failed: {error or type(error).__name__}", markup=False)
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Demo:
    def __init__(self, options: DemoOptions, console: Console, folder: Path) -> None:
        self._options = options
        self._say = console.print
        self._console = console
        self._folder = folder
        self._nodes = [f"edge-{number}" for number in range(1, options.nodes + 1)]

    async def run(self) -> int:
        async with contextlib.AsyncExitStack() as stack:
            registry = None
            images: Sequence[str] = self._options.images
            if not images:
                registry = await stack.enter_async_context(_registry())
                images = [f"{registry.address}/{TAG}"]
                self._say(f"1. A private registry at {registry.address} holds [bold]{TAG}[/]; it wants a password.")
            fleet = await stack.enter_async_context(Fleet(self._folder))
            api = await self._start(fleet, stack)
            if registry is not None:
                await self._create_secret(api, registry.address)
            job = await self._apply(api, images, secret=registry is not None)
            status = await self._watch(api, fleet, job)
            good = await self._result(fleet, status, images)
            if self._options.keep:
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how this ends well
                    await self._hold(fleet)
        self._say("Cleaned up: every process ended, every file removed.")
        return 0 if good else 1

    async def _start(self, fleet: Fleet, stack: contextlib.AsyncExitStack) -> KubeClient:
        endpoints = await fleet.start_cloud()
        self._say(f"2. cloudhub runs: API server {endpoints['api']}, sessions at wss://{endpoints['websocket']}.")
        api = await KubeClient.connect(kubeconfig=str(fleet.kubeconfig))
        stack.push_async_callback(api.close)
        token = await fleet.token()
        await asyncio.gather(
            *(fleet.join(node, endpoints=endpoints, token=token, runtime=self._options.runtime) for node in self._nodes)
        )
        for node in self._nodes:
            await fleet.start_agent(node)
        async with asyncio.timeout(READY_SECONDS):
            for node in self._nodes:
                while not await _is_ready(api, node):
                    fleet.check()
                    await asyncio.sleep(0.1)
        self._say(f"3. {len(self._nodes)} agents joined with a token and are Ready: {', '.join(self._nodes)}.")
        return api

    async def _create_secret(self, api: KubeClient, server: str) -> None:
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        document = {"auths": {server: {"username": USER, "password": PASSWORD, "auth": auth}}}
        data = base64.b64encode(json.dumps(document).encode()).decode()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": data},
        }
        await api.request("POST", SECRETS, body=secret, sensitive=True)
        self._say(f"4. Secret default/{SECRET} holds the registry's user and password.")

    async def _apply(self, api: KubeClient, images: Sequence[str], *, secret: bool) -> dict[str, Any]:
        template: dict[str, Any] = {
            "concurrency": 2,
            "failureTolerate": "0.1",
            "images": list(images),
            "nodeNames": self._nodes,
            "retryTimes": 1,
            "timeoutSeconds": JOB_SECONDS,
        }
        if secret:
            template["imageSecrets"] = f"default/{SECRET}"
        job = {
            "apiVersion": f"{API_GROUP}/{API_VERSION}",
            "kind": KIND,
            "metadata": {"name": JOB},
            "spec": {"imagePrePullTemplate": template},
        }
        self._say("5. The job, as a user would apply it:\n")
        text = yaml.safe_dump(job, sort_keys=False)
        self._console.print("".join(f"     {line}\n" for line in text.splitlines()), markup=False)
        return await api.request("POST", JOBS, body=job)

    async def _watch(self, api: KubeClient, fleet: Fleet, job: dict[str, Any]) -> dict[str, Any]:
        with Progress(self._console, nodes=self._nodes, folder=self._folder) as progress:
            async with asyncio.timeout(JOB_SECONDS + 60):
                while True:
                    fleet.check()
                    status: dict[str, Any] = (await api.request("GET", f"{JOBS}/{JOB}")).get("status", {})
                    progress.show(status, job_uid=job["metadata"]["uid"])
                    if status.get("state") in ("Successful", "Failed"):
                        return status
                    await asyncio.sleep(0.25)

    async def _result(self, fleet: Fleet, status: dict[str, Any], images: Sequence[str]) -> bool:
        self._say(f"\n6. kubectl get {PLURAL}.{API_GROUP} {JOB} -o jsonpath='{{.status}}' prints:\n", markup=False)
        self._say(json.dumps(status, sort_keys=True, separators=(",", ":")), markup=False)
        self._say("\n7. What each node holds (edgehub images):\n")
        good = status.get("state") == "Successful"
        for node in self._nodes:
            listing = await fleet.images(node)
            self._say(f"{node}\n{listing}", markup=False)
            # A name without registry or tag is listed by its full one, so its last part is looked for.
            missing = [image for image in images if image.rsplit("/", 1)[-1] not in listing]
            if missing:
                self._say(f"{node} lacks {', '.join(missing)}", markup=False)
                good = False
        if not good:
            self._say(f"The job did not end as it should: {status.get('reason', status.get('state'))}", markup=False)
        return good

    async def _hold(self, fleet: Fleet) -> None:
        program = Path(sys.executable).parent
        kubectl = f"kubectl --kubeconfig {shlex.quote(str(fleet.kubeconfig))}"
        config = shlex.quote(str(fleet.config_of(self._nodes[0])))
        self._say("All is left running. In another terminal, for example:\n")
        for line in (
            f"{kubectl} get nodes",
            f"{kubectl} get imageprepulljobs -w",
            f"{kubectl} describe imageprepulljob {JOB}",
            f"{program}/edgehub status --config {config}",
            f"{program}/edgehub images --config {config}",
            f"{program}/cloudhub token --data-dir {shlex.quote(str(fleet.data_dir))}",
        ):
            self._say(f"  {line}", markup=False)
        self._say("\nCtrl-C ends it all and removes its files.")
        while True:
            fleet.check()
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def _registry() -> AsyncIterator[DemoRegistry]:
    registry = DemoRegistry(username=USER, password=PASSWORD, bytes_per_second=BYTES_PER_SECOND)
    registry.add(demo_image(), TAG)
    await registry.start()
    try:
        yield registry
    finally:
        await registry.stop()


async def _is_ready(api: KubeClient, node: str) -> bool:
    try:
        document = await api.request("GET", f"/api/v1/nodes/{node}")
    except NotFound:
        return False
    conditions = document.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
