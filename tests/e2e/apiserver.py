"""The embedded API server alone, as a process: the Kubernetes API that `cloudhub run` is tested against."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from cloudhub.kube.client import KubeClient
from cloudhub.kube.crd import ensure_crd
from cloudhub.standalone.server import StandaloneAPI


async def main(folder: Path, port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with StandaloneAPI(data_dir=folder, host="127.0.0.1", port=port) as api:
        api.write_kubeconfig(folder / "admin")
        client = await KubeClient.connect(kubeconfig=str(folder / "admin"))
        await ensure_crd(client)
        await client.close()
        # Its being there says that all is ready.
        (folder / "admin").rename(folder / "kubeconfig")
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
