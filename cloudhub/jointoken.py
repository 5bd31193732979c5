"""`cloudhub token`: a join token by the CA that the hub uses, wherever that lies.

Apart from the composition root, which imports the whole hub: this command is run once a node, by scripts too, and needs
little of it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Final

from cloudhub.pki import secrets
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.errors import PKIError
from cloudhub.pki.setup import CA_FILE, CA_KEY_FILE
from cloudhub.pki.tokens import issue_join_token

PKI_FOLDER: Final = "pki"
"""Below a standalone's data folder."""


async def issue_token(
    *, ttl: timedelta, node: str | None, data_dir: Path | None, config: Path, kubeconfig: Path | None
) -> str:
    """A join token by the CA of a standalone's folder, else by that of the configuration's files or cluster."""
    if data_dir is not None:
        pair = data_dir / PKI_FOLDER / CA_FILE, data_dir / PKI_FOLDER / CA_KEY_FILE
        hint = f"is there a `cloudhub standalone --data-dir {data_dir}` running?"
        return issue_join_token(await asyncio.to_thread(_read_ca, *pair, hint), ttl=ttl, node=node)
    from cloudhub.config import load_config
    from cloudhub.kube import KubeClient, SecretReader

    if not await asyncio.to_thread(config.exists):
        raise PKIError(f"there is no {config}; name it with --config, or the folder of a standalone with --data-dir")
    settings = load_config(config).config
    hub = settings.modules.cloudHub
    if await asyncio.to_thread(Path(hub.tlsCAFile).exists):
        ca = await asyncio.to_thread(_read_ca, Path(hub.tlsCAFile), Path(hub.tlsCAKeyFile), "")
        return issue_join_token(ca, ttl=ttl, node=node)
    client = await KubeClient.connect(
        kubeconfig=str(kubeconfig or settings.kubeAPIConfig.kubeConfig), master=settings.kubeAPIConfig.master
    )
    try:
        data = await secrets.find(SecretReader(client=client), secrets.CA_SECRET)
    finally:
        await client.close()
    source = f"Secret {secrets.NAMESPACE}/{secrets.CA_SECRET}"
    if data is None:
        raise PKIError(f"neither {hub.tlsCAFile} nor {source} exists: the hub makes a CA at its first start")
    ca = CertificateAuthority.from_der(
        data.get(secrets.CA_CERTIFICATE, b""), data.get(secrets.CA_KEY, b""), source=source, now=utc_now()
    )
    return issue_join_token(ca, ttl=ttl, node=node)


def _read_ca(certificate: Path, key: Path, hint: str) -> CertificateAuthority:
    for path in (certificate, key):
        if not path.is_file():
            raise PKIError(f"{path} is missing; {hint}" if hint else f"{path} is missing")
    return CertificateAuthority.from_pem(
        certificate.read_bytes(),
        key.read_bytes(),
        certificate_source=str(certificate),
        key_source=str(key),
        now=utc_now(),
    )
