"""Bodies in Kubernetes' protobuf."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.standalone import kubernetes_pb2 as messages
from cloudhub.standalone.decode import InvalidBody
from cloudhub.standalone.protobuf import decode_delete_options, decode_object

# As kubectl 1.37.1 sent it for `kubectl create namespace foo`.
NAMESPACE = bytes.fromhex(
    "6b387300 0a0f0a027631 12094e616d657370616365 121b 0a13 0a03666f6f 1200 1a00 2200 2a00 3200 3800 4200"
    "1200 1a02 0a00 1a00 2200"
)


def envelope(kind: str, raw: bytes, version: str = "v1") -> bytes:
    unknown = messages.Unknown(typeMeta=messages.TypeMeta(apiVersion=version, kind=kind), raw=raw)
    return b"k8s\x00" + unknown.SerializeToString()


def test_what_kubectl_sends_is_read_without_gos_empty_fields() -> None:
    assert decode_object(NAMESPACE) == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "foo"}}


def test_a_secrets_bytes_become_base64() -> None:
    secret = messages.Secret(metadata=messages.ObjectMeta(name="s", labels={"a": "b"}), data={"k": b"\x00\xff"})
    secret.type = "Opaque"
    secret.immutable = False
    assert decode_object(envelope("Secret", secret.SerializeToString())) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"a": "b"}},
        "data": {"k": "AP8="},
        "type": "Opaque",
        "immutable": False,
    }


def test_times_are_text() -> None:
    spec = messages.LeaseSpec(holderIdentity="me", leaseTransitions=0)
    spec.renewTime.seconds, spec.renewTime.nanos = 1_700_000_000, 123_456_000
    lease = messages.Lease(metadata=messages.ObjectMeta(name="l"), spec=spec)
    decoded = decode_object(envelope("Lease", lease.SerializeToString(), "coordination.k8s.io/v1"))
    assert decoded["spec"] == {
        "holderIdentity": "me",
        "renewTime": "2023-11-14T22:13:20.123456Z",
        "leaseTransitions": 0,
    }


def test_delete_options_are_read() -> None:
    options = messages.DeleteOptions(propagationPolicy="Background", dryRun=["All"])
    options.preconditions.uid = "u"
    assert decode_delete_options(envelope("DeleteOptions", options.SerializeToString())) == {
        "propagationPolicy": "Background",
        "dryRun": ["All"],
        "preconditions": {"uid": "u"},
    }


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"k8s\x00",
        b"k8s\x00\xff\xff",
        envelope("Pod", b""),
        envelope("Secret", b"\xff\xff\xff"),
        envelope("Secret", messages.ConfigMap(data={"a": "b"}).SerializeToString()[:-1]),
        envelope("Lease", messages.Lease(spec=messages.LeaseSpec(renewTime=messages.MicroTime(seconds=2**62)))
                 .SerializeToString(), "coordination.k8s.io/v1"),
    ],
)  # fmt: skip
def test_what_is_no_message_of_a_known_kind_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidBody):
        decode_object(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    for body in (raw, b"k8s\x00" + raw, envelope("Event", raw)):
        try:
            decoded = decode_object(body)
        except InvalidBody:
            continue
        assert decoded["kind"]
