"""The command line of cloudhub.

Every command ends with 0, or with one line on standard error and 1 (2 for a wrong call); a traceback is shown only with
``--debug``. What a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.cli import LogFormat, run_command
from shared.logs import configure_logs

app = typer.Typer(
    name="cloudhub",
    help="Pre-pulls container images onto edge nodes: KubeEdge's ImagePrePullJob, for fleets on slow links.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class _Global:
    debug = False
    log_format = LogFormat.TEXT


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cloudhub {version('cloudhub')}")
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


ConfigOption = Annotated[Path, typer.Option("--config", help="cloudcore.yaml, or KubeEdge's ConfigMap with it.")]
DataDirOption = Annotated[Path, typer.Option("--data-dir", help="Folder of a `cloudhub standalone`.")]
DEFAULT_CONFIG = Path("/etc/kubeedge/config/cloudcore.yaml")


def _serve(program: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import uvloop

    from cloudhub.loglimit import LogLimit

    configure_logs(form=_Global.log_format, debug=_Global.debug, first=(LogLimit(),))
    uvloop.run(program())


@app.command(
    epilog="Examples:\n\n  cloudhub run --config /etc/kubeedge/config/cloudcore.yaml\n\n"
    "  cloudhub run --config cloudcore.yaml --kubeconfig ~/.kube/config"
)
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Wins over kubeAPIConfig.kubeConfig of the configuration.")
    ] = None,
) -> None:
    """Run the hub against a Kubernetes API server: the kubeconfig's, or the cluster's that it runs in."""
    from cloudhub.app import run_hub
    from cloudhub.config import load_config

    loaded = load_config(config)
    _serve(lambda: run_hub(loaded, kubeconfig=kubeconfig))


@app.command(
    epilog="Examples:\n\n  cloudhub standalone --data-dir ./cloud\n\n"
    "  cloudhub standalone --data-dir /var/lib/cloudhub --address 0.0.0.0 --advertise 192.0.2.10"
)
def standalone(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder for everything that must outlive a restart.")],
    address: Annotated[str, typer.Option(help="Address to listen on, for kubectl and for nodes.")] = "127.0.0.1",
    advertise: Annotated[
        list[str] | None,
        typer.Option(help="Address or name that nodes and kubectl dial; repeat for more. Goes into the certificates."),
    ] = None,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for kubectl; 0: a free one.")] = 6443,
    websocket_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for nodes' sessions.")] = 10000,
    https_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for joining.")] = 10002,
    metrics_address: Annotated[str, typer.Option(help="host:port of /healthz, /readyz, /metrics.")] = "127.0.0.1:9091",
    node_limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Nodes that may be connected.")] = 1000,
) -> None:
    """Run hub, taskManager and an embedded Kubernetes API server in one process, for a machine without Kubernetes.

    Writes DATA_DIR/kubeconfig and says how to use it and how to join a node."""
    from cloudhub.app import StandaloneOptions, run_standalone

    _serve(
        lambda: run_standalone(
            StandaloneOptions(
                data_dir=data_dir.absolute(),
                address=address,
                advertise=tuple(advertise or ()),
                api_port=api_port,
                websocket_port=websocket_port,
                https_port=https_port,
                metrics_address=metrics_address,
                node_limit=node_limit,
            )
        )
    )


@app.command(
    epilog="Examples:\n\n  cloudhub demo\n\n  cloudhub demo --nodes 5 --keep\n\n"
    "  cloudhub demo --runtime unix:///run/containerd/containerd.sock --image docker.io/library/nginx:1.27"
)
def demo(
    nodes: Annotated[int, typer.Option(min=1, max=20, help="How many agents.")] = 3,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image to pull; repeat for more. Without it a private registry with one is started."),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="`builtin`, or unix:///PATH of a CRI socket that all agents then share.")
    ] = "builtin",
    keep: Annotated[bool, typer.Option("--keep", help="Leave all running and say how to go on.")] = False,
) -> None:
    """Pull an image from a private registry onto some nodes, all on this machine, and watch it."""
    import asyncio

    from cloudhub.demo import DemoOptions, run_demo

    configure_logs(form=_Global.log_format, debug=_Global.debug)
    options = DemoOptions(nodes=nodes, images=tuple(image or ()), runtime=runtime, keep=keep)
    raise typer.Exit(asyncio.run(run_demo(options)))


_TTL = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _parse_ttl(text: str) -> timedelta:
    match = _TTL.fullmatch(text)
    if match is None or not 0 < len(match[1]) < 9 or not int(match[1]):
        raise typer.BadParameter(f"{text!r} must be a number with s, m, h or d, such as 24h", param_hint="--ttl")
    ttl = timedelta(**{_UNITS[match[2]]: int(match[1])})
    from cloudhub.pki.tokens import MAX_TTL

    if ttl > MAX_TTL:
        raise typer.BadParameter(f"{text!r} is too long: it must be at most {MAX_TTL.days}d", param_hint="--ttl")
    return ttl


@app.command(
    epilog="Examples:\n\n  cloudhub token --data-dir ./cloud\n\n"
    "  cloudhub token --node edge-1 --ttl 1h --config /etc/kubeedge/config/cloudcore.yaml"
)
def token(
    node: Annotated[str | None, typer.Option(help="Only this node may join with it.")] = None,
    ttl: Annotated[str, typer.Option(help="How long it is good: a number with s, m, h or d.")] = "24h",
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of a `cloudhub standalone`; else --config's CA is used.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    kubeconfig: Annotated[Path | None, typer.Option(help="For a CA that is kept in the Secret casecret.")] = None,
) -> None:
    """Print a token with which a node can join."""
    import asyncio

    from cloudhub.jointoken import issue_token

    typer.echo(
        asyncio.run(
            issue_token(ttl=_parse_ttl(ttl), node=node, data_dir=data_dir, config=config, kubeconfig=kubeconfig)
        )
    )


@app.command(
    epilog="Examples:\n\n  cloudhub revoke edge-1 --data-dir ./cloud\n\n"
    "  cloudhub revoke --list --config /etc/kubeedge/config/cloudcore.yaml\n\n"
    "  cloudhub revoke --undo edge-1 --data-dir ./cloud"
)
def revoke(
    nodes: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="The nodes.")] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="They may join again, with new tokens; old certificates stay refused.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Print who was revoked, and what became of it.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of a `cloudhub standalone`; else the one that --config names."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Keep nodes out: their sessions end now, and their certificates and tokens are of no use any more.

    Works whether the hub runs or not; run it where the hub's data folder is."""
    import asyncio

    from cloudhub import revoke as work

    if bool(nodes) == show or (show and undo):
        raise typer.BadParameter("give the names of nodes, or --list alone")
    folder = work.data_folder(data_dir, config)
    change = work.undo if undo else work.revoke
    for line in asyncio.run(change(folder, nodes) if nodes else work.listing(folder)):
        typer.echo(line)


@app.command(epilog="Example:\n\n  cloudhub crds | kubectl apply -f -")
def crds() -> None:
    """Print the CustomResourceDefinition of ImagePrePullJob."""
    from cloudhub.kube.crd import crd_yaml

    typer.echo(crd_yaml(), nl=False)


@app.command(epilog="Example:\n\n  cloudhub config > cloudcore.yaml")
def config() -> None:
    """Print the default cloudcore.yaml, every key explained."""
    from cloudhub.config import default_yaml

    typer.echo(default_yaml(), nl=False)


def main() -> None:
    run_command(app, program="cloudhub", debug=lambda: _Global.debug)
