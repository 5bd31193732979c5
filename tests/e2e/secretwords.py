"""What must stay secret in the end-to-end tests, and how it would look where it must not be.

Nobody lists them by hand: what a test gives to a command (passwords, Secrets as YAML), what lies in files that are made
to hold a secret (keys, the embedded API's token, the standing join token), and every value in the embedded API's own
Secrets (credentials in all their forms, the CA's key) is learnt from where it rightly is. A `Secret` then is the words
to search for: the thing itself in every spelling that the parts use. Of keys and tokens it is the part that matters, in
pieces that no line of a PEM file cuts.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

LEAST: Final = 6
"""Characters of what is taken for a secret: a shorter one stands anywhere by chance."""
JWT: Final = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.([\w-]{20,})")
API_TOKEN: Final = "the embedded API's token"
PEM_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----")
_OPTION: Final = re.compile(r"--(?:docker-password|from-literal)[= ](?:[\w.-]+=)?(\S+)")


@dataclass(frozen=True, slots=True)
class Secret:
    """``what`` is for whoever reads that it leaked; ``words`` are what to search for. Keys and tokens have files that
    are made for them (`is_home`), passwords have none."""

    what: str
    words: frozenset[bytes]
    has_home: bool = False


def password(text: str, what: str, *, has_home: bool = False) -> Iterator[Secret]:
    if len(text) >= LEAST:
        yield Secret(what, spellings(text), has_home)


def join_token(text: bytes, what: str) -> Iterator[Secret]:
    """Each that stands in ``text``. A JWT is good for nothing without its signature: that is what is searched for."""
    for found in JWT.finditer(text):
        yield Secret(what, frozenset({found[1], *_base64_anywhere(found[1])}), has_home=True)


def key(pem_or_der: bytes, what: str) -> Iterator[Secret]:
    """Nothing for what is no private key."""
    for load in (load_pem_private_key, load_der_private_key):
        with contextlib.suppress(ValueError, TypeError):
            loaded = load(pem_or_der, None)
            if isinstance(loaded, ec.EllipticCurvePrivateKey):
                secret = loaded.private_numbers().private_value.to_bytes((loaded.key_size + 7) // 8)
            elif isinstance(loaded, rsa.RSAPrivateKey):
                secret = loaded.private_numbers().p.to_bytes((loaded.key_size + 15) // 16)
            else:
                return
            half = 16
            words = _spellings_of_bytes(secret[:half]) | _spellings_of_bytes(secret[half : 2 * half])
            yield Secret(what, words, has_home=True)
            return


def spellings(text: str) -> frozenset[bytes]:
    """Clear, in a URL, in JSON (twice over: JSON in JSON), in base64 wherever in a longer text it stands (so, behind
    ``user:``, and as a Secret's data), and base64 of that (``auth`` in a Secret's data)."""
    escaped = json.dumps(text)[1:-1]
    plain = {text, quote(text, safe=""), quote_plus(text), escaped, json.dumps(escaped)[1:-1]}
    found = {one.encode() for one in plain}
    for one in list(found):
        found |= _base64_twice(one)
    return frozenset(found)


def _spellings_of_bytes(secret: bytes) -> frozenset[bytes]:
    """As they are, as Python and people write them, and in base64: in PEM, DER in a Secret, PEM in a Secret."""
    return frozenset({secret, repr(secret)[2:-1].encode(), secret.hex().encode(), secret.hex().upper().encode()}) | (
        _base64_twice(secret)
    )


def _base64_twice(text: bytes) -> set[bytes]:
    once = _base64_anywhere(text)
    return once.union(*(_base64_anywhere(encoded) for encoded in once))


def _base64_anywhere(text: bytes) -> set[bytes]:
    """The characters of base64 that are the same whatever stands around ``text``, for each of three alignments."""
    found = set()
    for before in range(3):
        data = b"\0" * before + text
        first = -(-before * 8 // 6)
        last = len(data) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(data)[first:last])
    return found


# --- Where they are learnt ----------------------------------------------------------------------------------------


def of_command(words: str, stdin: str, output: bytes) -> Iterator[Secret]:
    """What a test gave to a command, and the join tokens that it got."""
    for found in _OPTION.finditer(words):
        yield from password(found[1].strip("\"'"), "a password given to kubectl")
    for document in _documents(stdin):
        if document.get("kind") == "Secret":
            yield from of_object(document)
    yield from join_token(output, "a join token")


def of_file(path: Path) -> Iterator[Secret]:
    """Of a file that is made to hold one, by its name; see `is_home`."""
    content = path.read_bytes()
    for block in PEM_KEY.finditer(content):
        yield from key(block[0], f"the key in {path.name}")
    if path.name == "token":
        tokens = list(join_token(content, "the standing join token"))
        yield from tokens or password(content.decode().strip(), API_TOKEN, has_home=True)


def is_home(path: Path) -> bool:
    """Whether a file of this name is made to hold a key or a token. No password has one."""
    # `environment` is what the README's reader exported: a shell of the tests' own.
    return path.suffix in (".key", ".pem") or path.name in ("token", "kubeconfig", "environment")


def of_object(secret: Mapping[str, Any]) -> Iterator[Secret]:
    """Every value of a Kubernetes Secret."""
    about = secret.get("metadata") or {}
    what = f"of Secret {about.get('namespace', 'default')}/{about.get('name')}"
    for field, encoded in (secret.get("data") or {}).items():
        with contextlib.suppress(binascii.Error):
            yield from _of_value(base64.b64decode(encoded), f"{field} {what}")
    for field, text in (secret.get("stringData") or {}).items():
        yield from _of_value(text.encode(), f"{field} {what}")


def _of_value(value: bytes, what: str) -> Iterator[Secret]:
    others = [*key(value, what), *join_token(value, what)]
    if others:
        yield from others
    elif value.startswith((b"{", b"[")):
        with contextlib.suppress(ValueError):
            yield from _of_docker_config(json.loads(value), what)
    elif not value.startswith((b"\x30", b"-----BEGIN CERT")):  # certificates, which are public
        with contextlib.suppress(UnicodeDecodeError):
            yield from password(value.decode(), what)


def _of_docker_config(document: Any, what: str) -> Iterator[Secret]:
    entries = document.get("auths", document) if isinstance(document, dict) else {}
    for entry in entries.values() if isinstance(entries, dict) else ():
        if isinstance(entry, dict):
            for field in ("password", "identitytoken", "registrytoken"):
                yield from password(str(entry.get(field, "")), f"{field} in {what}")
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(str(entry.get("auth", ""))).decode()
                yield from password(pair.partition(":")[2], f"auth in {what}")


def _documents(text: str) -> list[dict[str, Any]]:
    if "Secret" not in text:
        return []
    with contextlib.suppress(yaml.YAMLError):
        found = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
        return [item for document in found for item in document.get("items", [document]) if isinstance(item, dict)]
    return []
