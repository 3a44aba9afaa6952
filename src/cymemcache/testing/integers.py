"""Integers as memcached reads them from a command line: as C's strtol does, with its oddities.

Leading whitespace and a sign are fine, what follows the digits must be whitespace, a NUL or the
end, and what exceeds 64 bits is no number.  The 32-bit kinds are cut down to their low 32 bits, so
that flags of 2**32 are stored as 0.  Newer versions read most of them by stricter rules: the whole
word, digits only.  Nothing in here may raise, whatever the bytes.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"[ \t-\r]*([+-]?)0*([0-9]{1,20})(?=[ \t-\r\0]|\Z)")

_INT64 = 1 << 63
_UINT64 = 1 << 64


def _read(text: bytes) -> tuple[bool, int] | None:
    """Whether there is a minus sign, and the number after it."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    return match[1] == b"-", int(match[2])


def unsigned64(text: bytes) -> int | None:
    """The number from 0 to 2**64-1 that `text` begins with, None where there is none."""
    if text.isdigit() and len(text) < 19:
        return int(text)
    parts = _read(text)
    if parts is None or parts[1] >= _UINT64:
        return None
    number = -parts[1] % _UINT64 if parts[0] else parts[1]
    if number >= _INT64 and b"-" in text.partition(b"\0")[0]:
        return None
    return number


def unsigned32(text: bytes) -> int | None:
    """The low 32 bits of the unsigned number that `text` begins with, None where there is none."""
    number = unsigned64(text)
    return None if number is None else number & 0xFFFFFFFF


def signed32(text: bytes) -> int | None:
    """The low 32 bits, signed, of the number that `text` begins with, None where there is none."""
    if text.isdigit() and len(text) < 10:
        return int(text)
    parts = _read(text)
    if parts is None:
        return None
    number = -parts[1] if parts[0] else parts[1]
    if not -_INT64 <= number < _INT64:
        return None
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def strict_unsigned32(text: bytes) -> int | None:
    """The number of 32 bits that `text` is, None where it is none."""
    return _strict(text, 11, (1 << 32) - 1)


def strict_unsigned64(text: bytes) -> int | None:
    """The number of 64 bits that `text` is, None where it is none."""
    return _strict(text, 22, _UINT64 - 1)


def strict_signed32(text: bytes) -> int | None:
    """The signed number of 32 bits that `text` is, None where it is none; a minus alone is 0."""
    if len(text) > 11:
        return None
    if not text.startswith(b"-"):
        return _strict(text, 11, (1 << 31) - 1)
    number = _strict(text[1:] or b"0", 11, 1 << 31)
    return None if number is None else -number


def _strict(text: bytes, longest: int, most: int) -> int | None:
    if not text.isdigit() or len(text) > longest or int(text) > most:
        return None
    return int(text)


def real(text: bytes) -> float | None:
    """The decimal fraction that `text` is, None where it is none."""
    try:
        return float(text.decode("ascii").replace("_", "x"))
    except ValueError:
        return None
