"""The embedded API server alone, as a process: the Kubernetes API that `cloudhub run` is tested against.

With our definition of jobs, or with that of an edition of KubeEdge (`tests.kubeedge_crd`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from cloudhub.kube.client import KubeClient
from cloudhub.kube.crd import ensure_crd
from cloudhub.kube.errors import Conflict
from cloudhub.kube.jobapi import CRD_PATH
from cloudhub.standalone.server import StandaloneAPI
from tests.kubeedge_crd import EDITIONS, kubeedge_crd


async def main(folder: Path, port: int, definition: str) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with StandaloneAPI(data_dir=folder, host="127.0.0.1", port=port) as api:
        api.write_kubeconfig(folder / "admin")
        client = await KubeClient.connect(kubeconfig=str(folder / "admin"))
        for edition in EDITIONS:
            if edition == definition:
                with contextlib.suppress(Conflict):  # of an earlier start
                    await client.request("POST", CRD_PATH.rpartition("/")[0], body=kubeedge_crd(edition))
        await ensure_crd(client)
        await client.close()
        # Its being there says that all is ready.
        (folder / "admin").rename(folder / "kubeconfig")
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
