"""What is sent for an expire that does not go out as it is.

The protocol takes up to 30 days for a span of time, and anything above for a UNIX time: a longer
span would lie in the 1970s, and the item be gone at once.  Such spans become UNIX times here, and
so do the standard library's own spans and times.  Nothing in here is on the way of an `expire`
that is sent as it was given.
"""

from __future__ import annotations

import sys
from math import ceil

from . import arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: Above it a number is no span of time to the server.
LONGEST_SPAN = 30 * 24 * 60 * 60
#: From it on a number is a UNIX time to us: it is one of the year 2001.
FIRST_TIME = 1_000_000_000
#: In January 2038: the protocol has no later time.
LAST_TIME = arguments.INT32_MAX


def exptime(value: Any, clock: Callable[[], float]) -> int:
    """The exptime for `value`: seconds, a UNIX time, a timedelta or an aware datetime.

    `clock` gives UNIX time.  Whatever ends at once is -1, whatever ends after `LAST_TIME` ends
    then.  Raises `MemcacheIllegalInputError`, and `TypeError` for a datetime without a time zone.
    """
    return _moment("expire", value, arguments.INT32_MIN, -1, clock)


def delay(value: Any, clock: Callable[[], float]) -> int:
    """The same for the delay of a flush_all, which cannot be negative: at once is 0."""
    return _moment("delay", value, 0, 0, clock)


def _moment(name: str, value: Any, least: int, at_once: int, clock: Callable[[], float]) -> int:
    if not isinstance(value, int):
        seconds = _seconds(name, value, clock)
        return at_once if seconds <= 0 else seconds
    number = int.__index__(value)  # whatever a subclass says that it is
    if not least <= number <= LAST_TIME:
        raise arguments.range_error(name, least, LAST_TIME)
    if LONGEST_SPAN < number < FIRST_TIME:
        return _from_now(number, clock)
    return number


def _seconds(name: str, value: Any, clock: Callable[[], float]) -> int:
    """What a timedelta or datetime stands for; 0 or less where that is over."""
    # Where there is one of these objects, their module has been imported.
    datetime = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.timedelta):
        span = ceil(value.total_seconds())  # a part of a second is not "never", which 0 is
        return _from_now(span, clock) if span > LONGEST_SPAN else span
    if datetime is not None and isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise arguments.naive_error(name, value)
        time = ceil(value.timestamp())
        return min(time, LAST_TIME) if time >= FIRST_TIME else 0
    raise arguments.expire_error(name, value)


def _from_now(span: int, clock: Callable[[], float]) -> int:
    return min(int(clock()) + span, LAST_TIME)
