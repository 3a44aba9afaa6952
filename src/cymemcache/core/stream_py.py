"""What has arrived on one connection and is not parsed yet, pure: bytes in, lines and values out.

Bytes come in through `get_buffer` and `buffer_updated`, which is what `socket.recv_into` and
`asyncio.BufferedProtocol` both speak, or through `feed`.  Nothing in here knows what a reply is.
Memory must never grow with what a size line promises, only with what has arrived.
"""

from __future__ import annotations

from . import replies
from .replies import MAX_LINE_LENGTH, MAX_VALUE_SIZE, protocol_error, too_large_error

_BUFFER_SIZE = 1 << 16  # what one receive can take
_DIRECT_SIZE = 1 << 15  # larger values are kept in the parts in which they arrive, then joined
_FEW = 1 << 12  # bytes that are no part of their own

MAX_FLAGS = (1 << 32) - 1


class ReplyStream:
    """The bytes of one connection; `max_value_size` (bytes) is the most that a value may have."""

    def __init__(self, max_value_size: int = replies.DEFAULT_MAX_VALUE_SIZE) -> None:
        if not 0 <= max_value_size <= MAX_VALUE_SIZE:
            raise ValueError(f"max_value_size must be from 0 to {MAX_VALUE_SIZE} bytes")
        self._max_value_size = max_value_size
        self._data = b""  # what has arrived and is not parsed, from _pos on
        self._pos = 0
        self._scratch: bytearray | None = None
        self._handed = False  # get_buffer has given a view of it
        # The large value under way: what of it has arrived, and how much has not.
        self._parts: list[bytes | bytearray] = []
        self._missing = 0
        self._size = -1  # of the value whose data comes next, -1 where a line comes next
        self._value_flags = 0

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Writable memory for the next bytes from the server; follow with `buffer_updated`."""
        scratch = self._scratch
        if scratch is None:
            self._scratch = scratch = bytearray(_BUFFER_SIZE)
        self._handed = True
        return memoryview(scratch)

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first `nbytes` of what `get_buffer` gave."""
        if not self._handed or self._scratch is None or not 0 <= nbytes <= _BUFFER_SIZE:
            raise ValueError(f"buffer_updated({nbytes}) without a buffer of that size")
        self._handed = False
        self.feed(bytes(memoryview(self._scratch)[:nbytes]))

    def feed(self, data: bytes) -> None:
        """Take `data`, which was received without `get_buffer`."""
        if self._missing:
            data = self._collect(data)
        pos = self._pos
        self._data = self._data[pos:] + data if pos < len(self._data) else data
        self._pos = 0

    def _collect(self, data: bytes) -> bytes:
        """Take of `data` what belongs to the large value under way; what is left."""
        part = data if len(data) <= self._missing else data[: self._missing]
        self._missing -= len(part)
        parts = self._parts
        # What trickles in must not become an object for each byte.
        if parts and len(parts[-1]) < _FEW:
            parts[-1] = bytearray(parts[-1]) if type(parts[-1]) is bytes else parts[-1]
            parts[-1] += part
        else:
            parts.append(part)
        return data[len(part) :]

    @property
    def wants_buffer(self) -> bool:
        """Whether a large value is under way, and has not arrived whole."""
        return self._missing > 0

    @property
    def pending(self) -> int:
        """Bytes that have arrived and belong to no reply parsed so far."""
        collected = self._size - self._missing if self._parts else 0
        return len(self._data) - self._pos + collected

    def _line(self, request: bytes, bare_newline: bool = False) -> bytes | None:
        """The next line without its end, None where it is not complete."""
        data = self._data
        end = data.find(b"\n", self._pos)
        length = (end if end >= 0 else len(data)) - self._pos
        if length > MAX_LINE_LENGTH:
            raise protocol_error(data[self._pos : self._pos + MAX_LINE_LENGTH], request)
        if end < 0:
            return None
        start, self._pos = self._pos, end + 1
        if end > start and data[end - 1] == 13:
            return data[start : end - 1]
        if bare_newline:
            return data[start:end]
        raise protocol_error(data[start:end], request)

    def _announce(self, flags: bytes, size: bytes, line: bytes, request: bytes) -> None:
        self._value_flags = digits(flags, 10, MAX_FLAGS)
        number = digits(size, 10, MAX_VALUE_SIZE)
        if self._value_flags < 0 or number < 0:
            raise protocol_error(line, request)
        if number > self._max_value_size:
            raise too_large_error(number, self._max_value_size)
        self._size = number
        if number > _DIRECT_SIZE and len(self._data) - self._pos < number:
            self._parts = [self._data[self._pos :]]
            self._missing = number - len(self._parts[0])
            self._data = b""
            self._pos = 0

    def _value(self, request: bytes) -> bytes | None:
        """The announced value, None where it or the line end after it has not arrived whole."""
        size = self._size
        if not self._parts:
            end = self._pos + size
            if len(self._data) < end + 2:
                return None
            value = self._data[self._pos : end]
            self._pos = end
        else:
            if self._missing or len(self._data) - self._pos < 2:
                return None
            value = b"".join(self._parts)
            self._parts = []
        if not self._data.startswith(b"\r\n", self._pos):
            raise protocol_error(self._data[self._pos : self._pos + 2], request)
        self._pos += 2
        self._size = -1
        return value


def digits(text: bytes, most: int, limit: int) -> int:
    """The number that `text` writes in ASCII digits, -1 where it is none or above `limit`."""
    if text.isdigit() and len(text) <= most:
        number = int(text)
        if number <= limit:
            return number
    return -1
