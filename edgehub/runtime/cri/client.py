"""The gRPC side of CRI: one channel to the runtime's socket, one typed call at a time.

Problem: gRPC's channel reconnects by a backoff of its own that grows to minutes, and meanwhile fails every call with
the words of a connection attempt of long ago; a runtime that is back would go unnoticed.

Guarantee: a call is sent over a connection that stands. If there is none, the socket is tried directly, so that a
runtime that is away is told at once and in the system's words, and one that is back is met at the next call: the
channel's backoff is a third of a second at most, and a call waits for it. Cancelling the task that awaits `call`
cancels the RPC. No asyncio loop is touched before the first call.

Not here: what an answer or an error means. Failures leave as `CallFailed`, codes by name.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast
from urllib.parse import quote

import grpc
import grpc.aio
from google.protobuf.message import Message

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

MAX_ANSWER_BYTES: Final = 16 << 20
"""As kubelet's: a node with thousands of images answers ListImages with some MB."""

_OPTIONS: Final = (
    # Of a unix socket gRPC makes the authority of its path, percent-encoded; containerd refuses that as malformed.
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # A channel of another client to the same socket must not share its backoff with this one.
    ("grpc.use_local_subchannel_pool", 1),
)


class CallFailed(Exception):
    """An RPC did not succeed. ``code`` is the name of a `grpc.StatusCode`, ``details`` the peer's or gRPC's text."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    path: str
    request: type[Request]
    response: type[Response]


class CRIClient:
    def __init__(self, *, socket: str, connect_timeout: float = 5.0) -> None:
        self._socket = socket
        self._connect_timeout = connect_timeout
        self._channel: grpc.aio.Channel | None = None

    async def call(
        self, method: Method[Request, Response], request: Request, *, timeout: float | None = None
    ) -> Response:
        """Raises `CallFailed`. ``timeout`` in seconds, None for as long as it takes."""
        channel = await self._connected()
        rpc = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        try:
            answer = cast("Response | None", await rpc(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            raise CallFailed(error.code().name, error.details() or "") from None
        except asyncio.CancelledError:
            if _cancelled():
                raise
            # `close` ends calls under way, and gRPC tells it as if the waiting task had been cancelled.
            raise CallFailed("UNAVAILABLE", "the connection was closed") from None
        if answer is None:
            # What gRPC makes, without an error, of bytes that are no such message.
            raise CallFailed("INTERNAL", "its answer cannot be read as CRI's")
        return answer

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            # Here and not in __init__: a channel belongs to the loop that runs when it is made.
            # gRPC reads the target as a URI.
            self._channel = grpc.aio.insecure_channel(f"unix://{quote(self._socket)}", options=_OPTIONS)
        channel = self._channel
        if channel.get_state(try_to_connect=True) == grpc.ChannelConnectivity.READY:
            return channel
        await self._try_socket()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await channel.channel_ready()
        except TimeoutError:
            raise CallFailed(
                "UNAVAILABLE", f"the socket takes connections, but no gRPC within {self._connect_timeout:g} s"
            ) from None
        except grpc.aio.UsageError:
            raise CallFailed("UNAVAILABLE", "the connection was closed") from None
        return channel

    async def _try_socket(self) -> None:
        """Fails in the system's words if nobody listens."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, writer = await asyncio.open_unix_connection(self._socket)
        except TimeoutError:
            raise CallFailed("UNAVAILABLE", "the socket takes no connection") from None
        except OSError as error:
            raise CallFailed("UNAVAILABLE", f"{error.strerror or type(error).__name__}") from None
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
