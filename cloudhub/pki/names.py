"""Who a node is, as its certificate says it: organisation ``system:nodes``, common name ``system:node:<name>``.

One place for the rule, because three parts lean on it: the signer (what a CSR may ask for), the renewal by certificate,
and the session's handshake. A name is a DNS-1123 subdomain, as Kubernetes wants it of a Node; anything else never
becomes a certificate, a session, a log field or a path.

Certificates as KubeEdge issued them up to 1.15 (``O=KubeEdge, CN=kubeedge.io``) name no node, so nothing here takes
them for one: whoever holds such a certificate could be any node, in a session and in a renewal alike. An EdgeCore of
1.16 or later that finds such a certificate at its start does not use it, but joins with the token of its configuration.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

NODE_ORGANIZATION: Final = "system:nodes"
NODE_PREFIX: Final = "system:node:"
OLD_ORGANIZATION: Final = "kubeedge"
MAX_NODE_NAME: Final = 253

_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NODE_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class NotANode(ValueError):
    """A certificate or a name that identifies no node; the text is safe to show to the peer."""


def is_node_name(text: str) -> bool:
    return len(text) <= MAX_NODE_NAME and _NODE_NAME.fullmatch(text) is not None


def check_node_name(text: str) -> str:
    """``text`` itself, or `NotANode` that says what a name looks like."""
    if not is_node_name(text):
        raise NotANode(
            f"{text[:64]!r} is no node name: lower-case letters, digits, '-', '.', at most {MAX_NODE_NAME} long"
        )
    return text


def node_of(certificate: x509.Certificate) -> str:
    """The node that a certificate was issued to. Raises `NotANode`. Its signature is checked elsewhere."""
    with long_names_allowed():
        subject = certificate.subject
    return node_of_subject(subject)


def node_of_subject(subject: x509.Name) -> str:
    """The node that a subject names, of a certificate or of a CSR. Raises `NotANode`."""
    organization = _only(subject, NameOID.ORGANIZATION_NAME, "organization (O)")
    if organization.casefold() == OLD_ORGANIZATION:
        raise NotANode(
            f"subject has O={organization!r}, not {NODE_ORGANIZATION}: it is of KubeEdge 1.15 or before and names no "
            "node; join again with a token"
        )
    if organization != NODE_ORGANIZATION:
        raise NotANode(f"subject has O={organization[:64]!r}, not {NODE_ORGANIZATION}")
    common_name = _only(subject, NameOID.COMMON_NAME, "common name (CN)")
    if not common_name.startswith(NODE_PREFIX):
        raise NotANode(f"subject has CN={common_name[:64]!r}, not {NODE_PREFIX}<node name>")
    return check_node_name(common_name.removeprefix(NODE_PREFIX))


@contextlib.contextmanager
def long_names_allowed() -> Iterator[None]:
    """X.520 ends common names at 64 characters, and the library warns beyond that. Node names may have 253, and edges'
    Go code, which writes and reads such names, does not mind."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attribute's length must be", category=UserWarning)
        yield


def _only(subject: x509.Name, oid: x509.ObjectIdentifier, name: str) -> str:
    found = subject.get_attributes_for_oid(oid)
    if len(found) != 1:
        raise NotANode(f"subject has {len(found)} values of {name}, not one")
    value = found[0].value
    if isinstance(value, bytes):
        raise NotANode(f"subject has a {name} that is no text")
    return value
