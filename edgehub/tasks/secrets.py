"""Credentials of a task: those that came with it, or, under a CloudCore, those of the Secret that it names.

A CloudCore sends a Secret's name alone, and the node asks for it through its session, as EdgeCore does: a ``query``
for ``<namespace>/secret/<name>``, answered by a ``response`` with the whole Secret, which wants an acknowledgement, or
by an ``error`` with a text (facts: KubeEdge's ``edge/pkg/metamanager``). What EdgeCore then makes of it is another
matter: it reads the Secret as one flat credential, so one that kubectl made stays without effect there. Here it is read
by kubelet's rules, and each registry gets its own credential and no other.

Guarantee: one question a task, however many images wait for it; it is asked again, three times in all, when no answer
comes within the query's time or the session breaks; an answer that is an error, or no registry credential, ends the
task's images with that reason. Nothing is kept when the task has ended, so a Secret that changes holds from the next
task on. No error repeats anything of the Secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any, Final

import structlog

from edgehub.link.connection import Channel
from edgehub.link.errors import NotConnected
from edgehub.runtime.base import ImageRuntimeError
from edgehub.tasks.live import LiveTask
from shared.credentials import DOCKER_CONFIG_JSON_TYPE, DockerConfig, InvalidDockerConfig, credentials_from_secret
from shared.images import InvalidReference, parse_reference
from shared.wire import Credential, Group, Message, Operation, Source, new_message

log = structlog.get_logger(__name__)

QUERIES: Final = 3
MAX_ERROR: Final = 300


class SecretUnavailable(ImageRuntimeError):
    """The Secret of a task cannot be had, or holds no registry credentials."""


class Credentials:
    """``query_timeout``: metaManager.remoteQueryTimeout, seconds for one answer."""

    def __init__(self, *, query_timeout: float) -> None:
        self._query_timeout = query_timeout
        self._channel: Channel | None = None
        self._up = asyncio.Event()
        self._asked: dict[str, asyncio.Future[Message]] = {}
        """By the id of the query."""

    # --- What the link tells

    def connected(self, channel: Channel) -> None:
        self._channel = channel
        self._up.set()

    def disconnected(self) -> None:
        """An answer comes on the session of its question, or not at all."""
        self._channel = None
        self._up.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NotConnected("the session ended before the answer came"))

    def answered(self, message: Message) -> bool:
        """Whether the message answers a question of ours."""
        answer = self._asked.get(message.header.parent_msg_id)
        if answer is None:
            return False
        if not answer.done():
            answer.set_result(message)
        return True

    # --- What the pulls ask

    async def credential(self, live: LiveTask, image: str) -> Credential | None:
        """Raises `SecretUnavailable`."""
        if not live.task.tracked and live.task.template.imageSecrets:
            async with live.secret_lock:
                await self._fetch(live)
        return live.credentials.get(image)

    async def _fetch(self, live: LiveTask) -> None:
        secret = live.task.template.imageSecrets
        if live.secret_error is None:
            try:
                config = await self._ask(secret)
            except SecretUnavailable as error:
                live.secret_error = str(error)
            else:
                live.credentials = _by_image(config, live.task.images)
                live.secret_error = ""
        if live.secret_error:
            raise SecretUnavailable(live.secret_error)

    async def _ask(self, secret: str) -> DockerConfig:
        namespace, slash, name = secret.partition("/")
        if not (namespace and slash and name) or "/" in name:
            raise SecretUnavailable(f"imageSecrets {secret[:128]!r} is no namespace/name")
        for left in reversed(range(QUERIES)):
            try:
                async with asyncio.timeout(self._query_timeout):
                    answer = await self._query(f"{namespace}/secret/{name}")
            except (NotConnected, TimeoutError) as error:
                reason = str(error) or f"the hub did not answer within {self._query_timeout:g} s"
                log.warning("secret not read", secret=secret[:256], reason=reason, tries_left=left)
            else:
                return _config_of(secret, answer)
        raise SecretUnavailable(f"secret {secret}: {reason}")

    async def _query(self, resource: str) -> Message:
        await self._up.wait()
        channel = self._channel
        if channel is None:
            raise NotConnected("the session has ended")
        message = new_message(
            source=Source.EDGED, group=Group.META, resource=resource, operation=Operation.QUERY, content=None
        )
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[message.header.msg_id] = answer
        try:
            await channel.send(message)
            return await answer
        finally:
            del self._asked[message.header.msg_id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # looked at, also when the send failed first


def _by_image(config: DockerConfig, images: tuple[str, ...]) -> dict[str, Credential]:
    found = {}
    for image in images:
        try:
            credential = config.best(parse_reference(image))
        except InvalidReference:
            continue  # the pull says so
        if credential is not None:
            found[image] = credential
    return found


def _config_of(secret: str, answer: Message) -> DockerConfig:
    """Raises `SecretUnavailable`."""
    content = answer.content
    if answer.route.operation == Operation.ERROR:
        raise SecretUnavailable(f"secret {secret}: the hub says: {_printable(content)}")
    if isinstance(content, dict) and isinstance(content.get("ErrStatus"), dict):
        # How CloudCore writes an error of the API server: as if it were the object.
        raise SecretUnavailable(f"secret {secret}: the hub says: {_printable(content['ErrStatus'].get('message'))}")
    try:
        return credentials_from_secret(*_type_and_data(content))
    except InvalidDockerConfig as error:
        raise SecretUnavailable(f"secret {secret}: {error}") from None


def _type_and_data(content: Any) -> tuple[str, dict[str, bytes]]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise InvalidDockerConfig("the hub's answer is no Secret with data")
    data: dict[str, bytes] = {}
    for key, value in content["data"].items():
        try:
            data[key] = base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise InvalidDockerConfig("a value of its data is no base64") from None
    # EdgeCore looks at the key alone, so Secrets of other types with this key are in use.
    given = str(content.get("type", ""))
    return (DOCKER_CONFIG_JSON_TYPE if ".dockerconfigjson" in data else given), data


def _printable(text: Any) -> str:
    if not isinstance(text, str) or not text:
        return "an error without a text"
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_ERROR]
