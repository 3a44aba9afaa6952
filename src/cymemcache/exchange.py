"""The exchange of request and reply over any kind of socket, in Python.

`AnyExchange` serves TLS, gevent and other socket modules, Windows, and the pure twin; a compiled
class with the same attributes and methods (`core.PlainExchange`) serves plain sockets on POSIX.
Both bound an operation by one deadline, put a barrier before the reply to a command that follows
unacknowledged noreply commands, and send and read batches in step.  An exchange must never be used
again after it has raised: what it was sent may still be answered.

A socket here may know no more than ``sendall``, ``recv`` and ``close``: a batch goes out in
windows that both sides' buffers can take, each read before the next is sent.  Only a command in
steps (`begin`), which must hold up nobody else's, polls the standard library's own sockets.
"""

from __future__ import annotations

import _socket
import select
from math import inf
from time import monotonic

from .core import impl
from .core.replies import (
    BARRIER,
    BARRIER_REQUEST,
    DELETE_MANY,
    DRAIN,
    GET_MANY,
    GETS_MANY,
    NEED_DATA,
    NOREPLY,
    RAW,
    STALE,
    STORAGE_VERBS,
    STORE_MANY,
    WRITES,
    closed_error,
    extra_bytes_error,
    fork_error,
    timeout_error,
)
from .forks import mark
from .interruptions import is_interruption, own
from .plain import can_be_polled
from .waiting import READABLE, WRITABLE, bounded, would_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any, Protocol, TypeAlias

    from .core import PlainExchange, ReplyParser
    from .exceptions import MemcacheError
    from .limits import Slot

    class Record(Protocol):
        """Where an exchange tells what became of noreply commands, and of itself."""

        def disconnected(self) -> None: ...

        def expired(self) -> None: ...

        def report(self, commands: int, errors: list[MemcacheError]) -> None: ...

        def report_lost(self, commands: int) -> None: ...

        def count_lost(self, commands: int) -> None: ...

    Exchange: TypeAlias = "AnyExchange | PlainExchange"


# Bytes of a batch that go out before its replies are read.  The shortest command is some 12 bytes,
# the longest reply to one some 50: both directions fit the smallest socket buffers in use.
_WINDOW = 1 << 14

# noreply commands after which their fate is asked for, so that a server that answers them all the
# same never fills the buffers of a socket that nobody reads.
_UNACKNOWLEDGED_MOST = 500

# Bytes that one receive takes, unless a large value is under way.
_RECEIVED_MOST = 1 << 16

# The same as long as no reply was longer: it is set aside each time.
_PAGE = 1 << 12

_BATCHES = (STORE_MANY, DELETE_MANY, GET_MANY, GETS_MANY, WRITES)


class AnyExchange:
    """Request and reply over one socket, whose timeout is set to `timeout` (seconds or None).

    Not for two threads at once: whoever took it from the pool is its only user, and the only one
    who closes it.
    """

    def __init__(
        self, sock: Any, parser: ReplyParser, timeout: float | None, record: Record
    ) -> None:
        self.timeout = timeout
        #: noreply commands sent whose fate is not known yet
        self.unacknowledged = 0
        self._storing = False  # there are storage commands among them
        self._refusals: list[MemcacheError] = []  # errors in answer to them, not reported yet
        #: whether anything of the reply to the last command was read
        self.received = False
        self._answered = False  # anything was ever read
        #: when the last command began, on the clock of `time.monotonic`
        self.used_at_seconds = monotonic()
        #: of the pool, when this connection was dialled
        self.generation = 0
        #: of the pool: permission to have this connection, given back with its end
        self.slot: Slot | None = None
        #: after which it is of no use any more, if nobody used it
        self.idle_seconds = inf
        #: whether the steps of a command may wait in a poll
        self.can_be_polled = can_be_polled(sock)
        self._parser = parser
        self._record = record
        self._forks = mark()
        # Of the standard library: Python, of which `read` and `write` are the inner calls.
        self._is_tls = type(sock).__module__ == "ssl"
        self._most = _PAGE  # bytes that the first receive of a reply takes
        # The pure parser joins the parts of a large value: to receive into it would copy each.
        self._recv_into = getattr(sock, "recv_into", None) if impl == "c" else None
        # Anything else that is assigned as a socket may have a fileno that tells nothing.
        self._fileno = sock.fileno if isinstance(sock, _socket.socket) else _no_number
        self._settimeout = getattr(sock, "settimeout", _no_timeout)
        self._pending = getattr(sock, "pending", None)  # TLS: bytes decrypted and not read yet
        self._shortened = False  # the socket's own timeout is less than the operation's
        self._polled = False  # it is 0: whoever began the command waits for the socket
        self._under_way: Any = None  # the steps of a command that `begin` began
        self._awaited = 0  # what the next of them waits for
        self.sock = sock  # last: what is half made leaves it to its maker

    def close(self) -> None:
        """Close the descriptor.  What was sent before still reaches the server."""
        self.unacknowledged = 0
        self._under_way = None  # steps that were given up hold this exchange
        try:
            self.sock.close()
        except Exception as error:
            if is_interruption(error):
                raise
            # Of the socket: nothing that a caller could do about it.
        finally:
            if self.slot is not None:
                self.slot.end()
                self.slot = None

    def discard(self) -> None:
        """Close after a failure: noreply commands not acknowledged may be lost."""
        lost = self.unacknowledged
        try:
            self.close()
        finally:  # an interruption of closing loses none of the count
            if not self.forked():
                self._record.disconnected()
                if lost:
                    self._record.report_lost(lost)

    def expire(self) -> None:
        """Close, since nobody has used it for too long."""
        self._record.expired()
        self.close()

    def release(self) -> None:
        """Leave the socket to another exchange; this one is of no use any more."""
        self.sock = None

    def __del__(self) -> None:
        # An interruption can lose a connection between two statements of its holder.
        if getattr(self, "sock", None) is None:
            return
        # What is closed is left alone: Python drops what an interruption raises in here.
        if self.slot is not None or self._fileno() >= 0:
            lost = self.unacknowledged
            try:
                self.close()
            finally:
                if lost and not self.forked():
                    self._record.count_lost(lost)

    def forked(self) -> bool:
        """Whether this process is a child of the one that dialled."""
        return self._forks != mark()

    def call(self, request: bytes, kind: int, keys: Any = None, default: Any = None) -> Any:
        """Send `request` and return what the parser makes of the reply.

        `STALE` where the connection turned out unusable before anything was sent.
        """
        if self._is_stale():
            return STALE
        if self.unacknowledged or (len(request) > _WINDOW and kind in _BATCHES):
            result = self._all_steps(request, kind, keys, default)
        else:
            sock = self.sock
            try:
                if not self._is_tls:
                    sock.sendall(request)
                elif (sent := sock.write(request)) < len(request):
                    sock.sendall(request[sent:])
                # `_bound` only where it has something to do.
                timeout = self.timeout
                if timeout is not None and monotonic() - self.used_at_seconds > timeout / 16:
                    self._bound()
                data = sock.read(self._most) if self._is_tls else sock.recv(self._most)
            except Exception as error:
                if self._is_to_be_raised(error):
                    raise
            if self._forks != mark():
                raise fork_error()
            if not data:
                raise own(closed_error(), not self._answered)
            self.received = self._answered = True
            if len(data) == _PAGE:
                self._most = _RECEIVED_MOST  # there may be more, this time and the next
            result = self._parser.answer(data, kind, request, keys, default)
            if result is NEED_DATA:
                result = self._rest(request, kind, keys, default)
        if self._shortened:
            self._lengthen()
        return result

    def _rest(self, request: bytes, kind: int, keys: Any, default: Any) -> Any:
        parse = self._parser.parse
        result = NEED_DATA
        while result is NEED_DATA:
            self._receive()
            result = parse(kind, request, keys, default)
        if self._parser.pending and kind != RAW:
            raise extra_bytes_error(request)
        return result

    def send(self, request: bytes, commands: int) -> Any:
        """Send `commands` noreply commands; True, or `STALE` before anything was sent."""
        if self._is_stale():
            return STALE
        if commands <= 1 and self.unacknowledged < _UNACKNOWLEDGED_MOST:
            self._open(request, commands)
            try:
                self.sock.sendall(request)
            except Exception as error:
                if self._is_to_be_raised(error):
                    raise
            if self._forks != mark():
                raise fork_error()
        else:
            self._all_steps(request, NOREPLY, commands, None)
        if self._shortened:
            self._lengthen()
        return True

    def _is_stale(self) -> bool:
        """Whether the connection is of no use for a command that begins now."""
        now = monotonic()
        idle = now - self.used_at_seconds
        if (
            self._forks != mark()
            or self._fileno() < 0  # closed by hand
            or ((idle > 1 or idle > self.idle_seconds) and self._is_too_old(idle))
        ):
            return True
        self.used_at_seconds = now
        self.received = False
        return False

    def _is_too_old(self, idle: float) -> bool:
        """Whether the connection is of no use after being idle for so many seconds."""
        if idle > self.idle_seconds:
            self.unacknowledged = 0  # done long ago, or nobody will ever know
            self._record.expired()
            return True
        return idle > 1 and not self._is_fresh()

    # -- a command in several steps ----------------------------------------------------------------

    def begin(self, request: bytes, kind: int, keys: Any = None) -> Any:
        """Send what can be sent of `request` before anything is received; `step` does the rest.

        For noreply commands `kind` is `NOREPLY` and `keys` their number.  `NEED_DATA`, or the
        result where that was all, or `STALE` where the connection turned out unusable before
        anything was sent.
        """
        if self._is_stale():
            return STALE
        if self.can_be_polled:
            self.sock.settimeout(0.0)
            self._polled = self._shortened = True
        self._under_way = self._steps(request, kind, keys, None)
        return self._next_step()

    def events(self) -> int:
        """What `step` needs: `READABLE` or `WRITABLE`."""
        return self._awaited

    def step(self, ready: int) -> Any:
        """Receive, or send, now that poll says `ready`; the result, or `NEED_DATA`.

        On a socket that cannot be polled it waits for what comes.
        """
        while True:
            if self._awaited == READABLE:
                self._receive()
            result = self._next_step()
            # poll knows nothing of bytes that TLS holds back.
            if result is not NEED_DATA or self._pending is None or not self._pending():
                return result

    def allow(self, seconds: float) -> None:
        """Let the command under way take so long from now on, however long it took before."""
        if self.timeout is not None:
            self.used_at_seconds = monotonic() - self.timeout + seconds

    def _next_step(self) -> Any:
        try:
            self._awaited = next(self._under_way)
        except StopIteration as stop:
            if self._shortened:
                self._lengthen()
            return stop.value
        return NEED_DATA

    def _all_steps(self, request: bytes, kind: int, keys: Any, default: Any) -> Any:
        self._under_way = self._steps(request, kind, keys, default)
        result = self._next_step()
        while result is NEED_DATA:
            self._receive()
            result = self._next_step()
        return result

    def _steps(
        self, request: bytes, kind: int, keys: Any, default: Any
    ) -> Generator[int, None, Any]:
        """A whole command; yields what it waits for wherever it cannot go on."""
        parse = self._parser.parse
        if kind == NOREPLY:
            parts = _windows(request) if keys > 1 else [(request, keys)]
            for part, count in parts:
                self._open(part, count)
                yield from self._sent(part)
                if self.unacknowledged > _UNACKNOWLEDGED_MOST:
                    yield from self._acknowledged(b"")
            self._report(keys)
            return True
        result: Any = NEED_DATA
        if kind in _BATCHES and len(request) > _WINDOW:
            yield from self._acknowledged(b"")
            sent = 0
            for part, count in _windows(request):
                yield from self._sent(part)
                sent += count
                while result is NEED_DATA:
                    result = parse(kind, request, keys, default)
                    if result is NEED_DATA:
                        if self._parser.progress >= sent:
                            break
                        yield READABLE
        else:
            yield from self._acknowledged(request)
            result = parse(kind, request, keys, default)
            while result is NEED_DATA:
                yield READABLE
                result = parse(kind, request, keys, default)
        if self._parser.pending and kind != RAW:
            raise extra_bytes_error(request)
        return result

    def _acknowledged(self, request: bytes) -> Generator[int, None, None]:
        """Send `request`, after a barrier and its answer where noreply commands are open."""
        if self.unacknowledged == 0:
            if request:
                yield from self._sent(request)
            return
        yield from self._sent(BARRIER_REQUEST + request)
        errors = self._parser.parse(BARRIER, BARRIER_REQUEST, self._storing)
        while errors is NEED_DATA:
            yield READABLE
            errors = self._parser.parse(BARRIER, BARRIER_REQUEST, self._storing)
        commands, self.unacknowledged, self._storing = self.unacknowledged, 0, False
        self._refusals += errors
        if request:
            self._report(commands)

    def _open(self, request: bytes, commands: int) -> None:
        """`commands` more whose fate is not known."""
        self.unacknowledged += commands
        if commands and request.startswith(STORAGE_VERBS):
            self._storing = True

    def _report(self, commands: int) -> None:
        """Once per operation, however many barriers it took."""
        errors, self._refusals = self._refusals, []
        if errors:
            self._record.report(commands, errors)

    def _sent(self, data: bytes) -> Generator[int, None, None]:
        """Send `data`, as far as the socket takes it at once where it is polled."""
        if not self._polled:
            self._send(data)
            return
        rest = memoryview(data)
        while rest:
            count = 0
            try:
                count = self.sock.send(rest)
            except Exception as error:
                if self._is_to_be_raised(error) and not would_block(error):
                    raise
            if self._forks != mark():
                raise fork_error()
            rest = rest[count:]
            if rest:
                yield WRITABLE

    # -- the socket --------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        self._bound()
        try:
            self.sock.sendall(data)
        except Exception as error:
            if self._is_to_be_raised(error):
                raise
        if self._forks != mark():
            raise fork_error()

    def _receive(self) -> None:
        self._bound()
        parser = self._parser
        data = b""
        count = 0
        try:
            if parser.wants_buffer and self._recv_into is not None:
                count = self._recv_into(parser.get_buffer())
            else:
                data = self.sock.recv(_RECEIVED_MOST)
        except Exception as error:
            if self._is_to_be_raised(error):
                if self._polled and would_block(error):
                    return
                raise
        if self._forks != mark():
            raise fork_error()
        if count:
            parser.buffer_updated(count)
        elif data:
            parser.feed(data)
        else:
            raise own(closed_error(), not self._answered)
        self.received = self._answered = True

    def _is_to_be_raised(self, error: Exception) -> bool:
        """Whether `error`, of a call on the socket, ends the command: not where a fork has."""
        if is_interruption(error):
            return True
        if self._forks != mark():
            return False
        own(error, not self._answered)
        return True

    def _bound(self) -> None:
        """Let the next socket call take no longer than the rest of the operation's time.

        The first calls of an operation rely on the timeout that the socket has: what they exceed
        the deadline by is less than they were late.
        """
        timeout = self.timeout
        if timeout is None or self._polled:
            return
        spent = monotonic() - self.used_at_seconds
        if spent >= timeout:
            raise own(timeout_error(timeout))
        if spent > timeout / 16 or self._shortened:
            self._shortened = True
            self._settimeout(bounded(timeout - spent))

    def _lengthen(self) -> None:
        self._settimeout(bounded(self.timeout))
        self._shortened = self._polled = False

    def _is_fresh(self) -> bool:
        """Neither the end of the stream nor anything to read: nothing is owed to us.

        Unacknowledged noreply commands may have been answered, so there bytes are no sign.
        """
        sock = self.sock
        if not hasattr(sock, "fileno"):
            return True  # a socket-like object of the user's own: there is no way to look
        if not (self._pending and self._pending()) and not _readable(sock):
            return True
        try:
            # Over TLS readable bytes may be no more than a session ticket: only reading tells.
            self._settimeout(0.0)
            data = sock.recv(4096)
        except Exception as error:
            if is_interruption(error):
                raise
            return would_block(error)
        finally:
            self._settimeout(bounded(self.timeout))
        if not data or not self.unacknowledged:
            return False
        self._parser.feed(data)
        self._parser.parse(DRAIN, b"", self._storing)
        return True


def _no_number() -> int:
    return 0


def _no_timeout(seconds: float | None) -> None:
    """Of a socket-like object of the user's own that has none."""


def _readable(sock: Any) -> bool:
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError, TypeError) as error:
        if is_interruption(error):
            raise
        return True  # closed, or not pollable: reading it tells


def _windows(request: bytes) -> Iterator[tuple[bytes, int]]:
    """The batch in pieces of whole commands, about `_WINDOW` bytes each, with their number."""
    start = position = count = 0
    while position < len(request):
        end = request.find(b"\r\n", position) + 2
        words = request[position:end].split(b" ", 5)
        if words[0] in STORAGE_VERBS:
            end += int(words[4]) + 2
        position = end
        count += 1
        if position - start >= _WINDOW or position == len(request):
            yield request[start:position], count
            start, count = position, 0
