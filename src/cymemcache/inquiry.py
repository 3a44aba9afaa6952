"""One command to one server that can be called off while it waits, from the dialling on.

Others may want the thread back that asks, and must not touch its connection: only the holder of a
connection ends it.  So the holder looks, many times a second, whether the answer is still wanted.
Sockets that cannot be polled are asked to their end, which the client's timeouts bound.
"""

from __future__ import annotations

import select
from time import monotonic

from .core.replies import NEED_DATA, Failed
from .gather import Errand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .client import Client

_LOOK_SECONDS = 0.05


class CalledOff(Exception):
    """The answer is not wanted any more."""


def inquire(
    client: Client, kind: int, request: bytes, keys: Any, is_wanted: Callable[[], bool]
) -> Any:
    """What `client` gives for `request`, which has a reply of `kind`.

    Raises `CalledOff` soon after `is_wanted` has become false, and else what a command raises.
    """
    errand = Errand(client, request, kind, keys)
    try:
        errand.start()
        while True:
            while errand.outcome is NEED_DATA:
                if errand.is_polled:
                    errand.go_on(_wait(*errand.awaited(), is_wanted))
                else:
                    errand.finish_in_turn()
            errand.end()
            if errand.outcome is not NEED_DATA:  # else it is under way again
                break
    except BaseException:
        errand.give_up()
        raise
    outcome = errand.outcome
    if type(outcome) is not Failed:
        return client._finished(kind, outcome, keys, None, None)
    error = outcome.error
    client._failures.ended(error)
    try:
        raise error
    finally:
        del error, outcome, errand  # it holds this frame


def _wait(sock: Any, events: int, until: float | None, is_wanted: Callable[[], bool]) -> int:
    """What poll says of `sock`: 0 where nothing happens before `until`."""
    poll = select.poll()
    poll.register(sock.fileno(), events)
    while is_wanted():
        left = _LOOK_SECONDS if until is None else min(until - monotonic(), _LOOK_SECONDS)
        ready = poll.poll(int(max(left, 0.0) * 1000) + 1)  # rounded up, not to look once more
        if ready:
            return ready[0][1]
        if until is not None and monotonic() >= until:
            return 0
    raise CalledOff
