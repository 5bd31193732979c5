"""A real containerd with root, state and socket of its own, and its CRI plugin."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from tests.parts.process import PartError, Process, run

_CONFIG = """\
version = 2
root = "{root}/root"
state = "{root}/state"
# What pulls images, and no more: no cgroups, no snapshotters that need other filesystems.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket}"
[ttrpc]
  address = ""
[plugins."io.containerd.grpc.v1.cri"]
  disable_cgroup = true
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{root}/cni"
  conf_dir = "{root}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{root}/certs.d"
"""


class Containerd:
    """Pulls by https, except from registries that `trust` named, which need no restart.

    `kill` and `start` again keep what it holds, as a restart of the service would. Needs root: it mounts."""

    def __init__(self) -> None:
        # Straight in /tmp: a unix socket's path has 107 bytes at most, and TMPDIR may be long.
        self.root = Path(tempfile.mkdtemp(prefix="ctd-", dir="/tmp"))
        self.socket = self.root / "c.sock"
        config = self.root / "config.toml"
        config.write_text(_CONFIG.format(root=self.root, socket=self.socket))
        self.process = Process(
            ["containerd", "--config", str(config), "--log-level", "info"], log=self.root / "log", ready=self._answers
        )

    @property
    def endpoint(self) -> str:
        """As in edgecore.yaml."""
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        if os.geteuid() != 0:
            raise PartError("containerd needs root (it mounts the layers that it unpacks): run these tests as root")
        self.process.start()

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def trust(self, registry: str, *, url: str | None = None) -> None:
        """``registry`` (``host:port``) is asked over plain http, or at another ``url``."""
        url = url or f"http://{registry}"
        folder = self.root / "certs.d" / registry
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')

    def ctr(self, *arguments: str) -> str:
        return run(["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments])

    def ctr_images(self) -> str:
        """What a person sees of `ctr -n k8s.io images ls`."""
        return self.ctr("images", "ls")

    def remove_images(self) -> None:
        """Forgets all images and frees their content."""
        names = self.ctr("images", "ls", "--quiet").split()
        if names:
            self.ctr("images", "rm", "--sync", *names)

    def content(self) -> list[str]:
        """Digests of all whole blobs that it holds."""
        return self.ctr("content", "ls", "--quiet").split()

    def transfers(self) -> list[str]:
        """Blobs that are coming in at this moment."""
        return self.ctr("content", "active").splitlines()[1:]

    def _answers(self) -> bool:
        """Its CRI service does. Raw bytes, since an empty message is no byte: this knows nothing of the product."""
        if not self.socket.exists():
            return False
        options = (("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1))
        with grpc.insecure_channel(f"unix://{self.socket}", options=options) as channel:
            call = channel.unary_unary(
                "/runtime.v1.RuntimeService/Version",
                request_serializer=bytes,
                response_deserializer=bytes,
            )
            try:
                call(b"", timeout=2)
            except grpc.RpcError:
                return False
            return True
