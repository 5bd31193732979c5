"""The rules of a session: who may open one, what follows from a frame, and from time. No socket, no clock."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from websockets.datastructures import Headers

from cloudhub.sessions.protocol import (
    KNOWN_OPERATIONS,
    Answer,
    Close,
    Deliver,
    Greeting,
    HandshakeRefused,
    Ignored,
    KeptAlive,
    SessionRules,
    SessionState,
    WrongState,
    check_handshake,
    may_send,
)
from shared import prepull
from shared.wire import Feature, NodeInfo, Operation, Route, encode, keepalive, new_message, task_resource

KEY = ec.generate_private_key(ec.SECP256R1())
ENDS = datetime(2030, 1, 1, tzinfo=UTC)


# What websockets lets through: visible characters, and bytes beyond ASCII as Latin-1.
HEADER_VALUES = st.text(
    st.sampled_from([*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA0, 0x100))]), max_size=60
) | st.sampled_from(["edge-1", "edge-2", "msg", '{"osImage":"\xe4"}'])


def certificate(*names: tuple[x509.ObjectIdentifier, str]) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in names])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(KEY.public_key())
    return (
        builder.serial_number(1)
        .not_valid_before(ENDS - timedelta(days=365))
        .not_valid_after(ENDS)
        .sign(KEY, hashes.SHA256())
    )


def of_node(node: str) -> x509.Certificate:
    return certificate((NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{node}"))


def greet(
    *,
    path: str = "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events",
    certificate: x509.Certificate | None = None,
    **headers: str,
) -> Greeting:
    sent = {"node_id": "edge-1", "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
    sent.update({name.replace("__", "-"): value for name, value in headers.items()})
    return check_handshake(
        path=path,
        headers=Headers({name: value for name, value in sent.items() if value != "-"}),
        certificate=certificate or of_node("edge-1"),
    )


class TestHandshake:
    def test_edgecores_request_is_accepted(self) -> None:
        shown = of_node("edge-1")
        assert greet(certificate=shown) == Greeting(
            node="edge-1",
            features=frozenset(),
            info=None,
            expires_at=ENDS.timestamp(),
            certificate=shown.serial_number,
        )

    def test_our_agents_request_tells_features_and_machine(self) -> None:
        info = json.dumps({"architecture": "arm64", "operatingSystem": "linux", "later": 1})
        greeting = greet(X__Edgehub__Features="ack,cancel", X__Edgehub__Node__Info=info)
        assert greeting.features == {Feature.ACK, Feature.CANCEL}
        assert greeting.info == NodeInfo(architecture="arm64", operatingSystem="linux")

    def test_what_a_machine_calls_itself_may_be_of_any_script(self) -> None:
        sent = json.dumps({"osImage": "Debian für Kanten"}, ensure_ascii=False).encode().decode("latin-1")
        assert greet(X__Edgehub__Node__Info=sent).info == NodeInfo(osImage="Debian für Kanten")

    @pytest.mark.parametrize(
        ("change", "status", "text"),
        [
            ({"node_id": "edge-2"}, 403, "header node_id says node 'edge-2', the certificate is of 'edge-1'"),
            ({"path": "/p/edge-2/events"}, 403, "path says node 'edge-2', the certificate is of 'edge-1'"),
            ({"path": "/p/edge-1/events?x=1"}, 404, "path is not"),
            ({"path": "/p/edge-1/events/"}, 404, "path is not"),
            ({"path": "/"}, 404, "path is not"),
            ({"path": "/p/" + "x" * 5000 + "/events"}, 404, "path is not"),
            ({"node_id": "-"}, 400, "header node_id is missing"),
            ({"ConnectionUse": "stream"}, 400, "header ConnectionUse is 'stream', not 'msg'"),
            ({"X__Edgehub__Node__Info": "{"}, 400, "header X-Edgehub-Node-Info: document"),
            ({"X__Edgehub__Node__Info": "[]"}, 400, "header X-Edgehub-Node-Info: document"),
            ({"X__Edgehub__Node__Info": json.dumps({"osImage": "x" * 300})}, 400, "osImage"),
            ({"X__Edgehub__Node__Info": json.dumps({"a": "x" * 1100})}, 400, "more than 1024"),
            ({"certificate": of_node("edge-2")}, 403, "header node_id says node 'edge-1', the certificate is of"),
        ],
    )
    def test_a_request_that_is_wrong_is_refused_with_its_reason(self, change: Any, status: int, text: str) -> None:
        with pytest.raises(HandshakeRefused) as caught:
            greet(**change)
        assert caught.value.status == status
        assert text in str(caught.value)

    @pytest.mark.parametrize(
        "names",
        [
            [],
            [(NameOID.COMMON_NAME, "system:node:edge-1")],
            [(NameOID.ORGANIZATION_NAME, "KubeEdge"), (NameOID.COMMON_NAME, "kubeedge.io")],
            [(NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "system:node:edge-1")],
            [
                (NameOID.ORGANIZATION_NAME, "system:masters"),
                (NameOID.ORGANIZATION_NAME, "system:nodes"),
                (NameOID.COMMON_NAME, "system:node:edge-1"),
            ],
            [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, "edge-1")],
            [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, "system:node:")],
            [(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, "system:node:Edge_1")],
            [
                (NameOID.ORGANIZATION_NAME, "system:nodes"),
                (NameOID.COMMON_NAME, "system:node:edge-1"),
                (NameOID.COMMON_NAME, "system:node:edge-2"),
            ],
        ],
    )
    def test_a_certificate_that_names_no_node_opens_no_session(self, names: Any) -> None:
        with pytest.raises(HandshakeRefused) as caught:
            greet(certificate=certificate(*names))
        assert (caught.value.status, caught.value.reason) == (401, "certificate")

    def test_no_certificate_opens_no_session(self) -> None:
        with pytest.raises(HandshakeRefused, match="a client certificate is required"):
            check_handshake(path="/p/edge-1/events", headers=Headers({"node_id": "edge-1"}), certificate=None)

    @pytest.mark.parametrize("name", ["node_id", "project_id", "ConnectionUse", "X-Edgehub-Features"])
    def test_a_header_that_is_there_twice_is_refused(self, name: str) -> None:
        headers = Headers({"node_id": "edge-1"})
        headers[name] = "edge-1"
        headers[name] = "edge-1"
        with pytest.raises(HandshakeRefused) as caught:
            check_handshake(path="/p/edge-1/events", headers=headers, certificate=of_node("edge-1"))
        assert caught.value.status == 400

    @given(
        path=st.text(max_size=60) | st.sampled_from(["/p/edge-1/events", "/p/edge-2/events"]),
        headers=st.lists(
            st.tuples(
                st.sampled_from(
                    ["node_id", "project_id", "ConnectionUse", "X-Edgehub-Features", "X-Edgehub-Node-Info"]
                ),
                HEADER_VALUES,
            ),
            max_size=6,
        ),
        node=st.sampled_from(["edge-1", "edge-2"]),
    )
    def test_no_request_opens_a_session_of_another_node(
        self, path: str, headers: list[tuple[str, str]], node: str
    ) -> None:
        sent = Headers()
        for name, value in headers:
            sent[name] = value
        try:
            greeting = check_handshake(path=path, headers=sent, certificate=of_node(node))
        except HandshakeRefused as refused:
            opened, status = node, refused.status
        else:
            opened, status = greeting.node, 101
        assert opened == node
        assert status in (101, 400, 403, 404)


def rules(now: float = 0.0, interval: float = 30.0, rate: float = 10.0, burst: int = 5) -> SessionRules:
    return SessionRules(now=now, keepalive_interval=interval, messages_per_second=rate, message_burst=burst)


def frame(operation: str, **more: Any) -> str:
    return encode(new_message(source="s", group="g", resource="r", operation=operation, **more))


class TestFrames:
    def test_a_report_is_for_the_owner(self) -> None:
        sent = new_message(
            source="websocket", group="hub", resource=task_resource("j", "n"), operation=Operation.REPORT, content={}
        )
        assert rules().receive(encode(sent), 1.0) == Deliver(sent)

    def test_a_query_and_answers_to_ours_are_for_the_owner(self) -> None:
        for operation in ("query", "response", "error"):
            assert isinstance(rules().receive(frame(operation), 0.0), Deliver)

    @pytest.mark.parametrize("operation", ["config", "ping", "pong"])
    def test_control_operations_are_answered_as_kubeedges_transport_does(self, operation: str) -> None:
        sent = new_message(source="websocket", group="hub", resource="x", operation=operation, content={"a": 1})
        event = rules().receive(encode(sent), 0.0)
        assert isinstance(event, Answer)
        answer = event.message
        assert answer.header.parent_msg_id == sent.header.msg_id != answer.header.msg_id
        assert answer.route.model_dump() == {**sent.route.model_dump(), "operation": "response"}
        assert answer.content == "ack"

    @pytest.mark.parametrize(
        ("operation", "label"),
        [
            ("get", "get"),
            ("insert", "insert"),
            ("Check", "Check"),
            ("Cancel", "Cancel"),
            ("", "other"),
            ("é" * 99, "other"),
        ],
    )
    def test_what_nobody_acts_on_is_ignored_under_a_label_of_ours(self, operation: str, label: str) -> None:
        session = rules()
        assert session.receive(frame(operation), 0.0) == Ignored(label)
        assert session.state is SessionState.OPEN

    @pytest.mark.parametrize("bad", ["", "{", "[]", '{"header":{}}', b"\xff"])
    def test_what_is_no_message_ends_the_session_with_a_reason(self, bad: str | bytes) -> None:
        session = rules()
        event = session.receive(bad, 0.0)
        assert isinstance(event, Close)
        assert (event.code, event.label) == (1007, "malformed")
        assert event.reason.startswith("not a message: ")
        assert session.state is SessionState.CLOSED

    def test_a_session_that_is_over_takes_no_message(self) -> None:
        session = rules()
        session.end()
        with pytest.raises(WrongState, match="closed"):
            session.receive(frame("get"), 0.0)
        with pytest.raises(WrongState, match="closed"):
            session.time_passed(0.0)


class TestTime:
    def test_a_session_without_keepalive_ends_after_the_interval_and_not_before(self) -> None:
        session = rules(now=5.0)
        assert session.time_passed(35.0) is None
        close = session.time_passed(35.1)
        assert close == Close(1008, "no keepalive for more than 30 seconds", "keepalive")

    def test_only_keepalives_count(self) -> None:
        session = rules()
        assert isinstance(session.receive(encode(keepalive()), 20.0), KeptAlive)
        session.receive(frame("query"), 40.0)
        session.receive(frame("ping"), 40.0)
        assert session.time_passed(50.0) is None
        assert session.time_passed(50.5) is not None

    def test_reading_is_delayed_when_the_rate_is_exceeded_and_debts_are_worked_off(self) -> None:
        session = rules(rate=10.0, burst=5)
        for _ in range(25):
            session.frame_arrived(10, 0.0)
        assert not session.may_read(0.0)
        assert not session.may_read(2.0)
        assert session.may_read(2.2)

    def test_large_messages_cost_more_than_small_ones(self) -> None:
        session = rules(rate=10.0, burst=5)
        session.frame_arrived(1 << 20, 0.0)
        assert not session.may_read(5.0)
        assert session.may_read(6.3)

    def test_a_message_in_small_pieces_costs_little_more_than_a_whole_one(self) -> None:
        # Go's WebSocket cuts a message into frames of 4 KiB.
        session = rules(rate=10.0, burst=5)
        session.frame_arrived(4096, 0.0)
        for _ in range(7):
            session.frame_arrived(4096, 0.0, continued=True)
        assert session.may_read(0.0)

    def test_pieces_that_carry_next_to_nothing_cost_what_messages_cost(self) -> None:
        session = rules(rate=10.0, burst=5)
        session.frame_arrived(0, 0.0)
        for _ in range(4):
            session.frame_arrived(1, 0.0, continued=True)
        assert not session.may_read(0.0)


class SessionMachine(RuleBasedStateMachine):
    """No sequence of frames and times keeps a silent node's session, ends a living one's, or outruns the rate."""

    INTERVAL = 30.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.session = rules(rate=2.0, burst=4)
        self.last_keepalive = 0.0
        self.read = 0
        self.malformed = False
        self.timed_out = False

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.session.state is SessionState.OPEN:
            self.timed_out = self.session.time_passed(self.now) is not None
            assert self.timed_out == (self.last_keepalive < self.now - self.INTERVAL)

    @rule(operation=st.sampled_from(["keepalive", "query", "ping", "insert", "nonsense"]))
    def message(self, operation: str) -> None:
        if self._reads():
            event = self.session.receive(frame(operation), self.now)
            assert not isinstance(event, Close)
            if operation == "keepalive":
                self.last_keepalive = self.now

    @rule(junk=st.sampled_from(["", "{", '{"header":1}']))
    def junk(self, junk: str) -> None:
        if self._reads():
            self.malformed = isinstance(self.session.receive(junk, self.now), Close)
            assert self.malformed

    def _reads(self) -> bool:
        if self.session.state is not SessionState.OPEN or not self.session.may_read(self.now):
            return False
        self.session.frame_arrived(0, self.now)
        self.read += 1
        return True

    @invariant()
    def it_is_closed_for_a_reason(self) -> None:
        assert (self.session.state is SessionState.CLOSED) == (self.malformed or self.timed_out)

    @invariant()
    def the_rate_holds(self) -> None:
        assert self.read <= 4 + 2.0 * self.now + 1e-6


SessionMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestSessionMachine = SessionMachine.TestCase


def down(operation: str, resource: str = "r", group: str = "taskmanager") -> Route:
    return Route(source="taskmanager", group=group, operation=operation, resource=resource)


V1ALPHA2 = task_resource("job", "n")
V1ALPHA1 = prepull.resource_down("job", "n")


class TestFeatures:
    @pytest.mark.parametrize(
        ("operation", "feature"), [(Operation.ACK, Feature.ACK), (Operation.CANCEL, Feature.CANCEL)]
    )
    def test_operations_of_ours_go_only_to_nodes_that_announced_them(
        self, operation: Operation, feature: Feature
    ) -> None:
        assert may_send(down(operation, V1ALPHA2), frozenset({feature}))
        assert not may_send(down(operation, V1ALPHA2), frozenset(Feature) - {feature})
        assert not may_send(down(operation, V1ALPHA2), frozenset())

    @pytest.mark.parametrize(
        "route",
        [
            down("Check", V1ALPHA2),
            down("Pull", V1ALPHA2),
            down("prepull", V1ALPHA1),
            down("response", "default/secret/s", "resource"),
            down("error", "default/secret/s", "resource"),
            down("update", "default/secret/s", "resource"),
        ],
    )
    def test_what_an_edgecore_understands_goes_to_every_node(self, route: Route) -> None:
        assert may_send(route, frozenset())
        assert may_send(route, frozenset(Feature))

    @given(
        st.sampled_from([*Operation, *KNOWN_OPERATIONS, "Upgrade", "check", ""]) | st.text(max_size=10),
        st.sampled_from([V1ALPHA2, V1ALPHA1, "default/secret/s", "", "node/n", "upgrade/job/node/n"]),
        st.sampled_from(["taskmanager", "resource", "hub", "meta", ""]),
    )
    def test_nothing_else_is_ever_sent_to_an_edgecore(self, operation: str, resource: str, group: str) -> None:
        sent = may_send(down(operation, resource, group), frozenset())
        assert sent == (
            (group == "taskmanager" and resource == V1ALPHA2 and operation in ("Check", "Pull"))
            or (group == "taskmanager" and resource == V1ALPHA1 and operation == "prepull")
            or (group == "resource" and operation in ("response", "error", "update"))
        )
