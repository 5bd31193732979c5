"""The ordinary WebSocket frames, read and written without the detour through websockets' sans-IO protocol.

Nearly all that nodes send is a whole message in one short masked text frame, and all that they are sent is a text
frame. websockets' parser takes a third of what a message costs the hub, for the sake of what such a frame is not: in
pieces, in parts, too large, wrong. So a frame that is exactly ordinary is taken out of the bytes here, and every other
byte goes to the sans-IO protocol as ever, which answers pings, ends sessions, and says what is wrong.

Guarantee: what follows from a stream is the same as if the sans-IO protocol had read all of it, byte by byte. A frame
may be taken here only when that protocol stands between two frames and no message is in pieces: `Boundary` knows the
first, the caller the second.
"""

from __future__ import annotations

from typing import Final

from shared.wire import MAX_FRAME_BYTES

try:
    from websockets.speedups import apply_mask
except ImportError:  # where websockets was built without a compiler
    from websockets.utils import apply_mask

_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_HEADER: Final = 10
"""Bytes that tell a frame's length, at most; the mask comes after."""

if MAX_FRAME_BYTES < 0xFFFF:
    raise RuntimeError("frames with a length of two bytes are taken to be small enough")


def ordinary(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The text of the frame that begins ``at``, and where it ends. None when it is not all there, or anything but a
    final, masked text frame of less than 64 KiB without reserved bits."""
    size = len(data)
    if size - at < 6 or data[at] != _FINAL_TEXT:
        return None
    length = data[at + 1] - _MASKED
    if length < _TWO_BYTES:
        body = at + 6
    elif length == _TWO_BYTES and size - at >= 8:
        length = data[at + 2] << 8 | data[at + 3]
        body = at + 8
    else:
        return None
    end = body + length
    if length < 0 or end > size:
        return None
    return apply_mask(data[body:end], data[body - 4 : body]), end


def text_frame(text: bytes) -> bytes:
    """The whole frame from server to node."""
    size = len(text)
    if size < _TWO_BYTES:
        return bytes((_FINAL_TEXT, size)) + text
    if size <= 0xFFFF:
        return bytes((_FINAL_TEXT, _TWO_BYTES, size >> 8, size & 0xFF)) + text
    return bytes((_FINAL_TEXT, _EIGHT_BYTES)) + size.to_bytes(8) + text


class Boundary:
    """Where the sans-IO protocol stands: between two frames, or within one. It is fed frame by frame, as told here."""

    __slots__ = ("_head", "_owed")

    def __init__(self) -> None:
        self._head = b""
        """What has come of a header, while that is too little to tell the frame's length."""
        self._owed = 0
        """Bytes of the frame that have not come."""

    @property
    def between_frames(self) -> bool:
        return not self._owed and not self._head

    def follow(self, data: bytes, at: int) -> int:
        """Where the present frame ends, or ``data`` if that is before: the bytes up to there are fed now."""
        end = len(data)
        if not self._owed:
            head = self._head + data[at : at + _HEADER]
            size = _frame_size(head)
            if not size:
                self._head = head
                return end
            self._owed = size - len(self._head)
            self._head = b""
        stop = min(at + self._owed, end)
        self._owed -= stop - at
        return stop


def _frame_size(head: bytes) -> int:
    """Of the whole frame that begins so; 0 when that cannot be told yet."""
    if len(head) < 2:
        return 0
    length = head[1] & _LENGTH
    size = 6 if head[1] & _MASKED else 2
    if length < _TWO_BYTES:
        return size + length
    width = 2 if length == _TWO_BYTES else 8
    if len(head) < 2 + width:
        return 0
    return size + width + int.from_bytes(head[2 : 2 + width])
