"""What memcached makes of bytes: the commands that it reads in them, one or more or none."""

from __future__ import annotations

from collections.abc import Iterator

_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1


class NotACommand(Exception):
    """The server would answer this with an error, or wait for more."""


def commands_in(stream: bytes) -> Iterator[list[bytes]]:
    """The commands that memcached reads in `stream`: their words, a value as the last one."""
    at = 0
    while at < len(stream):
        end = stream.find(b"\n", at)
        if end < 0:
            raise NotACommand(stream[at:])
        line = stream[at:end].removesuffix(b"\r")
        words = [word for word in line.split(b" ") if word]
        at = end + 1
        if not words:
            raise NotACommand(line)
        if words[0] in (b"set", b"add", b"replace", b"append", b"prepend", b"cas"):
            verb, key, *numbers = words
            silent = numbers[-1:] == [b"noreply"]
            numbers = numbers[: len(numbers) - silent]
            if len(numbers) != (4 if verb == b"cas" else 3) or len(key) > 250:
                raise NotACommand(line)
            flags, exptime, size, *cas = map(int, numbers)
            # What it parses them into; beyond, it reads the value as commands.
            legal = 0 <= flags <= _UINT32 and _INT32_MIN <= exptime <= _INT32_MAX
            legal = (
                legal and 0 <= size <= _INT32_MAX - 2 and all(0 <= one <= _UINT64 for one in cas)
            )
            value = stream[at : at + size]
            if not legal or stream[at + size : at + size + 2] != b"\r\n":
                raise NotACommand(line)
            at += size + 2
            words.append(value)
        yield words
