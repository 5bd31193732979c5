"""The command line of edgehub.

Every command ends with 0, or with one line on standard error and 1 (2 for a wrong call); a traceback is shown only with
``--debug``. What a command needs is imported when it runs: ``--help`` answers at once, and an agent that runs for a
year holds no module that it does not use.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.cli import LogFormat, run_command

app = typer.Typer(
    name="edgehub",
    help="The agent on an edge node: pulls images that the hub asks for, through the node's container runtime.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

DEFAULT_CONFIG = Path("/etc/kubeedge/config/edgecore.yaml")
TOKEN_VARIABLE = "EDGEHUB_TOKEN"  # noqa: S105 - the name of a variable


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


class _Global:
    debug = False
    log_format = LogFormat.TEXT


class UsageProblem(Exception):
    """The command was given what it cannot work with."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from edgehub.version import VERSION

        typer.echo(f"edgehub {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and show tracebacks of errors.")] = False,
    log_format: Annotated[LogFormat, typer.Option(help="How log lines look.")] = LogFormat.TEXT,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _Global.debug = debug
    _Global.log_format = log_format


ConfigOption = Annotated[Path, typer.Option("--config", help="edgecore.yaml.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]


@app.command(
    epilog="Examples:\n\n  edgehub join --server https://192.0.2.10:10002 --token-file token --node-name edge-1\n\n"
    "  EDGEHUB_TOKEN=$(cat token) edgehub join --server https://hub.example:10002 --node-name edge-1 "
    "--runtime-endpoint unix:///run/containerd/containerd.sock\n\n"
    "  edgehub join --server https://127.0.0.1:10002 --token T --node-name n1 "
    "--data-dir ./n1 --runtime-endpoint builtin"
)
def join(
    server: Annotated[str, typer.Option(help="The hub's join endpoint, https://HOST:10002.")],
    node_name: Annotated[str, typer.Option(help="This node's name; the Node object's, if there is one.")],
    token: Annotated[
        str | None,
        typer.Option(envvar=TOKEN_VARIABLE, help="What `cloudhub token` printed. Others can see it in `ps`."),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with the token; - for standard input.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help=f"edgecore.yaml to write. [default: in --data-dir if given, else {DEFAULT_CONFIG}]"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for keys, journal and images. [default: KubeEdge's folders in /etc and /var/lib]"),
    ] = None,
    runtime_endpoint: Annotated[
        str | None,
        typer.Option(
            help="unix:///PATH of a CRI socket, or builtin. [default: unix:///run/containerd/containerd.sock]"
        ),
    ] = None,
    websocket_server: Annotated[
        str | None, typer.Option(help="host:port of the sessions. [default: the server's host, port 10000]")
    ] = None,
) -> None:
    """Make this machine a node of the hub: verify the hub by the token, get a certificate, write edgecore.yaml."""
    import asyncio

    from edgehub.joining import JoinOptions, join_node
    from shared.logs import configure_logs

    configure_logs(form=_Global.log_format, debug=_Global.debug)
    written = asyncio.run(
        join_node(
            JoinOptions(
                server=server,
                token=_read_token(token, token_file),
                node=node_name,
                config=config,
                data_dir=data_dir,
                runtime_endpoint=runtime_endpoint,
                websocket_server=websocket_server,
            )
        )
    )
    typer.echo(f"node {node_name} has joined; start it with: edgehub run --config {written}")


def _read_token(token: str | None, file: Path | None) -> str:
    if file is not None:
        text = sys.stdin.read(65_536) if str(file) == "-" else file.read_text(encoding="utf-8")
        return text.strip()
    if not token:
        raise UsageProblem(f"a token is needed: --token, --token-file, or the variable {TOKEN_VARIABLE}")
    return token.strip()


@app.command(epilog="Example:\n\n  edgehub run --config /etc/kubeedge/config/edgecore.yaml")
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    import os

    command = [sys.executable, "-m", "edgehub.daemon", "run", "--config", str(config)]
    command += ["--log-format", _Global.log_format.value, *(["--debug"] if _Global.debug else [])]
    if sys.path[0] not in ("", os.getcwd()):
        # `python -m` looks into the current folder first; where we were not started so, nobody expects that.
        command.insert(1, "-P")
    os.execv(sys.executable, command)  # noqa: S606 - no shell is meant; see edgehub.daemon for why


@app.command(
    epilog="Examples:\n\n  edgehub status\n\n  edgehub status --config ./n1/edgecore.yaml -o json\n\n"
    "  edgehub status --data-dir ./n1"
)
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the journal; instead of reading it from --config.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what the agent is doing. Ends with 3 when it is not running."""
    from edgehub.status import read_status

    if data_dir is None:
        from edgehub.config import load_config

        data_dir = load_config(config).config.data_dir
    document = read_status(data_dir)
    if output is Output.JSON:
        _print_json(document)
    else:
        from edgehub.show import status_text

        typer.echo(status_text(document, data_dir))
    if not document["running"]:
        raise typer.Exit(3)


@app.command(epilog="Examples:\n\n  edgehub images\n\n  edgehub images --config ./n1/edgecore.yaml -o json")
def images(config: ConfigOption = DEFAULT_CONFIG, output: OutputOption = Output.TEXT) -> None:
    """List the images that the node's runtime holds."""
    import asyncio
    from dataclasses import asdict

    from shared.logs import configure_logs

    configure_logs(form=_Global.log_format, debug=_Global.debug)

    from edgehub.config import load_config
    from edgehub.images import images_text, list_images

    records = asyncio.run(list_images(load_config(config).config))
    if output is Output.JSON:
        _print_json([asdict(record) for record in records])
    else:
        typer.echo(images_text(records))


def _print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def main() -> None:
    run_command(app, program="edgehub", debug=lambda: _Global.debug)
