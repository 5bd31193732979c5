"""The systemd units in docker/: what they start exists as a command with these options, in KubeEdge's places, and
systemd itself finds nothing wrong with them where it is installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cloudhub.cli
import cloudhub.config
import edgehub.cli
import edgehub.config
import edgehub.daemon

DOCKER = Path(__file__).parents[3] / "docker"
UNITS = ("edgehub", "cloudhub")
APPS = {"edgehub": edgehub.cli.app, "cloudhub": cloudhub.cli.app}
CONFIGS = {"edgehub": edgehub.config.DEFAULT_CONFIG, "cloudhub": cloudhub.config.DEFAULT_PATH}


def settings(unit: str) -> dict[tuple[str, str], list[str]]:
    """By section and key, in order. Fails at a line that is neither a comment, a section nor ``Key=value``."""
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    for line in (DOCKER / f"{unit}.service").read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            assert key == key.strip(), line
            found.setdefault((section, key), []).append(value)
    return found


def one(unit: str, section: str, key: str) -> str:
    values = settings(unit)[section, key]
    assert len(values) == 1, values
    return values[0]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_the_program_on_kubeedges_paths(unit: str) -> None:
    program, command, *options = shlex.split(one(unit, "Service", "ExecStart"))
    assert program == f"/usr/local/bin/{unit}"
    assert (command, options) == ("run", ["--config", str(CONFIGS[unit])])
    assert one(unit, "Unit", "ConditionPathExists") == str(CONFIGS[unit])
    shown = CliRunner().invoke(APPS[unit], [command, "--help"])
    assert shown.exit_code == 0
    assert options[0] in shown.output


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_leaves_the_program_time_to_stop_and_starts_it_again_for_ever(unit: str) -> None:
    assert float(one(unit, "Service", "TimeoutStopSec").removesuffix("s")) > edgehub.daemon.EXIT_WITHIN + 1
    assert one(unit, "Service", "KillMode") == "mixed"
    assert one(unit, "Service", "Restart") == "always"
    assert one(unit, "Unit", "StartLimitIntervalSec") == "0"


def test_the_agent_may_write_where_its_default_configuration_says() -> None:
    config = edgehub.config.EdgeCoreConfig()
    hub = config.modules.edgeHub
    writable = [
        Path(one("edgehub", "Service", "ReadWritePaths")),
        Path("/var/lib", one("edgehub", "Service", "StateDirectory")),
    ]
    for path in (config.data_dir, config.image_store, Path(hub.tlsCertFile), Path(hub.tlsPrivateKeyFile)):
        assert any(path.is_relative_to(folder) for folder in writable), path
    assert CONFIGS["edgehub"].is_relative_to(writable[0])  # the token is taken out of it


def test_the_one_file_unpacks_where_the_unit_cleans_up() -> None:
    cache = f"/var/cache/{one('edgehub', 'Service', 'CacheDirectory')}"
    assert settings("edgehub")["Service", "Environment"] == [f"TMPDIR={cache}"]
    assert f"rm -rf {cache}/_MEI*" in one("edgehub", "Service", "ExecStartPre")


def test_the_hub_may_write_its_queue_and_is_not_root() -> None:
    folder = Path("/var/lib", one("cloudhub", "Service", "StateDirectory"))
    assert Path(cloudhub.config.CloudCoreConfig().modules.taskManager.dataDir) == folder
    assert one("cloudhub", "Service", "User") == "cloudhub"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_gives_no_more_powers_than_the_program_needs(unit: str) -> None:
    for key in (
        "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelModules",
        "ProtectKernelTunables", "ProtectControlGroups", "RestrictSUIDSGID", "RestrictNamespaces",
        "MemoryDenyWriteExecute", "LockPersonality",
    ):  # fmt: skip
        assert one(unit, "Service", key) == "yes", key
    assert one(unit, "Service", "ProtectSystem") == "strict"
    assert one(unit, "Service", "CapabilityBoundingSet") == ""
    assert one(unit, "Service", "UMask") == "0077"


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_where_it_is_installed(unit: str, tmp_path: Path) -> None:
    text = (DOCKER / f"{unit}.service").read_text()
    assert text.count(f"ExecStart=/usr/local/bin/{unit} ") == 1
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # the tests above hold what can be held without it
        return
    # The programs themselves need not be installed for this.
    copy = tmp_path / f"{unit}.service"
    copy.write_text(text.replace(f"/usr/local/bin/{unit} ", f"{sys.executable} "))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if unit in line]  # it reads the machine's other units as well
    assert (done.returncode, ours) == (0, []), done.stderr
