"""Commands to several servers at once: the time of the slowest, not the sum.

An `Errand` is one server's part: the connection it goes out on, how far it is, how it ended.
`gather` begins them all before it reads from any, and then waits for all in one poll loop, dialling
included; where all are plain connections that loop is compiled.  Sockets of other socket modules,
which must not be polled, are read in turn.  One that is slow or fails must never cost another its
reply, and no errand may wait for a free connection while another holds one.
"""

from __future__ import annotations

import select
import threading
from time import monotonic

from .core import PlainExchange
from .core import gather as gather_plain
from .core.replies import (
    NEED_DATA,
    NOREPLY,
    RAW,
    STALE,
    WRITES,
    Failed,
    closed_error,
    fork_error,
    timeout_error,
)
from .failures import is_refusal, may_retry
from .interruptions import is_failure, own
from .waiting import READABLE, milliseconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .exchange import Exchange

# Seconds that a connection may still take when another has used up the time: what it is asked for
# has arrived by then, or comes too late.
_GRACE = 0.01


class Errand:
    """`request`, which has a reply of `kind`, on a connection of `client`.

    For noreply commands `kind` is `NOREPLY` and `keys` their number.
    """

    __slots__ = (
        "_again",
        "_awaited",
        "_brought",
        "_dial_steps",
        "_dialling",
        "_keys",
        "_kind",
        "_request",
        "_slot",
        "_until",
        "client",
        "exchange",
        "must_wait",
        "outcome",
        "pool",
        "timeout",
    )

    def __init__(self, client: Any, request: bytes, kind: int, keys: Any = None) -> None:
        #: the result, or a `Failed`; `NEED_DATA` until then
        self.outcome: Any = NEED_DATA
        #: whether it has to wait for a free connection
        self.must_wait = False
        self.exchange: Exchange | None = None
        self.client = client
        self.timeout: float | None = client.timeout
        self.pool = client._pool
        self._dial_steps = client._dial_steps
        self._request = request
        self._kind = kind
        self._keys = keys
        self._again = False
        self._brought: list[Exchange] | None = None
        self._slot: Any = None  # permission to dial
        self._dialling: Any = None  # the steps of a dial under way
        self._awaited: Any = None  # what the next of them waits for
        self._until: float | None = None  # of the exchange

    @classmethod
    def of_noreply(cls, client: Any, request: bytes, commands: int) -> Errand:
        """For `commands` noreply commands, with replies asked for where `client` has to."""
        asking = client._asking(request, client._knows_version)
        if asking is None:
            return cls(client, request, NOREPLY, commands)
        return cls(client, asking, WRITES, range(commands))

    # -- from the pool to the first byte sent ------------------------------------------------------

    def start(self) -> None:
        """Send what can be sent at once, on an idle connection, or begin to dial."""
        self._attempt(self._start)

    def _attempt(self, step: Callable[..., None], *arguments: Any) -> None:
        """Do `step`; where the server or the socket fails, that is the outcome."""
        try:
            step(*arguments)
        except Exception as error:
            if not is_failure(error):
                raise
            self.outcome = Failed(error)

    def _start(self) -> None:
        if self._brought:
            self.pool.bring(self._brought[0])
            self.exchange = self._brought.pop()
            return
        exchange = self.pool.take_idle()
        while exchange is not None:
            if self._begin(exchange):
                return
            exchange = self.pool.take_idle()
        self._slot = self.pool.admit()
        if self._slot is None:
            self.must_wait = True
        else:
            self._dial()

    def take_over(self, brought: list[Exchange], outcome: Any) -> None:
        """Be what another has brought so far, on a connection of the client's.

        `brought` has that one until it is part of the errand's visit.
        """
        self._brought = brought
        self.outcome = outcome

    @property
    def wait_seconds(self) -> float:
        """How long it may wait for a free connection."""
        seconds: float = self.pool.wait_seconds
        return seconds

    def start_in_line(self, until: float) -> None:
        """The same, but wait for a free connection, at most until then."""
        self.must_wait = False
        self._attempt(self._start_on_free_one, until)

    def _start_on_free_one(self, until: float) -> None:
        while not self._begin(self.pool.take(until)):
            pass

    def _begin(self, exchange: Exchange) -> bool:
        """Whether the command could be begun on `exchange`."""
        self.exchange = exchange
        if self.timeout is not None:
            self._until = monotonic() + self.timeout
        result = exchange.begin(self._request, self._kind, self._keys)
        if result is STALE:
            self.exchange = None
            exchange.discard()
            return False
        self.outcome = result
        return True

    def _dial(self) -> None:
        self._dialling = self._dial_steps()
        self._dial_on(None)

    def _dial_on(self, ready: int | None) -> None:
        try:
            self._awaited = self._dialling.send(ready)
            return
        except StopIteration as stop:
            self._dialling = None
            exchange = self.pool.admitted(stop.value, self._slot)
            self._slot = None
        if not self._begin(exchange):
            raise fork_error() if exchange.forked() else own(closed_error())

    # -- while it is under way -----------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether the compiled loop can wait for it."""
        return PlainExchange is not None and type(self.exchange) is PlainExchange

    @property
    def is_polled(self) -> bool:
        """Whether its socket can be polled."""
        exchange = self.exchange
        return self._dialling is not None or self.is_plain or exchange.can_be_polled  # type: ignore[union-attr]

    def awaited(self) -> tuple[Any, int, float | None]:
        """What it waits for: ``(socket, events, deadline)``."""
        if self.exchange is None:
            awaited: tuple[Any, int, float | None] = self._awaited
            return awaited
        return self.exchange.sock, self.exchange.events(), self._until

    def go_on(self, ready: int) -> None:
        """Do what poll says can be done; with 0 its deadline has come."""
        self._attempt(self._go_on, ready)

    def _go_on(self, ready: int) -> None:
        if self.exchange is None:
            self._dial_on(ready)
        elif ready:
            self.outcome = self.exchange.step(ready)
        else:
            self.outcome = Failed(own(timeout_error(self.timeout or 0.0)))

    def finish_in_turn(self) -> None:
        """Wait for it alone: its socket cannot be polled."""
        exchange = self.exchange
        assert exchange is not None
        if self._until is not None and monotonic() > self._until:
            exchange.allow(_GRACE)
        while self.outcome is NEED_DATA:
            self.go_on(READABLE)

    # -- its end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """Give the connection back, or close it; where it had gone stale, be under way again."""
        exchange = self.exchange
        if exchange is None:
            if self._slot is not None:  # of a dial that failed
                self._slot.end()
            return
        self.exchange = None
        if type(self.outcome) is not Failed:
            if self._kind == NOREPLY:
                self.pool.hold(exchange)
            elif self._kind == RAW:
                exchange.close()
            else:
                self.pool.give(exchange)
            if self._kind == WRITES:
                self.client._written(len(self._keys), self.outcome)
                self.outcome = True
            return
        error = self.outcome.error
        self.client._forget(exchange)
        if self._again or not may_retry(self._kind, error, exchange):
            exchange.discard()
            if self._kind == WRITES and is_refusal(error):
                self.client._tally.report(len(self._keys), [error])
                self.outcome = True
            return
        self._again = True
        self.client._tally.retries += 1
        self.outcome = NEED_DATA
        self._attempt(self._dial_again, exchange)

    def _dial_again(self, ended: Exchange) -> None:
        self._slot = self.pool.reclaim(ended)
        self._dial()

    def give_up(self) -> None:
        """Close whatever is under way."""
        if self._dialling is not None:
            self._dialling.close()
        if self.exchange is not None:
            self.exchange.discard()
        if self._slot is not None:
            self._slot.end()


def gather(errands: Sequence[Errand]) -> None:
    """Run `errands`; afterwards each has its `outcome`, and all connections have gone back."""
    here = threading.Lock()
    with here:
        visits = [(errand.pool, errand.pool.visit(here)) for errand in errands]
        try:
            _run_all(errands)
        finally:
            for pool, visit in reversed(visits):
                pool.leave(visit)


def _run_all(errands: Sequence[Errand]) -> None:
    try:
        for errand in errands:
            errand.start()
        _run(errands)
        _run_in_line([errand for errand in errands if errand.must_wait])
    except BaseException:
        for errand in errands:
            errand.give_up()
        raise


def _run(errands: Sequence[Errand]) -> None:
    """Until each has an outcome, or has to wait for a connection."""
    under_way = [errand for errand in errands if not errand.must_wait]
    while under_way:
        waiting = [errand for errand in under_way if errand.outcome is NEED_DATA]
        if _are_plain(waiting):
            exchanges = [errand.exchange for errand in waiting]
            outcomes = gather_plain(exchanges, waiting[0].timeout)
            for errand, outcome in zip(waiting, outcomes, strict=True):
                errand.outcome = outcome
        elif waiting:
            _poll(waiting)
        for errand in under_way:
            errand.end()
        under_way = [
            errand for errand in under_way if errand.outcome is NEED_DATA and not errand.must_wait
        ]


def _run_in_line(errands: list[Errand]) -> None:
    """The same for those that have to wait for a connection, while none is held.

    The time for it is the same for all, and whoever gets a connection without waiting goes along:
    one whose connections are all stuck must not hold up the others, nor their times add up.
    """
    if not errands:
        return
    until = monotonic() + max(errand.wait_seconds for errand in errands)
    while errands:
        first, *others = errands
        first.start_in_line(until)
        for errand in others:
            errand.must_wait = False
            errand.start()
        _run(errands)
        errands = [errand for errand in others if errand.must_wait]


def _are_plain(waiting: Sequence[Errand]) -> bool:
    return bool(waiting) and all(
        errand.is_plain and errand.timeout == waiting[0].timeout for errand in waiting
    )


def _poll(errands: Sequence[Errand]) -> None:
    """Until each of `errands` has an outcome."""
    polled = [errand for errand in errands if errand.is_polled]
    if polled:
        _poll_all(polled)
    for errand in errands:
        if errand.outcome is NEED_DATA:
            errand.finish_in_turn()


def _poll_all(errands: list[Errand]) -> None:
    poll = select.poll()
    waiting: dict[int, Errand] = {}
    for errand in errands:
        _watch(poll, waiting, errand)
    while waiting:
        until = min(
            (deadline for errand in waiting.values() if (deadline := errand.awaited()[2])),
            default=None,
        )
        for descriptor, events in poll.poll(milliseconds(until)):
            _go_on(poll, waiting, descriptor, events)
        now = monotonic()
        for descriptor, errand in list(waiting.items()):
            if (deadline := errand.awaited()[2]) and deadline <= now:
                _go_on(poll, waiting, descriptor, 0)


def _go_on(poll: Any, waiting: dict[int, Errand], descriptor: int, events: int) -> None:
    # Its next step may wait for another socket, which may have got the same number.
    if descriptor >= 0:
        poll.unregister(descriptor)
    errand = waiting.pop(descriptor)
    errand.go_on(events)
    if errand.outcome is NEED_DATA:
        _watch(poll, waiting, errand)


def _watch(poll: Any, waiting: dict[int, Errand], errand: Errand) -> None:
    sock, events, _ = errand.awaited()
    descriptor = ~id(errand)  # for who waits for nothing but the time
    if sock is not None:
        descriptor = sock.fileno()
        poll.register(descriptor, events)
    waiting[descriptor] = errand
