"""The job API models say what KubeEdge's guide prints."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.jobs import (
    Action,
    Condition,
    Counts,
    Event,
    ImageStatus,
    JobStatus,
    NodeEntry,
    NodeStatus,
    State,
)

GUIDE = (
    '{"action":"Success","event":"Pull","state":"Successful","status":[{"imageStatus":[{"image":'
    '"registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx","state":"Successful"}],"nodeStatus":{"action":"Success",'
    '"event":"Pull","nodeName":"edge.kubeedge","state":"Successful","time":"2024-04-26T18:51:41Z"}}],'
    '"time":"2024-04-26T18:51:41Z"}'
)


def test_a_status_is_dumped_as_the_guide_prints_it() -> None:
    time = "2024-04-26T18:51:41Z"
    status = JobStatus(
        state=State.SUCCESSFUL,
        event=Event.PULL,
        action=Action.SUCCESS,
        time=time,
        status=[
            NodeEntry(
                nodeStatus=NodeStatus(
                    nodeName="edge.kubeedge",
                    state=State.SUCCESSFUL,
                    event=Event.PULL,
                    action=Action.SUCCESS,
                    time=time,
                ),
                imageStatus=[
                    ImageStatus(image="registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx", state=State.SUCCESSFUL)
                ],
            )
        ],
    )
    dumped = {key: value for key, value in status.dump().items() if key != "conditions"}
    assert dumped == json.loads(GUIDE)


def test_the_guides_status_is_read_back() -> None:
    status = JobStatus.model_validate_json(GUIDE)
    assert status.state is State.SUCCESSFUL
    assert status.status[0].nodeStatus.nodeName == "edge.kubeedge"
    assert {**JobStatus().dump(), **json.loads(GUIDE)} == status.dump()


def test_what_is_not_set_is_not_dumped() -> None:
    assert JobStatus(state=State.INIT).dump() == {"state": "Init", "status": [], "conditions": []}
    assert JobStatus(counts=Counts(total=3)).dump()["counts"] == {
        "total": 3,
        "pending": 0,
        "running": 0,
        "succeeded": 0,
        "failed": 0,
    }


def test_keys_of_other_versions_are_no_error() -> None:
    assert JobStatus.model_validate({"anything": "Init", "else": []}) == JobStatus()


@pytest.mark.parametrize("state", list(State))
def test_finished_is_successful_or_failed(state: State) -> None:
    assert state.finished == (state.value in ("Successful", "Failed"))


TEXT = st.text(max_size=20)
STATES = st.sampled_from(list(State))
NODE_ENTRIES = st.builds(
    NodeEntry,
    nodeStatus=st.builds(NodeStatus, nodeName=TEXT, state=STATES, reason=st.none() | TEXT, time=st.none() | TEXT),
    imageStatus=st.none() | st.lists(st.builds(ImageStatus, image=TEXT, state=STATES, reason=st.none() | TEXT)),
)
STATUSES = st.builds(
    JobStatus,
    state=st.none() | STATES,
    reason=st.none() | TEXT,
    status=st.lists(NODE_ENTRIES, max_size=3),
    counts=st.none() | st.builds(Counts, total=st.integers(0, 10**6)),
    conditions=st.lists(
        st.builds(Condition, type=TEXT, status=TEXT, reason=TEXT, message=TEXT, lastTransitionTime=TEXT), max_size=2
    ),
)


@given(STATUSES)
def test_a_status_survives_its_way_through_json(status: JobStatus) -> None:
    assert JobStatus.model_validate_json(json.dumps(status.dump())) == status
