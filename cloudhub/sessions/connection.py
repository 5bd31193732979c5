"""One connection of a node: the asyncio protocol between the transport and the rules.

websockets' sans-IO protocol does the WebSocket framing, but for the ordinary frames (`cloudhub.sessions.frames`),
`SessionRules` says what frames mean, and this class moves bytes. It is written on the bare transport instead of
websockets' ready-made connection for the sake of ten thousand idle sessions: no task, no queue and no timer belongs to
a session that only sends keepalives.

Guarantees:
- Messages that arrived together are handed over together: a node's reports of check and pull then share one commit.
  The owner's `messages_received` is awaited before more of this session is handed over, and reading stops while a few
  wait. Messages that arrived whole before the link broke are handed over before the session is gone.
- What a peer can make this keep is bounded: the outbox, the messages not yet handed over, one slice of undecoded bytes,
  one message of `MAX_FRAME_BYTES` in the making. Reading also stops while the peer does not read what it is sent, so
  that answering its pings cannot fill memory.
- The rate holds to the end of the link: a session that is over is read on, for the answer to the close frame, as slowly
  as one that lives. Who gets no session keeps its turn at the acceptor until its link is gone.
- Nothing of a message's content is ever logged: websockets' own logger prints frames at debug level, so it is pinned.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from cryptography import x509
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from cloudhub.sessions.frames import Boundary, ordinary, text_frame
from cloudhub.sessions.protocol import (
    Answer,
    CloseCode,
    Deliver,
    Greeting,
    HandshakeRefused,
    Ignored,
    KeptAlive,
    SessionRules,
)
from shared.wire import HEADER_FEATURES, MAX_FRAME_BYTES, Feature, Message, encode_bytes
from shared.x509 import UNREADABLE

if TYPE_CHECKING:
    from cloudhub.sessions.outbox import Outbox
    from cloudhub.sessions.owner import Owner
    from cloudhub.taskmanager.ports import SessionInfo

FEED_SLICE: Final = 16 * 1024
"""How much is read and decoded before the bounds are looked at again."""
INBOX_HIGH: Final = 16
"""Messages not yet handed over at which reading stops."""
INBOX_BYTES: Final = 256 * 1024
"""Of their frames, at which it stops too: read, a frame of many small parts takes 25 times its size."""
MAX_CLOSE_REASON: Final = 120
"""Bytes; a close frame holds 123."""
WRITE_HIGH: Final = 32 * 1024
FEATURES_OFFERED: Final = ",".join(Feature)

log = structlog.get_logger(__name__)
_websockets_log = logging.getLogger("cloudhub.sessions.websockets")
_websockets_log.setLevel(logging.WARNING)


class NodeConnection(asyncio.BufferedProtocol):
    """From the end of the TLS handshake to the loss of the link."""

    __slots__ = (
        "_boundary",
        "_handshaken",
        "_held",
        "_inbox",
        "_inbox_bytes",
        "_lost",
        "_outbox",
        "_owner",
        "_partial",
        "_predecessor",
        "_pump_task",
        "_reading_paused",
        "_rules",
        "_transport",
        "_write_paused",
        "_ws",
        "info",
        "is_open",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._ws = ServerProtocol(max_size=MAX_FRAME_BYTES, logger=_websockets_log)
        self._boundary = Boundary()
        self._transport: asyncio.Transport | None = None
        self._rules: SessionRules | None = None
        self._outbox: Outbox | None = None
        self._inbox: list[Message] = []
        self._inbox_bytes = 0
        self._partial: bytearray | None = None
        self._held: bytes = b""
        self._pump_task: asyncio.Task[None] | None = None
        self._predecessor: asyncio.Task[None] | None = None
        self._reading_paused = False
        self._write_paused = False
        self._lost = False
        self.is_open = False
        """The session lives: it may be sent to, and what it sends counts."""
        self.info: SessionInfo
        self._handshaken: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        """The link is gone, all that it brought has been handed over, and the owner knows that the session has ended,
        if there was one."""
        return self._lost and self._pump_task is None and self._outbox is None

    @property
    def pump_task(self) -> asyncio.Task[None] | None:
        """The task that hands over messages, while there are some."""
        return self._pump_task

    def begin(
        self, *, info: SessionInfo, rules: SessionRules, outbox: Outbox, predecessor: asyncio.Task[None] | None
    ) -> None:
        """The owner accepted the handshake. ``predecessor`` still hands over what the node's last session received;
        this one's messages come after those."""
        self.info = info
        self._rules = rules
        self._outbox = outbox
        self._predecessor = predecessor
        self.is_open = True

    # --- What the owner asks for ----------------------------------------------------------------------------------

    def send(self, frame: bytes) -> bool:
        """Sends ``frame``, or queues it until it may be sent. False when there is no room."""
        outbox = self._outbox
        if not self.is_open or outbox is None:
            return False
        if not self._write_paused and outbox.may_pass(frame, self._owner.now):
            self._write(text_frame(frame))
            return True
        if not outbox.put(frame):
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Sends what waits, as far as the link and the pace allow."""
        if self._outbox is None:
            return
        while len(self._outbox) and not self._write_paused and self.is_open:
            frame = self._outbox.take(self._owner.now)
            if frame is None:
                self._owner.paced(self)
                return
            self._write(text_frame(frame))

    def time_passed(self) -> None:
        """A limit of this session may have been reached, or reading may go on."""
        if self._rules is None:
            return
        close = self._rules.time_passed(self._owner.now) if self.is_open else None
        if close is not None:
            self.close(close.code, close.reason, close.label)
        else:
            self._go_on_reading()

    def close(self, code: int, reason: str, label: str) -> None:
        """Ends the session with a close frame. The link is given a moment to answer, then it is cut."""
        self._end_rules()
        if self._ws.state is State.OPEN:
            self._ws.send_close(code, reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore"))
            self._write_out()
        self._end(label, reason)
        # The peer's answer to the close frame may lie behind what was not read.
        self._held = b""
        self._resume_transport()

    # --- Guest of the acceptor ------------------------------------------------------------------------------------

    @property
    def protocol(self) -> asyncio.BaseProtocol:
        return self

    async def settled(self) -> None:
        """Returns when the session is open, or the link of a peer that gets none is gone."""
        if self._handshaken is not None:
            await self._handshaken

    def abandon(self) -> None:
        self._handshaken = None
        self.abort()
        self._owner.abandoned(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.BufferedProtocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are asyncio.Transport by shape, not by class.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_HIGH // 4)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._owner.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._owner.read_buffer[:nbytes])
        if self._held:
            self._held += data
        elif self._blocked():
            # Transports may deliver once more after they were told to stop.
            self._held = data
        else:
            self._feed(data)
            if self._blocked():
                self._stop_reading()

    def eof_received(self) -> bool:
        """Like a link that is lost: who leaves in order says so by a close frame. TLS closes it, sooner or later."""
        self._break("connection lost")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._settle_handshake()
        self._break("connection lost" if exc is None else f"connection lost: {type(exc).__name__}")

    def _break(self, reason: str) -> None:
        """Only what cannot wait: when ten thousand links break at once, uvloop tells of all of them in one turn of the
        loop. The owner goes on with `attend_loss`, of a few in each turn; TLS is kept until then, for to free it takes
        longer than all the rest."""
        self.is_open = False
        self._held = b""
        self._owner.link_lost(self, reason)

    def attend_loss(self, reason: str) -> None:
        self._ws.receive_eof()
        self._ws.data_to_send()
        if self._rules is not None:
            self._end_rules()
            self._end("lost", reason)
        if self._lost:
            # TLS keeps hold of this object's methods: without this, the two would be left to the garbage collector.
            self._transport = None
            self._owner.lost(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._owner.write_stalled(self)

    def resume_writing(self) -> None:
        self._write_paused = False
        self._owner.write_resumed(self)
        self.flush()
        self._go_on_reading()

    # --- Reading --------------------------------------------------------------------------------------------------

    def _blocked(self) -> bool:
        if self._write_paused:
            return True
        # Once the session is over, what comes is thrown away, up to the peer's answer to the close frame.
        return (self.is_open and self._is_inbox_full) or self._is_rate_spent

    @property
    def _is_rate_spent(self) -> bool:
        return self._rules is not None and not self._rules.may_read(self._owner.now)

    @property
    def _is_inbox_full(self) -> bool:
        return len(self._inbox) >= INBOX_HIGH or self._inbox_bytes >= INBOX_BYTES

    def _go_on_reading(self) -> None:
        """Decodes what was held back, as far as the bounds allow, then reads again."""
        while self._held and not self._blocked():
            data, self._held = self._held[:FEED_SLICE], self._held[FEED_SLICE:]
            self._feed(data)
        if self._blocked():
            self._stop_reading()
        else:
            self._resume_transport()

    def _stop_reading(self) -> None:
        if self._lost or self._transport is None:
            return
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        # The rate is mended by time alone, so the timer must look again; the other two by the events that end them.
        if not self._write_paused and not (self.is_open and self._is_inbox_full):
            self._owner.paced(self)

    def _resume_transport(self) -> None:
        if self._reading_paused and not self._lost and self._transport is not None:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        # After its own end of the stream the protocol throws everything away; the link is being closed.
        while at < end and not self._ws.eof_sent and not self._ws.reader.eof:
            if self._ws.state is State.CONNECTING:
                # By lines, so that it is known where the first frame begins.
                stop = data.find(b"\n", at) + 1 or end
            else:
                at = self._take_ordinary(data, at)
                if at < end and self._is_rate_spent:
                    # Before the end of the slice: thousands of pings or empty pieces of a message fit into one.
                    self._held = data[at:] + self._held
                    return
                stop = self._boundary.follow(data, at) if at < end else at
            if at < stop:
                self._ws.receive_data(data[at:stop])
                self._after_feed()
                at = stop

    def _take_ordinary(self, data: bytes, at: int) -> int:
        """Reads what need not go through the sans-IO protocol, and returns where that begins which must."""
        rules = self._rules
        if rules is None or self._partial is not None or not self._boundary.between_frames:
            return at
        # A message may end the session; what comes after it is not read, but for the answer to the close frame.
        while self.is_open and (found := ordinary(data, at)) is not None:
            text, at = found
            rules.frame_arrived(len(text), self._owner.now)
            self._on_message(text)
        return at

    def _after_feed(self) -> None:
        events = self._ws.events_received()
        self._write_out()
        for event in events:
            if isinstance(event, Frame):
                self._on_frame(event)
            elif isinstance(event, Request):
                self._on_request(event)
        state = self._ws.state
        if state is not State.OPEN and state is not State.CONNECTING:
            self._on_peer_closed()

    def _on_peer_closed(self) -> None:
        if self._rules is None:
            return
        self._end_rules()
        problem = self._ws.parser_exc
        if problem is None:
            self._end("closed", "closed by the node")
        elif isinstance(problem, PayloadTooBig):
            self._end("oversized", str(problem))
        else:
            self._end("protocol", f"{type(problem).__name__}: {problem}"[:200])

    def _on_request(self, request: Request) -> None:
        response = self._ws.accept(request)
        greeting: Greeting | None = None
        if response.status_code == 101:
            try:
                greeting = self._owner.greet(request, self._peer_certificate())
            except HandshakeRefused as refused:
                response = self._ws.reject(refused.status, f"{refused}\n")
        if greeting is not None:
            response.headers[HEADER_FEATURES] = FEATURES_OFFERED
        self._ws.send_response(response)
        self._write_out()
        if greeting is not None:
            self._owner.opened(self, greeting)
            self._settle_handshake()

    def _peer_certificate(self) -> x509.Certificate | None:
        ssl_object: Any = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
        try:
            return x509.load_der_x509_certificate(der) if der else None
        except UNREADABLE:
            raise HandshakeRefused(401, "certificate", "client certificate cannot be read") from None

    def _on_frame(self, frame: Frame) -> None:
        if self._rules is not None:
            self._rules.frame_arrived(len(frame.data), self._owner.now, continued=frame.opcode is Opcode.CONT)
        if not self.is_open:
            return
        if frame.opcode is Opcode.CONT:
            if self._partial is None:
                return
            self._partial += frame.data
            if frame.fin:
                whole, self._partial = bytes(self._partial), None
                self._on_message(whole)
        elif frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            if frame.fin:
                self._on_message(frame.data)
            else:
                self._partial = bytearray(frame.data)

    def _on_message(self, data: bytes | bytearray | memoryview) -> None:
        if self._rules is None:
            return
        event = self._rules.receive(data if isinstance(data, bytes) else bytes(data), self._owner.now)
        # The two that make up nearly all traffic come first.
        if isinstance(event, KeptAlive):
            self._owner.kept_alive(self)
        elif isinstance(event, Deliver):
            self._inbox.append(event.message)
            self._inbox_bytes += len(data)
            if self._pump_task is None:
                self._pump_task = asyncio.get_running_loop().create_task(
                    self._pump(), name=f"session-messages-{self.info.node}"
                )
        elif isinstance(event, Answer):
            self.send(encode_bytes(event.message))
        elif isinstance(event, Ignored):
            self._owner.ignored(event.operation)
        else:
            self.close(event.code, event.reason, event.label)

    async def _pump(self) -> None:
        """Hands over what arrived; ends when there is nothing left."""
        try:
            if self._predecessor is not None:
                await asyncio.wait((self._predecessor,))
                self._predecessor = None
            while self._inbox:
                # They stay in the inbox meanwhile: what waits for its commit is bounded like what waits for its turn.
                messages, size = tuple(self._inbox), self._inbox_bytes
                try:
                    await self._owner.messages_received(self.info, messages)
                except Exception:
                    log.exception("message handling failed", node=self.info.node)
                    self.close(CloseCode.INTERNAL_ERROR, "internal error", "internal")
                del self._inbox[: len(messages)]
                self._inbox_bytes -= size
                if self._reading_paused and self.is_open:
                    self._go_on_reading()
        finally:
            self._pump_task = None
            if self._outbox is None:
                self._owner.gone(self)
            if self._lost:
                self._owner.lost(self)

    # --- Writing and ending ---------------------------------------------------------------------------------------

    def _write_out(self) -> None:
        chunks = self._ws.data_to_send()
        if not chunks or self._lost or self._transport is None:
            return
        end = chunks[-1] == b""
        self._write(b"".join(chunks))
        if end:
            # The empty chunk asks for a half-close, which TLS does not have. Closing sends what is buffered first; the
            # owner cuts the link if that takes too long.
            self._owner.closing(self)
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if data and not self._lost and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end_rules(self) -> None:
        self.is_open = False
        if self._rules is not None:
            self._rules.end()

    def _end(self, label: str, reason: str) -> None:
        """The session is over. Idempotent."""
        if self._rules is None or self._outbox is None:
            return
        self._outbox = None
        self._partial = None
        if not self._lost:
            self._owner.closing(self)
        self._owner.ended(self, label, reason)
        if self._pump_task is None:
            self._owner.gone(self)

    def _settle_handshake(self) -> None:
        if self._handshaken is not None:
            if not self._handshaken.done():
                self._handshaken.set_result(None)
            self._handshaken = None
