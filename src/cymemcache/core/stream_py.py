"""What has arrived on one connection and is not parsed yet, pure: bytes in, lines and values out.

Bytes come in through `get_buffer` and `buffer_updated`, which is what `socket.recv_into` and
`asyncio.BufferedProtocol` both speak, or through `feed`.  Nothing in here knows what a reply is.
Memory must never grow with what a size line promises, only with what has arrived.
"""

from __future__ import annotations

from . import replies
from .replies import MAX_LINE_LENGTH, MAX_VALUE_SIZE, protocol_error, too_large_error

_BUFFER_SIZE = 1 << 16  # what one receive can take
_DIRECT_SIZE = 1 << 15  # larger values are received into a buffer of their own
_FIRST_TARGET = 1 << 20  # what is set aside for a value of which little has arrived

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
        self._handed: bytearray | None = None  # what the last get_buffer gave a view of
        self._handed_size = 0
        # The value that is being received into a buffer of its own.
        self._target: bytearray | None = None
        self._filled = 0
        self._size = -1  # of the value whose data comes next, -1 where a line comes next
        self._value_flags = 0

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Writable memory for the next bytes from the server; follow with `buffer_updated`."""
        target = self._target
        if target is not None and self._filled < self._size:
            if self._filled == len(target):
                more = min(self._size - self._filled, self._filled)
                self._target = target = target + bytes(more)
            self._handed = target
            self._handed_size = len(target) - self._filled
            return memoryview(target)[self._filled :]
        scratch = self._scratch
        if scratch is None:
            self._scratch = scratch = bytearray(_BUFFER_SIZE)
        self._handed = scratch
        self._handed_size = _BUFFER_SIZE
        return memoryview(scratch)

    def buffer_updated(self, nbytes: int) -> None:
        """Take the first `nbytes` of what `get_buffer` gave."""
        handed = self._handed
        if handed is None or not 0 <= nbytes <= self._handed_size:
            raise ValueError(f"buffer_updated({nbytes}) without a buffer of that size")
        self._handed = None
        if handed is self._target:
            self._filled += nbytes
            return
        new = bytes(memoryview(handed)[:nbytes])
        self._data = self._data[self._pos :] + new if self._pos < len(self._data) else new
        self._pos = 0

    def feed(self, data: bytes) -> None:
        """Take `data`, which was received without `get_buffer`."""
        if self._target is None:
            pos = self._pos
            self._data = self._data[pos:] + data if pos < len(self._data) else data
            self._pos = 0
            return
        with memoryview(data) as rest:
            start = 0
            while start < len(rest):
                with self.get_buffer() as room:
                    count = min(len(room), len(rest) - start)
                    room[:count] = rest[start : start + count]
                self.buffer_updated(count)
                start += count

    @property
    def wants_buffer(self) -> bool:
        """Whether a large value is under way: what comes is best received into `get_buffer`."""
        return self._target is not None and self._filled < self._size

    @property
    def pending(self) -> int:
        """Bytes that have arrived and belong to no reply parsed so far."""
        return len(self._data) - self._pos + (self._filled if self._target is not None else 0)

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
            self._filled = arrived = len(self._data) - self._pos
            self._target = bytearray(max(arrived, min(number, _FIRST_TARGET)))
            self._target[:arrived] = memoryview(self._data)[self._pos :]
            self._data = b""
            self._pos = 0

    def _value(self, request: bytes) -> bytes | None:
        """The announced value, None where it or the line end after it has not arrived whole."""
        size = self._size
        if self._target is None:
            end = self._pos + size
            if len(self._data) < end + 2:
                return None
            value = self._data[self._pos : end]
            self._pos = end
        else:
            if self._filled < size or len(self._data) - self._pos < 2:
                return None
            value = bytes(self._target)
            self._target = None
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
