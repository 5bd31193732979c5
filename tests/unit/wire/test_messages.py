"""The frames that KubeEdge's parts send and expect, byte for byte, and what becomes of any other bytes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.wire import (
    MAX_FRAME_BYTES,
    Cancel,
    Credential,
    Dispatch,
    Feature,
    Header,
    Message,
    NodeInfo,
    Progress,
    PullTemplate,
    Report,
    Route,
    TaskExtras,
    WireError,
    decode,
    encode,
    keepalive,
    new_message,
    parse_features,
    parse_task_resource,
    rfc3339,
    task_resource,
)

MSG_ID = "4e7ee1cf-9c8b-4a0a-8d4d-7d0f8a1b2c3d"


def message(**route: Any) -> Message:
    content = route.pop("content", None)
    return Message(header=Header(msg_id=MSG_ID, timestamp=1732310400123), route=Route(**route), content=content)


class TestFramesThatWeSend:
    def test_keepalive_is_the_frame_that_edgecore_sends(self) -> None:
        sent = keepalive().model_copy(update={"header": Header(msg_id=MSG_ID, timestamp=1732310400123)})
        assert encode(sent) == (
            f'{{"header":{{"msg_id":"{MSG_ID}","timestamp":1732310400123}},'
            '"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},'
            '"content":"ping"}'
        )

    def test_a_dispatch_has_the_shape_that_edgecore_reads(self) -> None:
        template = PullTemplate(images=["nginx:1.27"], checkItems=["disk"], imageSecrets="default/pull", retryTimes=3)
        sent = message(
            source="taskmanager",
            group="taskmanager",
            resource=task_resource("job-1", "edge-1"),
            operation="Check",
            content=Dispatch(imagePrePullTemplate=template).model_dump(exclude_none=True),
        )
        assert encode(sent) == (
            f'{{"header":{{"msg_id":"{MSG_ID}","timestamp":1732310400123}},'
            '"route":{"source":"taskmanager","group":"taskmanager","operation":"Check",'
            '"resource":"operations.kubeedge.io/v1alpha2/imageprepulljob/job-1/node/edge-1"},'
            '"content":{"imagePrePullTemplate":{"images":["nginx:1.27"],"checkItems":["disk"],'
            '"imageSecrets":"default/pull","retryTimes":3}}}'
        )

    def test_what_we_add_stands_beside_kubeedges_keys(self) -> None:
        extras = TaskExtras(job_uid="u", attempt=1, timeout_seconds=300)
        dump = Dispatch(imagePrePullTemplate=PullTemplate(images=["a"]), task=extras).model_dump(exclude_none=True)
        assert set(dump) == {"imagePrePullTemplate", "task"}
        assert set(dump["imagePrePullTemplate"]) == {"images", "checkItems", "imageSecrets", "retryTimes"}

    def test_header_fields_are_left_out_when_empty_and_there_when_not(self) -> None:
        full = Message(
            header=Header(msg_id=MSG_ID, parent_msg_id="p", timestamp=1, resourceversion="77", sync=True, type="t"),
            route=Route(source="s", destination="d", group="g", operation="o", resource="r"),
            content={"k": "ä"},
        )
        assert encode(full) == (
            f'{{"header":{{"msg_id":"{MSG_ID}","parent_msg_id":"p","timestamp":1,"resourceversion":"77","sync":true,'
            '"type":"t"},"route":{"source":"s","destination":"d","group":"g","operation":"o","resource":"r"},'
            '"content":{"k":"ä"}}'
        )
        assert encode(message()) == f'{{"header":{{"msg_id":"{MSG_ID}","timestamp":1732310400123}},"route":{{}},' + (
            '"content":null}'
        )

    def test_each_new_message_has_an_id_of_its_own_and_the_present_time(self) -> None:
        before = datetime.now(UTC)
        first, second = keepalive(), keepalive()
        assert first.header.msg_id != second.header.msg_id
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first.header.msg_id)
        sent_at = datetime.fromtimestamp(first.header.timestamp / 1000, UTC)
        assert before - timedelta(seconds=1) <= sent_at <= datetime.now(UTC) + timedelta(seconds=1)

    def test_an_answer_names_the_message_that_it_answers(self) -> None:
        answer = new_message(source="a", group="b", resource="c", operation="response", content="OK", parent=MSG_ID)
        assert json.loads(encode(answer))["header"]["parent_msg_id"] == MSG_ID


class TestFramesThatWeRead:
    def test_a_report_of_edgecore_is_read(self) -> None:
        extend = json.dumps([{"image": "nginx", "status": "True"}, {"image": "b", "status": "False", "reason": "no"}])
        frame = json.dumps(
            {
                "header": {"msg_id": MSG_ID, "timestamp": 1732310400123, "sync": False},
                "route": {
                    "source": "websocket",
                    "group": "hub",
                    "operation": "UpdateNodeActionStatus",
                    "resource": "operations.kubeedge.io/v1alpha2/imageprepulljob/job-1/node/edge-1",
                },
                "content": {
                    "action": "Pull",
                    "succ": False,
                    "finishTime": "2026-11-22T22:00:00Z",
                    "reason": "some images failed",
                    "extend": extend,
                },
            }
        )
        read = decode(frame)
        assert parse_task_resource(read.route.resource) == ("job-1", "edge-1")
        report = Report.model_validate(read.content)
        assert (report.action, report.succ, report.task) == ("Pull", False, None)
        assert [(image.image, image.ok, image.reason) for image in report.images()] == [
            ("nginx", True, ""),
            ("b", False, "no"),
        ]

    @pytest.mark.parametrize("extend", ["", "null", "[]"])
    def test_a_report_without_images_is_read(self, extend: str) -> None:
        assert Report(action="Pull", succ=False, extend=extend).images() == []

    @pytest.mark.parametrize(
        "extend",
        ["{", "{}", '[{"image":"a"}]', '[{"image":"a","status":"true"}]', '"x"', '[{"image":"a","status":"True\\n"}]'],
    )
    def test_results_of_another_shape_are_an_error_that_does_not_repeat_them(self, extend: str) -> None:
        with pytest.raises(WireError, match=r"^extend: "):
            Report(action="Pull", succ=True, extend=extend).images()

    def test_keys_that_we_do_not_know_are_ignored(self) -> None:
        read = decode('{"header":{"msg_id":"1","later":1},"route":{"x":[]},"content":{"any":["thing"]},"more":{}}')
        assert read.header.msg_id == "1"
        assert read.content == {"any": ["thing"]}

    def test_a_message_without_route_and_content_is_one(self) -> None:
        assert decode(b'{"header":{"msg_id":"1"}}') == Message(header=Header(msg_id="1"))

    @pytest.mark.parametrize(
        ("frame", "text"),
        [
            ("", "document"),
            ("[]", "document"),
            ("{}", "header"),
            ('{"header":{}}', "header.msg_id"),
            ('{"header":{"msg_id":7}}', "header.msg_id"),
            ('{"header":{"msg_id":"' + "x" * 257 + '"}}', "header.msg_id"),
            ('{"header":{"msg_id":"1"},"route":{"resource":"' + "x" * 1025 + '"}}', "route.resource"),
            ('{"header":{"msg_id":"1","timestamp":"soon"}}', "header.timestamp"),
            (b"\xff\xfe", "document"),
            ('{"header":{"msg_id":"1"},"content":' + "[" * 100_000, "document"),
        ],
    )
    def test_what_is_no_message_is_an_error_that_names_the_place(self, frame: str | bytes, text: str) -> None:
        with pytest.raises(WireError) as caught:
            decode(frame)
        assert text in str(caught.value)

    def test_no_value_of_a_refused_message_is_in_its_error(self) -> None:
        with pytest.raises(WireError) as caught:
            decode('{"header":{"msg_id":"1","timestamp":"hunter2"},"content":"hunter2"}')
        assert "hunter2" not in str(caught.value)

    def test_a_frame_beyond_the_limit_is_refused_by_its_bytes(self) -> None:
        text = '{"header":{"msg_id":"1"},"content":"' + "ä" * (MAX_FRAME_BYTES // 2) + '"}'
        assert len(text) < MAX_FRAME_BYTES < len(text.encode())
        for frame in (text, text.encode()):
            with pytest.raises(WireError, match=f"more than {MAX_FRAME_BYTES}"):
                decode(frame)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
short = st.text(max_size=256)
messages = st.builds(
    Message,
    header=st.builds(
        Header,
        msg_id=short,
        parent_msg_id=short,
        timestamp=st.integers(0, 2**53),
        resourceversion=short,
        sync=st.booleans(),
        type=short,
    ),
    route=st.builds(Route, source=short, destination=short, group=short, operation=short, resource=short),
    content=json_values,
)


class TestAnyBytes:
    @given(st.binary(max_size=512))
    def test_bytes_give_a_message_or_a_wire_error(self, frame: bytes) -> None:
        self.decode_safely(frame)

    @given(st.text(max_size=512))
    @example("\ud800")
    @example('{"header":{"msg_id":"\ud800"}}')
    def test_text_gives_a_message_or_a_wire_error(self, frame: str) -> None:
        self.decode_safely(frame)

    @given(json_values, json_values, json_values)
    @example({"msg_id": "1", "timestamp": 10**400}, None, None)
    @example({"msg_id": "1", "timestamp": 1.5}, None, None)
    def test_documents_of_about_the_shape_give_a_message_or_a_wire_error(
        self, head: Any, route: Any, body: Any
    ) -> None:
        document = json.dumps({"header": head, "route": route, "content": body})
        self.decode_safely(document)
        self.decode_safely(document.encode(errors="surrogatepass"))

    @given(st.integers(0, 2000), st.sampled_from(["[", '{"a":', '{"header":{"msg_id":"1"},"content":[']))
    def test_nesting_gives_a_message_or_a_wire_error(self, depth: int, opening: str) -> None:
        self.decode_safely(opening * depth)

    @given(messages)
    def test_what_is_encoded_is_decoded_to_the_same(self, sent: Message) -> None:
        frame = encode(sent)
        assert decode(frame) == sent
        assert decode(frame.encode()) == sent

    @staticmethod
    def decode_safely(frame: str | bytes) -> None:
        try:
            message = decode(frame)
        except WireError as error:
            problem = str(error)
        else:
            # What came in can be sent on.
            problem = ""
            encode(message).encode()
        assert len(problem) < 400


class TestResources:
    def test_job_and_node_come_back_whatever_they_are_called(self) -> None:
        for job, node in (("a", "b"), ("node", "node"), ("imageprepulljob", "x.y-z"), ("j" * 253, "n" * 253)):
            assert parse_task_resource(task_resource(job, node)) == (job, node)

    @given(st.text(max_size=300))
    @example("operations.kubeedge.io/v1alpha2/imageprepulljob/a/node/b/c")
    @example("operations.kubeedge.io/v1alpha2/imageprepulljob/a/node/b\n")
    @example("operations_kubeedge.io/v1alpha2/imageprepulljob/a/node/b")
    @example("operations.kubeedge.io/v1alpha2/imageprepulljob//node/b")
    def test_another_resource_is_a_wire_error(self, resource: str) -> None:
        with pytest.raises(WireError):
            parse_task_resource(resource)


def _progress(**values: Any) -> Progress:
    return Progress.model_validate({"job_uid": "u", "attempt": 1, "done_images": 0, "total_images": 1, **values})


class TestBounds:
    @pytest.mark.parametrize(
        "build",
        [
            lambda: PullTemplate(images=[]),
            lambda: PullTemplate(images=["a"] * 1001),
            lambda: PullTemplate(images=["a"], retryTimes=-1),
            lambda: TaskExtras(job_uid="u", attempt=0, timeout_seconds=1),
            lambda: TaskExtras(job_uid="u", attempt=1, timeout_seconds=0),
            lambda: Cancel(job_uid="u", attempt=0),
            lambda: Report(action="x" * 257, succ=True),
            lambda: NodeInfo(osImage="x" * 257),
            lambda: _progress(attempt=0),
            lambda: _progress(job_uid="u" * 257),
            lambda: _progress(total_images=0),
            lambda: _progress(total_images=1001),
            lambda: _progress(done_images=2),
            lambda: _progress(done_images=-1),
            lambda: _progress(done_bytes=2, total_bytes=1),
            lambda: _progress(done_bytes=1 << 53),
            lambda: _progress(total_bytes=1 << 53),
        ],
    )
    def test_what_is_out_of_bounds_is_refused(self, build: Any) -> None:
        with pytest.raises(ValueError, match="validation error"):
            build()

    def test_progress_may_lack_a_total(self) -> None:
        assert _progress(done_bytes=(1 << 53) - 1).total_bytes == 0

    def test_no_repr_shows_a_secret(self) -> None:
        credential = Credential(registry="r.example", username="user", password="hunter2", identity_token="hunter3")
        extras = TaskExtras(job_uid="u", attempt=1, timeout_seconds=1, credentials={"a": credential})
        for thing in (credential, extras, Dispatch(imagePrePullTemplate=PullTemplate(images=["a"]), task=extras)):
            assert "hunter" not in repr(thing)
            assert "hunter" not in str(thing)


class TestFeatures:
    @given(st.text(max_size=64).filter(lambda name: name.strip() not in set(Feature) and "," not in name))
    def test_names_that_we_do_not_know_mean_nothing(self, name: str) -> None:
        assert parse_features(f"{name},ack,{name}") == {Feature.ACK}

    def test_a_header_is_read_with_or_without_blanks(self) -> None:
        assert parse_features("ack, cancel ,credentials,progress,teleport") == frozenset(Feature)
        assert parse_features("") == frozenset()
        assert parse_features("x" * 5000 + ",ack") == frozenset()


def test_times_are_rfc3339_in_utc_to_the_second() -> None:
    moment = datetime(2026, 11, 22, 23, 0, 0, 999_999, timezone(timedelta(hours=8)))
    assert rfc3339(moment) == "2026-11-22T15:00:00Z"
