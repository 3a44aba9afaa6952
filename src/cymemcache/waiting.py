"""Waiting for sockets: what can be waited for, and for how long.

Every deadline becomes a number for the system here, and nowhere else: `poll` counts milliseconds in
an int of C, which ends after 24.8 days, and so does a socket's own timeout.  Nothing waits for
longer than `LONGEST` at once; with `poll` it waits again as long as the deadline has not come.
"""

from __future__ import annotations

import select
from time import monotonic

from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a command in steps waits for, as poll has it (which Windows has not).
READABLE = getattr(select, "POLLIN", 1)
WRITABLE = getattr(select, "POLLOUT", 4)

LONGEST = 2e6  # seconds of one wait: 23 days


def would_block(error: Exception) -> bool:
    """Whether a socket without a timeout says no more than that it has to be waited for."""
    if is_interruption(error):
        return False
    # By name: ssl is not loaded where nobody uses it.
    return isinstance(error, BlockingIOError) or type(error).__name__ in (
        "SSLWantReadError",
        "SSLWantWriteError",
    )


def milliseconds(until: float | None) -> int | None:
    """What `poll` is given to wait until then, on the clock of `time.monotonic`; None: any time."""
    if until is None:
        return None
    # Rounded up: a poll that ends early would only be asked again.
    return int(min(max(until - monotonic(), 0.0), LONGEST) * 1000) + 1


def bounded(seconds: float | None) -> float | None:
    """`seconds` as a socket's own timeout can have it; None: any time."""
    return None if seconds is None else min(seconds, LONGEST)


def wait(sock: Any, events: int, until: float | None) -> int:
    """What poll says of `sock` (None: there is nothing but the time): 0 once it is `until`."""
    poll = select.poll()
    if sock is not None:
        poll.register(sock.fileno(), events)
    while True:
        ready = poll.poll(milliseconds(until))
        if ready:
            return ready[0][1]
        if until is not None and monotonic() >= until:
            return 0
