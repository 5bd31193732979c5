"""KubeEdge's older node-task messages: operation ``prepull``, which EdgeCore speaks from v1.16 on and CloudCore sends
to nodes up to v1.20 (facts: KubeEdge's ``common/types/types.go`` and ``edge/pkg/taskmanager/v1alpha1/taskexecutor``).

Down: source and group ``taskmanager``, resource ``prepull/<job>/node/<node>``, content ``{TaskID, Type, State, Item}``;
``State`` says what to do: nothing or ``Init`` asks for a sign of life, ``Checking`` for the checks alone, ``Pulling``
for the pulls alone. Up: source ``websocket``, group ``hub``, resource ``task/<job>/node/<node>``, content
``{NodeName, State, Event, Action, Reason, Time, ExternalMessage}``, one for each message that came down.

The Go types carry no JSON tags: keys are written as the fields are named, and read without regard to case. Here they
are turned into the newer models (`Dispatch`, `Report`), so that what a task is, is said once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from shared import wire
from shared.wire import (
    MAX_FRAME_BYTES,
    MAX_REASON,
    Dispatch,
    Operation,
    PullTemplate,
    ReasonText,
    Report,
    ResourceText,
    ShortText,
    WireError,
)

OPERATION: Final = "prepull"

_JOB_AND_NODE: Final = r"/(?P<job>[-.a-z0-9]{1,253})/node/(?P<node>[-.a-z0-9]{1,253})"
_DOWN = re.compile("prepull" + _JOB_AND_NODE)
_UP = re.compile("task" + _JOB_AND_NODE)


class State(StrEnum):
    """What a message asks for."""

    INIT = "Init"
    CHECKING = "Checking"
    PULLING = "Pulling"


def resource_down(job: str, node: str) -> str:
    return f"prepull/{job}/node/{node}"


def resource_up(job: str, node: str) -> str:
    return f"task/{job}/node/{node}"


def parse_resource_down(resource: str) -> tuple[str, str]:
    """Job name and node name. Raises `WireError`."""
    return _job_and_node(_DOWN, resource)


def parse_resource_up(resource: str) -> tuple[str, str]:
    """As `parse_resource_down`, of a report."""
    return _job_and_node(_UP, resource)


def _job_and_node(pattern: re.Pattern[str], resource: str) -> tuple[str, str]:
    match = pattern.fullmatch(resource)
    if match is None:
        raise WireError(f"resource {resource[:128]!r} is no prepull task")
    return match["job"], match["node"]


def _lower_keys(value: Any) -> Any:
    return {str(key).lower(): item for key, item in value.items()} if isinstance(value, dict) else value


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


class _Go(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class _Item(_Go):
    """The union of what the states need; Go writes null for an empty list."""

    checkitem: list[ShortText] | None = Field(default=None, max_length=16)
    images: list[ResourceText] | None = Field(default=None, max_length=1000)
    secret: ResourceText = ""
    retrytimes: int = Field(default=0, ge=0, le=1000)


class _Request(_Go):
    state: ShortText = ""
    item: Annotated[_Item, BeforeValidator(_none_is_empty), BeforeValidator(_lower_keys)] = _Item()


class Request(_Go):
    """One message down, read. ``template`` has no images unless the state is ``Pulling``."""

    state: State
    check_items: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    secret: str = ""
    retry_times: int = 0

    def dispatch(self) -> tuple[Operation, Dispatch]:
        """As the newer messages say it; checks name no image, and get a place-holder that is never pulled."""
        operation = Operation.CHECK if self.state is State.CHECKING else Operation.PULL
        template = PullTemplate(
            images=list(self.images) or [NO_IMAGE],
            checkItems=list(self.check_items),
            imageSecrets=self.secret,
            retryTimes=self.retry_times,
        )
        return operation, Dispatch(imagePrePullTemplate=template)


NO_IMAGE: Final = "-"
"""Stands where the newer messages want an image and the older ones have none."""


def parse_request(content: Any) -> Request:
    """Raises `WireError` that names the field."""
    try:
        request = _Request.model_validate(_lower_keys(content))
    except ValidationError as error:
        raise WireError(wire.first_problem(error)) from None
    try:
        state = State(request.state or State.INIT)
    except ValueError:
        known = ", ".join(State)
        raise WireError(f"State: {request.state[:64]!r} is not known; it must be empty or one of {known}") from None
    images = tuple(request.item.images or ())
    if state is State.PULLING and not images:
        raise WireError("Item.Images: empty; a pull needs at least one image")
    return Request(
        state=state,
        check_items=tuple(request.item.checkitem or ()) if state is State.CHECKING else (),
        images=images if state is State.PULLING else (),
        secret=request.item.secret if state is State.PULLING else "",
        retry_times=request.item.retrytimes if state is State.PULLING else 0,
    )


def check_content(job: str, check_items: Sequence[str]) -> dict[str, Any]:
    """The content down that asks for the checks alone."""
    return {"TaskID": job, "Type": OPERATION, "State": State.CHECKING.value, "Item": {"CheckItem": list(check_items)}}


def pull_content(
    job: str, node: str, *, images: Sequence[str], secret: str, retry_times: int, check_items: Sequence[str]
) -> dict[str, Any]:
    """The content down that asks for the pulls alone; EdgeCore gets the check items here too, and passes them over."""
    item = {
        "Images": list(images),
        "NodeName": node,
        "Secret": secret,
        "RetryTimes": retry_times,
        "CheckItems": list(check_items),
    }
    return {"TaskID": job, "Type": OPERATION, "State": State.PULLING.value, "Item": item}


def response(node: str, report: Report) -> dict[str, Any]:
    """The content up. ``report.action`` is the event: ``Init``, ``Check`` or ``Pull``."""
    results = [
        {"image": image.image, "state": "Successful" if image.ok else "Failed", "reason": image.reason}
        for image in report.images()
    ]
    return {
        "NodeName": node,
        "State": "",
        "Event": report.action,
        "Action": "Success" if report.succ else "Failure",
        "Reason": report.reason,
        "Time": report.finishTime,
        "ExternalMessage": json.dumps(results) if results else "",
    }


class _Response(_Go):
    event: ShortText
    action: Annotated[str, Field(pattern="^(Success|Failure)$")]
    reason: ReasonText = ""
    time: ShortText = ""
    externalmessage: str = Field(default="", max_length=MAX_FRAME_BYTES)


class _ImageState(_Go):
    image: ResourceText
    state: ShortText = ""
    reason: ReasonText = ""


_IMAGE_STATES: Final = TypeAdapter(Annotated[list[_ImageState], Field(max_length=1000)])
_SUCCESSFUL: Final = "Successful"
_PASSED: Final = frozenset({"ok", ""})


def parse_response(content: Any) -> Report:
    """The content up as the newer messages say it; ``action`` may be ``Init`` besides, a mere sign of life. Which node
    it is of is not taken from the content but from its session. Raises `WireError` that names the field."""
    try:
        found = _Response.model_validate(_lower_keys(content))
        # Go writes null where there is no list, and EdgeCore that in the text.
        text = found.externalmessage
        states = [] if text in ("", "null") else _IMAGE_STATES.validate_json(text)
    except ValidationError as error:
        raise WireError(wire.first_problem(error)) from None
    succeeded = found.action == "Success"
    results = [{"image": one.image, "status": str(one.state == _SUCCESSFUL), "reason": one.reason} for one in states]
    try:
        return Report(
            action=found.event,
            succ=succeeded,
            finishTime=found.time,
            reason=found.reason if succeeded or found.event != "Check" else readable_check(found.reason),
            extend=json.dumps(results, ensure_ascii=False) if results else "",
        )
    except ValidationError as error:
        raise WireError(wire.first_problem(error)) from None


def readable_check(reason: str) -> str:
    """EdgeCore puts a JSON object into the reason of a failed check: by check item, ``ok`` or what is wrong. Here what
    is wrong is left of it, as people read it; any other text stays as it is."""
    try:
        results = json.loads(reason)
    except (ValueError, RecursionError):
        return reason
    if not isinstance(results, dict):
        return reason
    wrong = [f"{item}: {result}" for item, result in results.items() if str(result).strip().lower() not in _PASSED]
    return "; ".join(wrong)[:MAX_REASON] or reason
