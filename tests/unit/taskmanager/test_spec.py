"""Specs: what is meant, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, LabelSelector, Requirement, SecretName, parse_spec

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other tests."""
IMAGE = "registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx"


def _spec(**template: Any) -> JobSpec:
    return parse_spec({"imagePrePullTemplate": {"images": [IMAGE], "nodeNames": ["edge.kubeedge"], **template}})


def _refusal(**template: Any) -> str:
    with pytest.raises(InvalidSpec) as refused:
        _spec(**template)
    return str(refused.value)


def test_the_guides_job() -> None:
    spec = _spec(
        concurrency=1, failureTolerate="0.1", imageSecrets="default/my-secret", retryTimes=1, timeoutSeconds=120
    )
    assert spec == JobSpec(
        images=(IMAGE,),
        node_names=("edge.kubeedge",),
        check_items=("disk",),
        concurrency=1,
        failure_tolerate="0.1",
        timeout_seconds=120,
        retry_times=1,
        image_secrets=SecretName("default", "my-secret"),
    )


def test_the_guides_first_example_with_its_typing_slips_mended() -> None:
    spec = parse_spec(
        {
            "imagePrePullTemplate": {
                "images": ["image1", "image2"],
                "nodes": ["edgenode1", "edgenode2"],
                "checkItems": ["disk"],
                "failureTolerate": "0.3",
                "concurrency": 2,
                "timeoutSeconds": 180,
                "retryTimes": 1,
            }
        }
    )
    assert spec.node_names == ("edgenode1", "edgenode2")
    assert spec.images == ("image1", "image2")


def test_defaults() -> None:
    spec = _spec()
    assert (spec.concurrency, spec.failure_tolerate, spec.timeout_seconds, spec.retry_times) == (1, "0.1", 300, 0)
    assert spec.check_items == ("disk",)
    assert spec.image_secrets is None


def test_null_is_the_same_as_absent() -> None:
    keys = ("concurrency", "failureTolerate", "timeoutSeconds", "retryTimes", "checkItems", "imageSecrets", "nodes")
    assert _spec(**dict.fromkeys(keys)) == _spec()


def test_a_timeout_of_0_is_the_default() -> None:
    assert _spec(timeoutSeconds=0).timeout_seconds == 300


def test_an_empty_list_of_check_items_asks_for_no_check() -> None:
    assert _spec(checkItems=[]).check_items == ()


def test_repetitions_are_removed_and_the_order_is_kept() -> None:
    spec = _spec(images=["b", "a", "b"], nodeNames=["z", "y", "z", "x"], checkItems=["mem", "cpu", "mem"])
    assert (spec.images, spec.node_names, spec.check_items) == (("b", "a"), ("z", "y", "x"), ("mem", "cpu"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"images": []}, ["images", "[]", "at least one image reference"]),
        ({"images": None}, ["images", "null", "at least one"]),
        ({"images": "nginx"}, ["images", '"nginx"', "list"]),
        ({"images": ["team/UPPER"]}, ["images", "team/UPPER", "lower-case"]),
        ({"images": ["nginx", 7]}, ["images[1]", "7", "text"]),
        ({"images": [""]}, ["images[0]", '""', "1 to 1024"]),
        ({"images": ["a"] * 1001}, ["images", "1001", "at most 1000"]),
        ({"nodeNames": []}, ["neither nodeNames nor labelSelector"]),
        ({"nodeNames": None}, ["neither nodeNames nor labelSelector"]),
        ({"nodes": ["b"]}, ["nodes", '["b"]', "beside nodeNames", "one of the two"]),
        ({"labelSelector": {"matchLabels": {"a": "b"}}}, ["labelSelector", '"a"', "beside nodeNames"]),
        ({"nodeNames": ["x" * 254]}, ["nodeNames[0]", "1 to 253"]),
        ({"nodeNames": [f"n{n}" for n in range(20_001)]}, ["nodeNames", "20001", "at most 20000"]),
        ({"failureTolerate": "1.1"}, ["failureTolerate", '"1.1"', "0 to 1"]),
        ({"failureTolerate": "-0.1"}, ["failureTolerate", '"-0.1"', "0 to 1"]),
        ({"failureTolerate": "10%"}, ["failureTolerate", '"10%"', "0 to 1"]),
        ({"failureTolerate": "NaN"}, ["failureTolerate", "NaN"]),
        ({"failureTolerate": 0.1}, ["failureTolerate", "0.1", "text"]),
        ({"checkItems": ["gpu"]}, ["checkItems", '"gpu"', "cpu, mem or disk"]),
        ({"checkItems": "disk"}, ["checkItems", '"disk"', "list"]),
        ({"concurrency": 0}, ["concurrency", "0", "whole number from 1"]),
        ({"concurrency": "2"}, ["concurrency", '"2"', "whole number"]),
        ({"concurrency": 1.5}, ["concurrency", "1.5", "whole number"]),
        ({"concurrency": True}, ["concurrency", "true", "whole number"]),
        ({"concurrency": 2**31}, ["concurrency", "2147483648", "to 2147483647"]),
        ({"timeoutSeconds": -1}, ["timeoutSeconds", "-1", "from 0"]),
        ({"retryTimes": 1001}, ["retryTimes", "1001", "to 1000"]),
        ({"imageSecrets": "my-secret"}, ["imageSecrets", '"my-secret"', "namespace/name"]),
        ({"imageSecrets": "a/b/c"}, ["imageSecrets", "a/b/c", "namespace/name"]),
        ({"imageSecrets": ["default/x"]}, ["imageSecrets", "namespace/name"]),
    ],
)
def test_what_is_wrong_is_refused_naming_field_value_and_what_would_be_right(
    template: dict[str, Any], words: list[str]
) -> None:
    text = _refusal(**template)
    assert text.startswith("spec.imagePrePullTemplate")
    for word in words:
        assert word in text


@pytest.mark.parametrize("raw", [{}, {"imagePrePullTemplate": None}, {"imagePrePullTemplate": []}])
def test_a_spec_without_a_template_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match=r"spec\.imagePrePullTemplate: is missing"):
        parse_spec(raw)


def test_long_values_are_cut() -> None:
    assert len(_refusal(failureTolerate="9" * 100_000)) < 400


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("x", ["labelSelector", "object"]),
        ({"matchLabel": {"a": "b"}}, ["labelSelector", "matchLabel", "matchLabels and matchExpressions"]),
        ({"matchLabels": {"a": 1}}, ["labelSelector.matchLabels.a", "1", "text"]),
        ({"matchLabels": []}, []),
        ({"matchExpressions": [{"key": "a", "operator": "Like"}]}, ["matchExpressions[0].operator", "Like", "NotIn"]),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, ["matchExpressions[0].values", "at least one"]),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]},
            ["matchExpressions[0].values", "absent"],
        ),
        ({"matchExpressions": [{"operator": "Exists"}]}, ["matchExpressions[0].key", "null"]),
        ({"matchExpressions": ["a"]}, ["matchExpressions[0]", "key and operator"]),
    ],
)
def test_wrong_selectors_are_refused(selector: Any, words: list[str]) -> None:
    if not words:
        assert _spec(nodeNames=None, labelSelector=selector).label_selector == LabelSelector()
        return
    text = _refusal(nodeNames=None, labelSelector=selector)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("selector", "matching"),
    [
        ({}, {"eu", "us", "bare"}),
        ({"matchLabels": {"zone": "eu"}}, {"eu"}),
        ({"matchLabels": {"zone": "eu", "tier": "2"}}, set()),
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["eu", "us"]}]}, {"eu", "us"}),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["eu"]}]}, {"us", "bare"}),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, {"eu", "us"}),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, {"bare"}),
        (
            {
                "matchLabels": {"tier": "1"},
                "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["us"]}],
            },
            {"eu"},
        ),
    ],
)
def test_selectors_match_as_in_kubernetes(selector: dict[str, Any], matching: set[str]) -> None:
    nodes = {"eu": {"zone": "eu", "tier": "1"}, "us": {"zone": "us", "tier": "1"}, "bare": {}}
    parsed = _spec(nodeNames=None, labelSelector=selector).label_selector
    assert parsed is not None
    assert {name for name, labels in nodes.items() if parsed.matches(labels)} == matching


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    [
        "images",
        "nodeNames",
        "nodes",
        "labelSelector",
        "checkItems",
        "concurrency",
        "failureTolerate",
        "timeoutSeconds",
        "retryTimes",
        "imageSecrets",
    ]
)


@UNHURRIED
@given(st.dictionaries(_FIELDS, _JSON, max_size=4))
def test_any_json_is_a_spec_or_refused_in_words(template: dict[str, Any]) -> None:
    try:
        spec = _spec(**template)
    except InvalidSpec as error:
        refusal = str(error)
    else:
        refusal = ""
        assert JobSpec.from_json(spec.to_json()) == spec
    assert not refusal or refusal.startswith("spec.imagePrePullTemplate")


@UNHURRIED
@given(st.dictionaries(st.sampled_from(["matchLabels", "matchExpressions"]), _JSON, max_size=2))
def test_any_json_is_a_selector_or_refused_in_words(selector: dict[str, Any]) -> None:
    try:
        spec = _spec(nodeNames=None, labelSelector=selector)
    except InvalidSpec as error:
        assert "labelSelector" in str(error)  # noqa: PT017 - either way is right
    else:
        assert JobSpec.from_json(spec.to_json()) == spec


def test_what_is_stored_comes_back_the_same() -> None:
    spec = JobSpec(
        images=("a", "b"),
        label_selector=LabelSelector((Requirement("k", "In", ("v", "w")), Requirement("x", "Exists"))),
        image_secrets=SecretName("ns", "name"),
        check_items=(),
        concurrency=7,
        failure_tolerate="0.25",
        timeout_seconds=9,
        retry_times=3,
    )
    assert JobSpec.from_json(spec.to_json()) == spec


def test_only_images_and_nodes_make_it_another_work() -> None:
    spec = _spec()
    assert spec.same_work(_spec(concurrency=9, failureTolerate="1", timeoutSeconds=5, retryTimes=2))
    assert not spec.same_work(_spec(images=["other"]))
    assert not spec.same_work(_spec(nodeNames=["other"]))
    assert not spec.same_work(_spec(nodeNames=None, labelSelector={}))
