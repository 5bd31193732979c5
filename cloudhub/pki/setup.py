"""Opening the PKI at the start: find the CA, or make it; find a server certificate that fits, or issue one.

Order for the CA, as in KubeEdge: the configured PEM files; the Secret ``casecret``; a folder of our own (a hub without
a cluster); else it is created, in the Secret if there is a store, in the folder if not. Configured files, of the CA and
of the server, are copied into the Secrets, so that a CloudCore or a second hub goes on with the same ones.

Guarantees: a CA that exists is never overwritten because it is wrong; the start ends with an error that names the file
or Secret. In the folder the key is written first and the certificate last, and the certificate is what makes it a CA:
after a crash between the two, the next start makes the certificate for that key, and no node has seen another.
The server's certificate lies in one file with its key, so the two cannot come apart. It is issued anew when it lacks an
address or a name, when it is not of this CA, and when a tenth of its life is left. One that names more than is
configured stays: that of a CloudCore, which never looks at the names again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloudhub.pki import secrets
from cloudhub.pki.ca import (
    CertificateAuthority,
    ServerIdentity,
    check_time,
    subject_alternative_names,
    utc_now,
)
from cloudhub.pki.contexts import load_identity, server_context
from cloudhub.pki.errors import PKIError
from cloudhub.pki.files import read_private, write_private
from cloudhub.pki.keys import (
    certificate_from_der,
    certificates_from_pem,
    key_from_der,
    key_from_pem,
    new_key,
)
from cloudhub.pki.refresh import TokenRefresher, file_sink, forever, secret_sink
from cloudhub.pki.secrets import SecretStore
from cloudhub.pki.tokens import TokenIssuer
from shared.x509 import UNREADABLE

CA_FILE: Final = "rootCA.crt"
CA_KEY_FILE: Final = "rootCA.key"
SERVER_FILE: Final = "server.pem"
TOKEN_FILE: Final = "token"  # noqa: S105 - the name of a file
CHECK_SERVER_EVERY: Final = timedelta(hours=12)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PKISources:
    """Where things lie. File pairs count when at least one of the two exists. ``folder`` is ours; ``store`` a
    cluster's Secrets. One of these two is needed."""

    ca_file: Path | None = None
    ca_key_file: Path | None = None
    server_file: Path | None = None
    server_key_file: Path | None = None
    folder: Path | None = None
    store: SecretStore | None = field(default=None, repr=False)


class PKI:
    """What the hub has of its own: CA, tokens, contexts. Made by `open_pki`."""

    def __init__(
        self,
        *,
        ca: CertificateAuthority,
        identity: ServerIdentity,
        sources: PKISources,
        addresses: Sequence[str],
        dns_names: Sequence[str],
        token_refresh: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self.ca = ca
        self.tokens = TokenIssuer(ca, now=now)
        self._identity = identity
        self._sources = sources
        self._addresses, self._dns_names = tuple(addresses), tuple(dns_names)
        self._token_refresh = token_refresh
        self._now = now
        self._mtls = server_context(ca, identity, client_certificates=ssl.CERT_REQUIRED)
        self._join = server_context(ca, identity, client_certificates=ssl.CERT_OPTIONAL)

    @property
    def server_certificate(self) -> x509.Certificate:
        return self._identity.certificate

    def server_context_mtls(self) -> ssl.SSLContext:
        """For sessions: a client certificate of this CA is required."""
        return self._mtls

    def server_context_join(self) -> ssl.SSLContext:
        """For the join endpoints: a client certificate is asked for; if one is given, it must be of this CA."""
        return self._join

    async def refresh_server_certificate(self) -> bool:
        """Issues it anew when it is time to; both contexts use it from then on. Whether it did."""
        identity = await _server_identity(
            self.ca, self._sources, addresses=self._addresses, dns_names=self._dns_names, now=self._now()
        )
        if identity.certificate == self._identity.certificate:
            return False
        load_identity(self._mtls, identity)
        load_identity(self._join, identity)
        self._identity = identity
        return True

    async def run(self) -> None:
        """Keeps the standing token and the server's certificate current, until cancelled. Never ends by an error."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._token_refresher().run(), name="join-token")
            group.create_task(
                forever("server certificate", self._check_server_certificate, every=CHECK_SERVER_EVERY),
                name="server-certificate",
            )

    async def _check_server_certificate(self) -> None:
        await self.refresh_server_certificate()

    def _token_refresher(self) -> TokenRefresher:
        if self._sources.store is not None:
            sink = secret_sink(self._sources.store)
        elif self._sources.folder is not None:
            sink = file_sink(self._sources.folder / TOKEN_FILE)
        else:
            raise PKIError("there is neither a cluster nor a folder to put the join token in")
        return TokenRefresher(tokens=self.tokens, sink=sink, every=self._token_refresh)


async def open_pki(
    *,
    sources: PKISources,
    addresses: Sequence[str],
    dns_names: Sequence[str],
    token_refresh: timedelta = timedelta(hours=12),
    now: Callable[[], datetime] = utc_now,
) -> PKI:
    """Raises `PKIError`; and what the store raises (`cloudhub.taskmanager.ports.KubeError`)."""
    if sources.store is None and sources.folder is None:
        raise PKIError("there is neither a cluster nor a folder to keep the CA in")
    subject_alternative_names(addresses, dns_names)
    ca = await _authority(sources, now())
    identity = await _server_identity(ca, sources, addresses=addresses, dns_names=dns_names, now=now())
    return PKI(
        ca=ca,
        identity=identity,
        sources=sources,
        addresses=addresses,
        dns_names=dns_names,
        token_refresh=token_refresh,
        now=now,
    )


# --- The CA -------------------------------------------------------------------------------------------------------


async def _authority(sources: PKISources, now: datetime) -> CertificateAuthority:
    ca = await asyncio.to_thread(_ca_of_files, sources.ca_file, sources.ca_key_file, now)
    if ca is not None:
        if sources.store is not None:
            await _copy_ca(sources.store, ca)
        return ca
    if sources.store is not None:
        return await _ca_of_store(sources.store, now)
    if sources.folder is None:
        raise PKIError("there is neither a cluster nor a folder to keep the CA in")
    return await asyncio.to_thread(_ca_of_folder, sources.folder, now)


def _ca_of_files(certificate: Path | None, key: Path | None, now: datetime) -> CertificateAuthority | None:
    pair = _read_pair(certificate, key)
    if pair is None:
        return None
    return CertificateAuthority.from_pem(
        pair[0], pair[1], certificate_source=str(certificate), key_source=str(key), now=now
    )


async def _ca_of_store(store: SecretStore, now: datetime) -> CertificateAuthority:
    data = await secrets.find(store, secrets.CA_SECRET)
    if data is None:
        data = await secrets.create_or_find(store, secrets.CA_SECRET, _ca_data(CertificateAuthority.create(now=now)))
    source = f"Secret {secrets.NAMESPACE}/{secrets.CA_SECRET}"
    for key in (secrets.CA_CERTIFICATE, secrets.CA_KEY):
        if not data.get(key):
            raise PKIError(f"{source}: key {key} is missing")
    return CertificateAuthority.from_der(data[secrets.CA_CERTIFICATE], data[secrets.CA_KEY], source=source, now=now)


async def _copy_ca(store: SecretStore, ca: CertificateAuthority) -> None:
    """Local files win over the Secret, as in KubeEdge."""
    data = _ca_data(ca)
    present = await secrets.find(store, secrets.CA_SECRET)
    if present is not None and dict(present) != data:
        log.warning("the configured CA replaces another one in the Secret", secret=secrets.CA_SECRET)
    if present is None or dict(present) != data:
        await secrets.write(store, secrets.CA_SECRET, data)


def _ca_data(ca: CertificateAuthority) -> dict[str, bytes]:
    return {secrets.CA_CERTIFICATE: ca.certificate_der, secrets.CA_KEY: ca.key.der}


def _ca_of_folder(folder: Path, now: datetime) -> CertificateAuthority:
    certificate_file, key_file = folder / CA_FILE, folder / CA_KEY_FILE
    certificate, key = read_private(certificate_file), read_private(key_file)
    if certificate is not None:
        if key is None:
            raise PKIError(f"{key_file}: is missing, but {certificate_file} is there")
        return CertificateAuthority.from_pem(
            certificate, key, certificate_source=str(certificate_file), key_source=str(key_file), now=now
        )
    private = key_from_pem(key, str(key_file)) if key is not None else new_key()
    if key is None:
        write_private(key_file, private.pem)
    ca = CertificateAuthority.create(now=now, key=private)
    write_private(certificate_file, ca.certificate_pem)
    log.info("created a certificate authority", file=str(certificate_file), sha256=ca.fingerprint)
    return ca


def _read_pair(first: Path | None, second: Path | None) -> tuple[bytes, bytes] | None:
    """Both, or none when neither is there. One alone is an error."""
    if first is None or second is None:
        return None
    contents = read_private(first), read_private(second)
    if contents == (None, None):
        return None
    for path, other, content in ((first, second, contents[0]), (second, first, contents[1])):
        if content is None:
            raise PKIError(f"{path}: is missing, but {other} is there")
    return contents[0] or b"", contents[1] or b""


# --- The server's certificate -------------------------------------------------------------------------------------


async def _server_identity(
    ca: CertificateAuthority,
    sources: PKISources,
    *,
    addresses: Sequence[str],
    dns_names: Sequence[str],
    now: datetime,
) -> ServerIdentity:
    given = await asyncio.to_thread(_server_of_files, ca, sources.server_file, sources.server_key_file, now)
    if given is not None:
        if sources.store is not None:
            await _copy_identity(sources, given)
        return given
    wanted = subject_alternative_names(addresses, dns_names)
    present = await _present_identity(sources)
    if present is not None and _fits(present, ca, wanted, now):
        return present
    identity = ca.issue_server_certificate(addresses=addresses, dns_names=dns_names, now=now)
    await _keep_identity(sources, identity)
    log.info("issued a server certificate", addresses=list(addresses), dns_names=list(dns_names))
    return identity


def _server_of_files(
    ca: CertificateAuthority, certificate: Path | None, key: Path | None, now: datetime
) -> ServerIdentity | None:
    """The operator's own: used as it is, or refused; never replaced."""
    pair = _read_pair(certificate, key)
    if pair is None:
        return None
    chain = certificates_from_pem(pair[0], str(certificate))
    private = key_from_pem(pair[1], str(key))
    if not private.matches(chain[0]):
        raise PKIError(f"{certificate} with {key}: the private key does not belong to the certificate")
    check_time(chain[0], str(certificate), now)
    if not ca.issued(chain[-1]):
        log.warning("the server certificate is not of the hub's CA; nodes will refuse it", file=str(certificate))
    return ServerIdentity(certificate=chain[0], chain_pem=pair[0] + b"\n", key=private)


async def _present_identity(sources: PKISources) -> ServerIdentity | None:
    """What an earlier start left; None when there is none, or it cannot be read: then it is issued anew."""
    try:
        if sources.store is not None:
            data = await secrets.find(sources.store, secrets.SERVER_SECRET) or {}
            certificate, key = data.get(secrets.SERVER_CERTIFICATE), data.get(secrets.SERVER_KEY)
            if not certificate or not key:
                return None
            found = certificate_from_der(certificate, secrets.SERVER_SECRET)
            private = key_from_der(key, secrets.SERVER_SECRET)
        elif sources.folder is not None:
            path = sources.folder / SERVER_FILE
            content = await asyncio.to_thread(read_private, path)
            if content is None:
                return None
            found, private = certificates_from_pem(content, str(path))[0], key_from_pem(content, str(path))
        else:
            return None
    except PKIError as error:
        log.warning("the kept server certificate is not usable", error=str(error))
        return None
    return ServerIdentity(certificate=found, chain_pem=found.public_bytes(Encoding.PEM), key=private)


def _fits(
    identity: ServerIdentity, ca: CertificateAuthority, wanted: x509.SubjectAlternativeName, now: datetime
) -> bool:
    certificate = identity.certificate
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    return (
        identity.key.matches(certificate)
        and ca.issued(certificate)
        and set(names) >= set(wanted)
        and begin <= now < end - (end - begin) / 10
    )


async def _copy_identity(sources: PKISources, identity: ServerIdentity) -> None:
    """Local files win over the Secret, as in KubeEdge; written only when it holds something else."""
    present = await _present_identity(sources)
    same = present is not None and (present.certificate, present.key.der) == (identity.certificate, identity.key.der)
    if not same:
        await _keep_identity(sources, identity)


async def _keep_identity(sources: PKISources, identity: ServerIdentity) -> None:
    if sources.store is not None:
        data = {
            secrets.SERVER_CERTIFICATE: identity.certificate.public_bytes(Encoding.DER),
            secrets.SERVER_KEY: identity.key.der,
        }
        await secrets.write(sources.store, secrets.SERVER_SECRET, data)
    elif sources.folder is not None:
        await asyncio.to_thread(write_private, sources.folder / SERVER_FILE, identity.chain_pem + identity.key.pem)
