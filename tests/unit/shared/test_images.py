"""`parse_reference` against Docker's rules, and against any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.images import ImageReference, InvalidReference, is_digest, parse_reference

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/team/app:1", "docker.io/team/app:1"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("127.0.0.1:5000/jilimoxing/test:nginx", "127.0.0.1:5000/jilimoxing/test:nginx"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("registry:5000/a/b/c", "registry:5000/a/b/c:latest"),
        ("registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx",) * 2,
        ("FOO/bar", "FOO/bar:latest"),
        # Without a slash there is no registry, whatever it looks like: Docker reads a name and a tag.
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("a__b--c/d.e_f", "docker.io/a__b--c/d.e_f:latest"),
        (f"nginx@{SHA256}", f"docker.io/library/nginx@{SHA256}"),
        (f"quay.io/a/b:v1@{SHA256}", f"quay.io/a/b:v1@{SHA256}"),
        (f"r:5000/a@{SHA512}", f"r:5000/a@{SHA512}"),
    ],
)
def test_short_names_are_expanded_as_docker_does(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full


def test_the_parts_of_a_reference_are_told_apart() -> None:
    assert parse_reference(f"localhost:5000/a/b:v1@{SHA256}") == ImageReference(
        registry="localhost:5000", repository="a/b", tag="v1", digest=SHA256
    )


def test_a_digest_leaves_the_tag_unset_when_none_is_written() -> None:
    reference = parse_reference(f"nginx@{SHA256}")
    assert reference.tag is None
    assert reference.digest == SHA256


def test_a_digest_decides_over_the_tag_what_is_asked_of_the_registry() -> None:
    assert parse_reference(f"nginx:1@{SHA256}").selector == SHA256
    assert parse_reference("nginx:1").selector == "1"
    assert parse_reference("nginx").selector == "latest"


def test_docker_hub_is_dialled_at_its_api_host_and_others_at_their_own() -> None:
    assert parse_reference("nginx").api_host == "registry-1.docker.io"
    assert parse_reference("quay.io/a/b").api_host == "quay.io"
    assert parse_reference("localhost:5000/a").api_host == "localhost:5000"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("Nginx", "upper-case"),
        ("quay.io/Team/app", "upper-case"),
        ("docker.io/", "empty"),
        ("quay.io/:tag", "empty"),
        (":tag", "empty"),
        ("/app", "must be parts"),
        ("app/", "must be parts"),
        ("a//b", "must be parts"),
        ("a/-b", "must be parts"),
        ("a___b", "must be parts"),
        ("a..b", "must be parts"),
        ("app:", "tag"),
        ("app:-v", "tag"),
        ("app:a:b", "tag"),
        ("app:" + "t" * 129, "tag"),
        ("https://quay.io/a", "scheme"),
        ("a b", "spaces"),
        ("app\n", "spaces"),
        ("appé", "ASCII"),
        ("quay.io:0/a", "port"),
        ("quay.io:65536/a", "port"),
        ("quay.io:x/a", "host:port"),
        ("quay..io/a", "host:port"),
        ("-quay.io/a", "host:port"),
        ("[::1/a", "host:port"),
        ("[1:2]:5000/a", "IPv6"),
        (("a" * 60 + ".") * 5 + "io/a", "host:port"),
        ("a" * 256, "more than 255"),
        ("a/" * 600, "more than 1024"),
        ("app@", "digest"),
        ("app@sha256:123", "digest"),
        (f"app@{SHA256.upper()}", "digest"),
        (f"app@{SHA256}x", "digest"),
        (f"app@{SHA256}@{SHA256}", "digest"),
        ("app@md5:" + "0" * 32, "digest"),
        (SHA256.removeprefix("sha256:"), "image's id"),
        (f"@{SHA256}", "empty"),
    ],
)
def test_what_is_no_reference_is_refused_with_what_would_be_right(text: str, word: str) -> None:
    with pytest.raises(InvalidReference, match=word) as caught:
        parse_reference(text)
    assert caught.value.reason in str(caught.value)


def test_the_error_of_a_long_text_is_short() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference("x" * 1_000_000)
    assert len(str(caught.value)) < 300


def test_the_longest_parts_are_taken() -> None:
    reference = parse_reference("r.io/" + "a" * 255 + ":" + "t" * 128 + "@" + SHA512)
    assert len(reference.repository) == 255
    assert reference.tag == "t" * 128


@pytest.mark.parametrize("text", [SHA256 + "0", SHA256[:-1], SHA256.upper(), "sha256:", "", SHA256 + "\n", "md5:00"])
def test_no_digest_but_a_whole_lower_case_one(text: str) -> None:
    assert not is_digest(text)
    assert is_digest(SHA256)
    assert is_digest(SHA512)


# --- Properties -------------------------------------------------------------------------------------------------

_component = st.from_regex(r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True)
_repository = st.lists(_component, min_size=1, max_size=4).map("/".join)
_registry = st.one_of(
    st.sampled_from(["docker.io/", "index.docker.io/", "localhost/", "[2001:db8::1]:443/", "HOST/"]),
    st.from_regex(r"[a-z0-9]{1,5}(\.[a-z0-9]{1,5}){1,3}(:[1-9][0-9]{0,3})?/", fullmatch=True),
    st.just("team/"),
)
_tag = st.one_of(st.just(""), st.from_regex(r":[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True))
_digest = st.one_of(st.just(""), st.just("@" + SHA256), st.just("@" + SHA512))
_reference_text = st.builds(lambda *parts: "".join(parts), _registry, _repository, _tag, _digest)
_noise = st.text(alphabet="aZ0.:/@-_[]%é \n\0" + "sha256", max_size=80)


@settings(deadline=None)
@given(_reference_text)
def test_the_full_name_parses_to_the_same_reference(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference
    assert str(parse_reference(str(reference))) == str(reference)


@settings(deadline=None)
@given(_registry, _repository, _tag, st.sampled_from([SHA256, SHA512]))
def test_a_digest_is_never_split(registry: str, repository: str, tag: str, digest: str) -> None:
    reference = parse_reference(f"{registry}{repository}{tag}@{digest}")
    assert reference.digest == digest
    assert reference.tag == (tag.removeprefix(":") or None)
    assert reference.repository.endswith(repository)


@settings(deadline=None)
@given(st.one_of(st.text(), _noise, _reference_text.flatmap(lambda text: _noise.map(lambda noise: text + noise))))
def test_any_text_parses_or_is_refused_and_nothing_else(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference
