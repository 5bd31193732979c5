"""Debian's docker-registry on loopback over plain http, filled by skopeo."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import bcrypt

from tests.parts.images import PushedImage, write_layout
from tests.parts.process import Process, run

_HTTP_OK = 200
_HTTP_UNAUTHORIZED = 401
_FIRST_PORT, _LAST_PORT = 20000, 32000


class Registry:
    """With ``username`` and ``password`` it asks for them by basic authentication, for pulls too.

    `restart` keeps its port and what it holds."""

    def __init__(self, *, username: str = "", password: str = "") -> None:
        self.username = username
        self.password = password
        self.root = Path(tempfile.mkdtemp(prefix="registry-"))
        self.port = free_port()
        self._process = Process(
            ["docker-registry", "serve", str(self._configure())], log=self.root / "log", ready=self._answers
        )
        self._layouts = 0

    @property
    def address(self) -> str:
        """``host:port``, as it stands in an image's name."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

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
        self._process.start()

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def push_image(
        self,
        repository: str,
        *,
        tag: str = "latest",
        layers: Sequence[int] = (2000, 1000),
        platforms: Sequence[str] | None = None,
        seed: str | None = None,
    ) -> PushedImage:
        """Makes an image with layers of these sizes in bytes and pushes it. See `write_layout`."""
        self._layouts += 1
        path = self.root / f"layout-{self._layouts}"
        layout = write_layout(path, tag=tag, layers=layers, platforms=platforms, seed=seed)
        reference = f"{self.address}/{repository}:{tag}"
        credentials = [f"--dest-creds={self.username}:{self.password}"] if self.username else []
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]
        run([*copy, "--dest-tls-verify=false", *credentials, f"oci:{path}:{tag}", f"docker://{reference}"])
        shutil.rmtree(path)
        return PushedImage(
            reference=reference,
            repository=repository,
            tag=tag,
            digest=layout.digest,
            id=layout.id,
            layers=layout.layers,
        )

    def _configure(self) -> Path:
        lines = [
            "version: 0.1",
            "log: {level: info, accesslog: {disabled: false}}",
            "storage:",
            f"  filesystem: {{rootdirectory: {self.root / 'storage'}}}",
            "  delete: {enabled: true}",
            f"http: {{addr: '{self.address}'}}",
        ]
        if self.username:
            # The least work that bcrypt allows: the registry does it again for each request.
            hashed = bcrypt.hashpw(self.password.encode(), bcrypt.gensalt(rounds=4)).decode()
            users = self.root / "htpasswd"
            users.write_text(f"{self.username}:{hashed}\n")
            lines.append(f"auth: {{htpasswd: {{realm: tests, path: {users}}}}}")
        path = self.root / "config.yml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (_HTTP_OK, _HTTP_UNAUTHORIZED)
        except OSError:
            return False
        finally:
            connection.close()


def free_port() -> int:
    """A free port below those that the system gives to outgoing connections, which could take it before the registry
    does: docker-registry does not tell which one it got for port 0.

    It is the caller's for as long as this process lives, also while nobody listens there, as before a server's start
    and between its lives: no test that runs at the same time on this machine is given it."""
    while True:
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            claim = socket.socket(socket.AF_UNIX)
            try:
                # In Linux's namespace without files: the kernel lets one process have a name, and gives it up for us.
                claim.bind(f"\0cloudhub-tests-port-{port}")
            except OSError:
                claim.close()
                continue
            claim.detach()
            return port
