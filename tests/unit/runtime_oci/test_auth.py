"""The token flow and Basic: what is asked for, what is sent where, and that it ends."""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import Callable

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehub.runtime.base import PullDenied, PullError, TransientPullError
from edgehub.runtime.oci import BuiltinStore
from edgehub.runtime.oci.auth import Challenge, parse_challenges
from shared.wire import Credential
from tests.unit.runtime_oci.conftest import HASTY, MakeStore
from tests.unit.runtime_oci.images import image
from tests.unit.runtime_oci.registry import Answer, BadRegistry, body, redirect, status

USER = Credential(registry="r", username="tiger", password="pass:1234")
IDENTITY = Credential(registry="r", identity_token="refresh-me")
BASIC = "Basic " + base64.b64encode(b"tiger:pass:1234").decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.io/token",service="r.io",scope="repository:a/b:pull,push"'],
            [("bearer", {"realm": "https://auth.io/token", "service": "r.io", "scope": "repository:a/b:pull,push"})],
        ),
        (['BASIC realm="a \\"b\\" c"'], [("basic", {"realm": 'a "b" c'})]),
        (
            ['Basic realm="x", Bearer realm=y , service = "z"'],
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        (["Negotiate", "Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Bearer"], [("bearer", {})]),
        (['Bearer realm="one",realm="two"'], [("bearer", {"realm": "one"})]),
        (['Bearer realm="never ends'], [("bearer", {})]),
        ([""], []),
        ([], []),
        (["=,="], []),
    ],
)
def test_challenges_are_parsed(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme, parameters) for scheme, parameters in expected]


@settings(deadline=None)
@given(st.lists(st.text(alphabet='Bearer Basic,="\\ \tx:/é', max_size=60), max_size=3))
def test_any_header_is_parsed_to_something(headers: list[str]) -> None:
    assert all(challenge.scheme for challenge in parse_challenges(headers))


def test_a_header_made_to_stall_does_not() -> None:
    for header in ('Bearer a="' + "\\" * 100_000, "Bearer " + "a" * 100_000, "Bearer " + 'a="b",' * 20_000):
        parse_challenges([header])


class TokenServer:
    """Answers at ``/token`` of the registry ``at``, and guards ``registry`` with the tokens that it gave out."""

    def __init__(self, registry: BadRegistry, at: BadRegistry, *, scope: str = "") -> None:
        self.registry, self.at, self.scope = registry, at, scope
        self.given: list[str] = []
        self.allowed: Callable[[web.Request], bool] = lambda _: True
        self.key = "token"
        at.answers["/token"] = self.token
        registry.answers["latest"] = self.guard
        registry.answers[""] = self.guard

    async def token(self, request: web.Request) -> web.StreamResponse:
        if not self.allowed(request):
            return web.Response(status=401)
        self.given.append(f"token-{len(self.given)}")
        return web.json_response({self.key: self.given[-1], "expires_in": 300})

    async def guard(self, request: web.Request) -> web.StreamResponse:
        if self.given and request.headers.get("Authorization") == f"Bearer {self.given[-1]}":
            return await self.registry.serve(request)
        scope = f',scope="{self.scope}"' if self.scope else ""
        challenge = f'Bearer realm="{self.at.url}/token?x=1",service="the registry"{scope}'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})


async def denied(store: BuiltinStore, registry: BadRegistry, credential: Credential | None) -> PullError:
    with pytest.raises(PullError) as caught:
        await store.pull(f"{registry.address}/team/app", credential)
    for secret in ("pass:1234", "refresh-me", "tiger"):
        assert secret not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("key", ["token", "access_token"])
async def test_a_token_is_got_with_user_and_password_and_serves_all_requests(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore, key: str
) -> None:
    registry.add(image(b"a", b"b"))
    server = TokenServer(registry, elsewhere)
    server.key = key
    server.allowed = lambda request: request.headers.get("Authorization") == BASIC
    await store.pull(f"{registry.address}/team/app", USER)
    (asked,) = elsewhere.seen
    assert asked.method == "GET"
    assert urllib.parse.parse_qs(asked.query) == {
        "x": ["1"],
        "service": ["the registry"],
        "scope": ["repository:team/app:pull"],
    }
    assert {seen.authorization for seen in registry.seen} == {None, "Bearer token-0"}
    assert BASIC not in {seen.authorization for seen in registry.seen}


async def test_a_public_repository_gives_its_token_to_anybody(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    registry.add(image())
    TokenServer(registry, elsewhere, scope="repository:team/app:pull,metadata")
    await store.pull(f"{registry.address}/team/app", None)
    assert elsewhere.seen[0].authorization is None
    assert "metadata" in elsewhere.seen[0].query


async def test_an_identity_token_is_exchanged_by_the_refresh_grant(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    registry.add(image())
    TokenServer(registry, elsewhere)
    await store.pull(f"{registry.address}/team/app", IDENTITY)
    (asked,) = elsewhere.seen
    assert asked.method == "POST"
    assert asked.authorization is None
    form = urllib.parse.parse_qs(asked.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["refresh-me"]
    assert form["scope"] == ["repository:team/app:pull"]
    assert form["service"] == ["the registry"]
    assert form["client_id"] == ["edgehub"]


async def test_where_the_refresh_grant_is_unknown_user_and_password_do(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    registry.add(image())
    server = TokenServer(registry, elsewhere)
    server.allowed = lambda request: request.method == "GET" and "Authorization" in request.headers
    both = Credential(registry="r", username="tiger", password="pass:1234", identity_token="refresh-me")
    await store.pull(f"{registry.address}/team/app", both)
    assert [seen.method for seen in elsewhere.seen] == ["POST", "GET"]


async def test_a_token_that_ran_out_is_renewed(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    one = image(b"a" * 1000)
    registry.add(one)
    server = TokenServer(registry, elsewhere)

    async def expire(request: web.Request) -> web.StreamResponse:
        server.given.append("never given out")
        return await server.guard(request)

    registry.answers = {one.layers[0]: registry.once(expire, then=server.guard), **registry.answers}
    await store.pull(f"{registry.address}/team/app", None)
    assert len(elsewhere.seen) == 2


async def test_a_registry_that_never_takes_its_tokens_keeps_nobody_in_a_loop(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    server = TokenServer(registry, elsewhere)

    async def refuse(request: web.Request) -> web.StreamResponse:
        server.given.clear()
        return await server.guard(request)

    registry.answers = {"": refuse}
    error = await denied(store, registry, USER)
    assert isinstance(error, PullDenied)
    assert "denied pulling team/app with the credential given (401)" in str(error)
    assert len(registry.seen) == 2
    assert len(elsewhere.seen) == 1


async def test_many_requests_that_are_refused_at_once_get_one_token(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    one = image(b"a", b"b", b"c")
    registry.add(one)
    server = TokenServer(registry, elsewhere)
    refused = 0
    all_refused = asyncio.Event()

    async def first_token_ran_out(request: web.Request) -> web.StreamResponse:
        nonlocal refused
        if request.headers.get("Authorization") != "Bearer token-0":
            return await registry.serve(request)
        refused += 1
        if refused == len(one.layers):
            all_refused.set()
        await all_refused.wait()
        return await server.guard(without_authorization(request))

    registry.answers = {**dict.fromkeys(one.layers, first_token_ran_out), **registry.answers}
    await store.pull(f"{registry.address}/team/app", None)
    assert refused == 3
    assert server.given == ["token-0", "token-1"]


def without_authorization(request: web.Request) -> web.Request:
    return request.clone(headers={"Host": request.host})


@pytest.mark.parametrize(
    ("code", "kind"), [(401, PullDenied), (403, PullDenied), (500, TransientPullError), (429, TransientPullError)]
)
@pytest.mark.parametrize("credential", [None, USER, IDENTITY])
async def test_a_token_server_that_refuses_decides_by_its_status(
    registry: BadRegistry,
    elsewhere: BadRegistry,
    store: BuiltinStore,
    code: int,
    kind: type[PullError],
    credential: Credential | None,
) -> None:
    TokenServer(registry, elsewhere)
    elsewhere.answers["/token"] = status(code)
    error = await denied(store, registry, credential)
    assert type(error) is kind
    assert elsewhere.address in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        body(b""),
        body(b"<html>"),
        body(b"[]"),
        body(b'{"token": ""}'),
        body(b'{"token": 7}'),
        body(b'{"token": "a\\r\\nX-Evil: b"}'),
        body(b"[" * 100_000),
    ],
)
async def test_a_token_server_that_gives_no_token_is_tried_again_later(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore, answer: Answer
) -> None:
    TokenServer(registry, elsewhere)
    elsewhere.answers["/token"] = answer
    error = await denied(store, registry, USER)
    assert isinstance(error, TransientPullError)
    assert "answered without a token" in str(error)


async def test_a_token_server_that_hangs_is_given_up(
    registry: BadRegistry, elsewhere: BadRegistry, make_store: MakeStore
) -> None:
    TokenServer(registry, elsewhere)
    elsewhere.answers["/token"] = elsewhere.hang
    assert isinstance(await denied(make_store(settings=HASTY), registry, USER), TransientPullError)


async def test_an_endless_token_is_cut_off(registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore) -> None:
    TokenServer(registry, elsewhere)
    elsewhere.answers["/token"] = elsewhere.endless
    assert "more than" in str(await denied(store, registry, USER))


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token",
        "",
        "/token",
        "ftp://127.0.0.1/token",
        "http://[::1",
        "https://",
        "file:///etc/passwd",
    ],
)
async def test_a_credential_goes_to_no_token_server_that_is_not_safe(
    registry: BadRegistry, store: BuiltinStore, realm: str
) -> None:
    registry.answers[""] = status(401, WWW_Authenticate=f'Bearer realm="{realm}"')
    error = await denied(store, registry, USER)
    assert isinstance(error, PullDenied)
    assert "no credential goes there" in str(error)
    assert len(registry.seen) == 1


async def test_a_token_server_that_redirects_to_another_host_does_not_pass_the_credential_on(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    TokenServer(registry, registry)
    registry.answers = {**registry.answers, "/token": redirect(f"{elsewhere.url}/steal")}
    await denied(store, registry, USER)
    assert [seen.authorization for seen in elsewhere.seen] == [None]
    before = len(elsewhere.seen)
    await denied(store, registry, IDENTITY)
    assert len(elsewhere.seen) == before


async def test_basic_is_sent_when_it_is_asked_for_and_not_before(registry: BadRegistry, store: BuiltinStore) -> None:
    registry.add(image())

    async def guard(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") == BASIC:
            return await registry.serve(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    registry.answers[""] = guard
    await store.pull(f"{registry.address}/team/app", USER)
    assert [seen.authorization for seen in registry.seen].count(None) == 1
    assert registry.seen[0].authorization is None


@pytest.mark.parametrize("credential", [None, IDENTITY])
async def test_a_registry_that_wants_basic_gets_nothing_else(
    registry: BadRegistry, store: BuiltinStore, credential: Credential | None
) -> None:
    registry.answers[""] = status(401, WWW_Authenticate='Basic realm="x"')
    error = await denied(store, registry, credential)
    assert isinstance(error, PullDenied)
    assert "wants a user and a password" in str(error)
    assert len(registry.seen) == 1


@pytest.mark.parametrize("header", ["", "Negotiate", 'Digest realm="x"'])
async def test_a_registry_that_asks_for_something_else_is_denied(
    registry: BadRegistry, store: BuiltinStore, header: str
) -> None:
    registry.answers[""] = status(401, WWW_Authenticate=header)
    assert isinstance(await denied(store, registry, USER), PullDenied)


async def test_a_password_outside_ascii_is_sent_as_utf_8(registry: BadRegistry, store: BuiltinStore) -> None:
    registry.answers[""] = status(401, WWW_Authenticate='Basic realm="x"')
    user = Credential(registry="r", username="用户", password="密码")
    await denied(store, registry, user)
    sent = registry.seen[-1].authorization
    assert sent == "Basic " + base64.b64encode("用户:密码".encode()).decode()
