from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROTO = "edgehub/runtime/cri/api.proto"


def test_the_committed_code_is_what_the_proto_generates(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", PROTO],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    for name in ("api_pb2.py", "api_pb2.pyi"):
        generated = (tmp_path / "edgehub/runtime/cri" / name).read_text()
        assert (ROOT / "edgehub/runtime/cri" / name).read_text() == generated, f"{name} is not of {PROTO}; make it anew"
