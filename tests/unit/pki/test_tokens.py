"""Join tokens: KubeEdge's form, and everything that is not one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.pki.ca import CertificateAuthority
from cloudhub.pki.errors import Refused
from cloudhub.pki.tokens import MAX_TOKEN, TokenIssuer, bearer, issue_join_token

NOW = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)
CA = CertificateAuthority.create(now=NOW)
ISSUER = TokenIssuer(CA, now=lambda: NOW)
EXPIRES = int(NOW.timestamp()) + 3600


def jwt_of(token: str) -> str:
    return token.split(".", 1)[1]


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def handmade(head: Any, claims: Any, key: bytes, algorithm: str = "sha256") -> str:
    signed = f"{part(head)}.{part(claims)}"
    signature = hmac.new(key, signed.encode(), algorithm).digest()
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


class TestIssue:
    def test_a_token_has_kubeedges_four_parts(self) -> None:
        parts = ISSUER.issue(timedelta(hours=24)).split(".")
        assert len(parts) == 4
        assert parts[0] == hashlib.sha256(CA.certificate_der).hexdigest()
        padded = [base64.urlsafe_b64decode(text + "==") for text in parts[1:3]]
        assert json.loads(padded[0]) == {"alg": "HS256", "typ": "JWT"}
        assert json.loads(padded[1]) == {"exp": int(NOW.timestamp()) + 86400, "issued": NOW.timestamp()}

    def test_a_token_tells_when_it_was_made_if_it_is_ours(self) -> None:
        assert ISSUER.verify(jwt_of(ISSUER.issue(timedelta(hours=1))), "edge-1") == NOW.timestamp()
        for issued in ({}, {"issued": "yesterday"}, {"issued": True}, {"issued": None}):
            token = handmade({"alg": "HS256", "typ": "JWT"}, {"exp": EXPIRES, **issued}, CA.key.der)
            assert ISSUER.verify(token, "edge-1") is None

    def test_a_token_that_is_made_as_kubeedge_makes_it_is_taken(self) -> None:
        ISSUER.verify(handmade({"alg": "HS256", "typ": "JWT"}, {"exp": EXPIRES}, CA.key.der), "any-node")

    def test_a_bound_token_is_for_its_node_alone(self) -> None:
        token = jwt_of(ISSUER.issue(timedelta(hours=1), "edge-1"))
        ISSUER.verify(token, "edge-1")
        with pytest.raises(Refused) as caught:
            ISSUER.verify(token, "edge-2")
        assert (caught.value.status, caught.value.reason) == (403, "token of another node")

    @pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=3651)])
    def test_a_life_that_makes_no_sense_is_refused(self, ttl: timedelta) -> None:
        with pytest.raises(ValueError, match="ttl of"):
            ISSUER.issue(ttl)

    def test_a_token_for_what_is_no_node_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="is no node name"):
            issue_join_token(CA, ttl=timedelta(hours=1), node="Edge 1")

    def test_the_command_lines_token_is_good_now(self) -> None:
        TokenIssuer(CA).verify(jwt_of(issue_join_token(CA, ttl=timedelta(hours=1), node="edge-1")), "edge-1")


def refused(token: str, node: str = "edge-1") -> Refused:
    with pytest.raises(Refused) as caught:
        ISSUER.verify(token, node)
    assert caught.value.status in (401, 403)
    for piece in token.split("."):
        assert len(piece) < 8 or piece not in str(caught.value)
    return caught.value


class TestRefuse:
    GOOD = jwt_of(ISSUER.issue(timedelta(hours=1)))

    def test_an_expired_token_is_refused_from_the_second_of_its_expiry(self) -> None:
        late = TokenIssuer(CA, now=lambda: NOW + timedelta(hours=1))
        with pytest.raises(Refused, match="token has expired") as caught:
            late.verify(self.GOOD, "edge-1")
        assert caught.value.reason == "token expired"
        TokenIssuer(CA, now=lambda: NOW + timedelta(seconds=3599)).verify(self.GOOD, "edge-1")

    def test_a_token_of_another_ca_is_refused(self) -> None:
        other = TokenIssuer(CertificateAuthority.create(now=NOW), now=lambda: NOW)
        refused(jwt_of(other.issue(timedelta(hours=1))))

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
    def test_a_token_without_a_signature_is_refused(self, algorithm: str) -> None:
        refused(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'exp': EXPIRES})}.")
        refused(handmade({"alg": algorithm}, {"exp": EXPIRES}, CA.key.der))

    def test_other_algorithms_are_refused_even_with_the_right_key(self) -> None:
        for algorithm, digest in (("HS384", "sha384"), ("HS512", "sha512")):
            refused(handmade({"alg": algorithm}, {"exp": EXPIRES}, CA.key.der, digest))

    def test_a_token_that_is_keyed_with_what_is_public_is_refused(self) -> None:
        public = CA.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for key in (public, CA.certificate_der, b""):
            refused(handmade({"alg": "HS256"}, {"exp": EXPIRES}, key))

    def test_a_truncated_token_is_refused(self) -> None:
        for length in range(0, len(self.GOOD) - 1, 7):
            refused(self.GOOD[:length])

    def test_the_whole_four_part_token_is_not_what_nodes_send(self) -> None:
        refused(ISSUER.issue(timedelta(hours=1)))

    def test_a_token_that_is_too_long_is_not_looked_at(self) -> None:
        refused("x" * (MAX_TOKEN + 1))

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"exp": None},
            {"exp": "soon"},
            {"exp": True},
            {"exp": []},
            {"exp": -1},
            {"exp": 0},
            {"exp": float("nan")},
            {"exp": EXPIRES, "nbf": EXPIRES * 2},
            {"exp": EXPIRES, "node": 7},
            {"exp": EXPIRES, "node": ""},
            {"exp": EXPIRES, "node": ["edge-1"]},
            [],
            "exp",
        ],
    )
    def test_claims_that_make_no_sense_are_refused_though_signed_by_us(self, claims: Any) -> None:
        refused(handmade({"alg": "HS256"}, claims, CA.key.der))

    def test_critical_headers_that_we_do_not_know_are_refused(self) -> None:
        refused(handmade({"alg": "HS256", "crit": ["x"], "x": 1}, {"exp": EXPIRES}, CA.key.der))

    @given(st.text(max_size=200))
    def test_any_text_is_refused(self, text: str) -> None:
        with pytest.raises(Refused):
            ISSUER.verify(text, "edge-1")

    @given(st.data())
    def test_no_changed_character_of_a_token_is_taken(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.GOOD) - 2))
        character = data.draw(st.sampled_from("abcXYZ019-_."))
        if self.GOOD[place] == character:
            return
        # The last character of each part has unused bits; only the last part's is left out above.
        changed = self.GOOD[:place] + character + self.GOOD[place + 1 :]
        with pytest.raises(Refused):
            ISSUER.verify(changed, "edge-1")

    def test_the_library_would_have_taken_the_good_one(self) -> None:
        assert jwt.decode(self.GOOD, CA.key.der, algorithms=["HS256"], options={"verify_exp": False}) == {
            "exp": EXPIRES,
            "issued": NOW.timestamp(),
        }


class TestHeader:
    def test_the_token_is_taken_out_of_the_header(self) -> None:
        assert bearer("Bearer a.b.c") == bearer("bearer  a.b.c ") == "a.b.c"

    @pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eDp5", "a.b.c", "Bearer a b"])
    def test_another_header_is_refused(self, header: str | None) -> None:
        with pytest.raises(Refused) as caught:
            bearer(header)
        assert caught.value.status == 401
