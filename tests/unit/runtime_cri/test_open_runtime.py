from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from edgehub.runtime import InvalidEndpoint, open_runtime
from edgehub.runtime.base import RuntimeUnavailable
from edgehub.runtime.cri.runtime import CRIRuntime
from edgehub.runtime.oci import BuiltinStore
from tests.unit.runtime_cri.fake import FakeRuntime


@pytest.mark.parametrize("endpoint", ["", "builtin"])
async def test_without_a_runtime_images_go_to_the_built_in_store(endpoint: str, tmp_path: Path) -> None:
    runtime = open_runtime(endpoint, image_store=tmp_path / "images")
    assert isinstance(runtime, BuiltinStore)
    assert await runtime.list() == []
    await runtime.close()


async def test_a_unix_endpoint_is_a_cri_runtime_that_need_not_be_there_yet(tmp_path: Path) -> None:
    runtime = open_runtime("unix:///nowhere/containerd.sock", image_store=tmp_path)
    assert isinstance(runtime, CRIRuntime)
    with pytest.raises(RuntimeUnavailable, match=r"unix:///nowhere/containerd\.sock"):
        await runtime.version()
    await runtime.close()


async def test_a_runtime_that_does_not_answer_is_away_after_the_configured_time(
    fake: FakeRuntime, socket: Path, tmp_path: Path
) -> None:
    fake.query_hangs = True
    runtime = open_runtime(f"unix://{socket}", image_store=tmp_path, query_timeout=0.2)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeUnavailable, match="Deadline Exceeded"):
            await runtime.filesystem()
    await runtime.close()


def test_a_runtime_is_opened_without_a_running_loop(tmp_path: Path) -> None:
    assert isinstance(open_runtime("unix:///run/x.sock", image_store=tmp_path), CRIRuntime)


@pytest.mark.parametrize(
    "endpoint",
    [
        "containerd",
        "/run/containerd/containerd.sock",
        "unix:run/x.sock",
        "unix://run/x.sock",
        "tcp://1.2.3.4:5",
        "unix://",
    ],
)
def test_another_endpoint_is_refused_with_what_would_be_right(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidEndpoint, match="must be unix:///PATH of a CRI socket, or builtin"):
        open_runtime(endpoint, image_store=tmp_path)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidEndpoint, match="107 bytes"):
        open_runtime("unix:///" + "x" * 107, image_store=tmp_path)


def test_the_built_in_store_loads_no_grpc(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgehub.runtime import open_runtime;"
        f"open_runtime('builtin', image_store=Path({str(tmp_path)!r}));"
        "assert not {'grpc', 'google.protobuf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=Path(__file__).parents[3])
