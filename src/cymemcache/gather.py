"""Several commands under way on several connections at once: the time of the slowest, not the sum.

`gather` takes exchanges on which a command was begun and gives the outcome of each.  Plain ones are
waited for in one compiled poll loop; other sockets of the standard library are polled here; those
of other socket modules, which must not be polled, are read in turn.  One that is slow or fails must
never cost another its reply.
"""

from __future__ import annotations

from time import monotonic

from .core import PlainExchange
from .core import gather as gather_plain
from .core.replies import NEED_DATA, Failed, timeout_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .exchange import AnyExchange, Exchange

# Seconds that a connection may still take when another has used up the time: what it is asked for
# has arrived by then, or comes too late.
_GRACE = 0.01


def gather(exchanges: Sequence[Exchange], timeout: float | None) -> list[Any]:
    """The outcomes of the commands begun on `exchanges`, within `timeout` seconds for all.

    In the order of `exchanges`: the result, or a `Failed` with the error after which that exchange
    must be discarded.
    """
    until = None if timeout is None else monotonic() + timeout
    outcomes: list[Any] = [NEED_DATA] * len(exchanges)
    plain, polled, others = [], [], []
    for number, exchange in enumerate(exchanges):
        if PlainExchange is not None and type(exchange) is PlainExchange:
            plain.append(number)
        elif _can_be_polled(exchange.sock):
            polled.append(number)
        else:
            others.append(number)
    if plain:
        for number, outcome in zip(
            plain, gather_plain([exchanges[number] for number in plain], timeout), strict=True
        ):
            outcomes[number] = outcome
    if polled:
        _gather_polled(exchanges, polled, outcomes, until)
    for number in others:
        exchange = exchanges[number]
        if until is not None and monotonic() > until:
            exchange.allow(_GRACE)
        while outcomes[number] is NEED_DATA:
            outcomes[number] = _step(exchange)
    for number, outcome in enumerate(outcomes):
        if outcome is NEED_DATA:
            outcomes[number] = Failed(timeout_error(timeout or 0.0))
    return outcomes


def _gather_polled(
    exchanges: Sequence[AnyExchange], numbers: list[int], outcomes: list[Any], until: float | None
) -> None:
    import select

    waiting = {exchanges[number].sock.fileno(): number for number in numbers}
    if hasattr(select, "poll"):
        poll = select.poll()
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
    while waiting:
        left = None if until is None else max(until - monotonic(), 0.0)
        if hasattr(select, "poll"):
            # Rounded up: a poll that ends early would only be asked again.
            ready = [fd for fd, _ in poll.poll(None if left is None else int(left * 1000) + 1)]
        else:
            ready = select.select(list(waiting), [], [], left)[0]
        if not ready and left == 0.0:
            return
        for descriptor in ready:
            exchange = exchanges[waiting[descriptor]]
            outcome = _step(exchange)
            # TLS may hold decrypted bytes back, of which poll knows nothing.
            while outcome is NEED_DATA and getattr(exchange.sock, "pending", int)():
                outcome = _step(exchange)
            if outcome is not NEED_DATA:
                outcomes[waiting.pop(descriptor)] = outcome
                if hasattr(select, "poll"):
                    poll.unregister(descriptor)


def _step(exchange: AnyExchange) -> Any:
    try:
        return exchange.step()
    except Exception as error:
        return Failed(error)


def _can_be_polled(sock: Any) -> bool:
    """Whether `sock` is the standard library's own: polling others would block their event loop."""
    return type(sock).__module__ in ("socket", "ssl") and sock.fileno() >= 0
