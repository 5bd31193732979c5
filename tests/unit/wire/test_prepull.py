"""KubeEdge's older task messages, as its Go types are written: keys without tags, read without regard to case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared import prepull
from shared.prepull import State, parse_request, parse_resource_down, response
from shared.wire import Operation, Report, WireError


def test_a_check_is_read_with_its_items() -> None:
    request = parse_request(
        {"TaskID": "job", "Type": "prepull", "State": "Checking", "Item": {"CheckItem": ["disk", "cpu"]}}
    )
    operation, dispatch = request.dispatch()
    assert (request.state, operation) == (State.CHECKING, Operation.CHECK)
    assert dispatch.imagePrePullTemplate.checkItems == ["disk", "cpu"]
    assert dispatch.task is None


def test_a_pull_is_read_with_all_that_it_needs() -> None:
    item = {"Images": ["a", "b"], "NodeName": "n", "Secret": "ns/s", "RetryTimes": 2, "CheckItems": ["disk"]}
    operation, dispatch = parse_request({"State": "Pulling", "Item": item}).dispatch()
    template = dispatch.imagePrePullTemplate
    assert operation is Operation.PULL
    assert (template.images, template.imageSecrets, template.retryTimes) == (["a", "b"], "ns/s", 2)
    assert template.checkItems == []  # they had their own message


@pytest.mark.parametrize("content", [{}, {"State": ""}, {"State": "Init", "Item": None}, {"state": "Init"}])
def test_no_state_asks_for_a_sign_of_life(content: Any) -> None:
    assert parse_request(content).state is State.INIT


def test_keys_are_read_without_regard_to_case() -> None:
    assert parse_request({"state": "Pulling", "item": {"IMAGES": ["a"], "secret": "n/s"}}).images == ("a",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"State": "Dancing"}, "State: 'Dancing' is not known; it must be empty or one of Init, Checking, Pulling"),
        ({"State": "Pulling", "Item": {"Images": []}}, "Item.Images: empty"),
        ({"State": "Pulling", "Item": {"Images": None}}, "Item.Images: empty"),
        ({"State": "Pulling", "Item": {"Images": "a"}}, "item.images: Input should be a valid list"),
        ({"State": "Pulling", "Item": {"Images": ["a"], "RetryTimes": -1}}, "item.retrytimes"),
        ({"State": 5}, "state: Input should be a valid string"),
        ({"State": "Checking", "Item": []}, "item: "),
        ("text", "document"),
        (None, "document"),
    ],
)
def test_what_cannot_be_read_is_named(content: Any, words: str) -> None:
    with pytest.raises(WireError, match="^" + words.split("(")[0].replace("[", r"\[")):
        parse_request(content)


@pytest.mark.parametrize(
    "resource",
    ["prepull/job/node", "prepull/job/node/n/more", "prepull/JOB/node/n", "task/job/node/n", "prepull//node/n", ""],
)
def test_other_resources_are_none(resource: str) -> None:
    with pytest.raises(WireError, match="is no prepull task"):
        parse_resource_down(resource)


def test_a_job_named_node_is_no_trap() -> None:
    assert parse_resource_down(prepull.resource_down("node", "node")) == ("node", "node")


def test_a_pulls_answer_has_the_results_as_json_text() -> None:
    extend = json.dumps(
        [{"image": "a", "status": "True", "reason": ""}, {"image": "b", "status": "False", "reason": "denied"}]
    )
    report = Report(action="Pull", succ=False, finishTime="2026-01-02T03:04:05Z", reason="1 of 2", extend=extend)
    content = response("n", report)
    assert json.loads(content.pop("ExternalMessage")) == [
        {"image": "a", "state": "Successful", "reason": ""},
        {"image": "b", "state": "Failed", "reason": "denied"},
    ]
    assert content == {
        "NodeName": "n",
        "State": "",
        "Event": "Pull",
        "Action": "Failure",
        "Reason": "1 of 2",
        "Time": "2026-01-02T03:04:05Z",
    }


def test_a_check_has_no_results() -> None:
    assert response("n", Report(action="Check", succ=True))["ExternalMessage"] == ""
