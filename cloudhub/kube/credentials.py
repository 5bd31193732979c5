"""Who we are to the API server: a kubeconfig file, or the service account of the pod that we run in.

The client library knows all the ways to log in that a kubeconfig can name. It lets out whatever a malformed file makes
it raise; here that becomes a `ConfigError`, which quotes nothing of a file that holds keys and tokens.

What a kubeconfig holds as data, a private key among it, the library writes to files in the temporary folder, because
OpenSSL reads only files, and removes when the process ends: not when it is killed. `discard_files` removes them as soon
as a TLS context has read them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import ConfigException, kube_config, load_incluster_config, load_kube_config

from cloudhub.settings import ConfigError

_KEY: Final = "kubeAPIConfig.kubeConfig"


async def load_credentials(*, kubeconfig: str, master: str) -> Configuration:
    """``master`` alone means a server that wants no credentials, such as a local proxy."""
    if kubeconfig and not await asyncio.to_thread(Path(kubeconfig).is_file):
        raise ConfigError(key=_KEY, problem=f"there is no file {kubeconfig}", right="the path of a kubeconfig file")
    configuration = Configuration()
    try:
        if kubeconfig:
            await load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
        elif not master:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        if kubeconfig:
            raise ConfigError(key=_KEY, problem=f"{kubeconfig} cannot be used: {str(error)[:300]}") from None
        problem = "is not set, and this is no pod with a service account"
        raise ConfigError(key=_KEY, problem=problem, right="the path of a kubeconfig file") from None
    except Exception as error:
        # TypeError, KeyError, YAML, base64 and OS errors alike.
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise ConfigError(key=_KEY, problem=f"{kubeconfig or 'the service account'} cannot be used ({why})") from None
    if master:
        configuration.host = master.rstrip("/")
    return configuration


def discard_files() -> None:
    """After each use of a `Configuration` of `load_credentials`, which names files that are gone then. One of another
    client that is not used yet would lose its files too: there is one client in a process."""
    kube_config._cleanup_temp_files()
