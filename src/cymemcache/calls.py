"""What a client of one server does with a command: the hooks that `commands.Commands` calls.

Each takes a connection from the pool, exchanges the request for a reply, and gives the connection
back.  One on which anything went wrong is closed, never given back; deserializing, which runs other
people's code, happens after it has gone back.  On plain sockets the usual command goes a compiled
way (`core.PlainCalls`), which leaves everything that is not usual to the methods here.
"""

from __future__ import annotations

from .core.replies import (
    BARRIER_REQUEST,
    DOUBTFUL_SIZE,
    GET,
    GET_MANY,
    GETS,
    GETS_MANY,
    LINE,
    MISS,
    RAW,
    STALE,
    STATS,
    STORE_MANY,
    VERSION,
    WRITES,
    PartialFailure,
    Undecoded,
)
from .exceptions import (
    MemcacheClientError,
    MemcacheError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
    MemcacheValueTooLargeError,
)
from .failures import is_refusal, may_retry, was_ended
from .interruptions import is_interruption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .core import Requests
    from .counters import Tally
    from .failures import Failures
    from .pool import ConnectionPool

# Commands that ignore_exc is about.
_FORGIVEN = frozenset((GET, GETS, GET_MANY, GETS_MANY, STATS))
_FETCHES_OF_ONE = frozenset((GET, GETS))
_FETCHES_OF_MANY = frozenset((GET_MANY, GETS_MANY))
_FETCHES = _FETCHES_OF_ONE | _FETCHES_OF_MANY
# Types of results that are not yet what the caller gets.
_UNFINISHED = frozenset(
    (
        Undecoded,
        PartialFailure,
        MemcacheClientError,
        MemcacheServerError,
        MemcacheUnknownCommandError,
        MemcacheValueTooLargeError,
    )
)
# Commands whose whole reply is one line, whatever it says.
_ONE_LINE = frozenset(
    (b"version", b"delete", b"incr", b"decr", b"touch", b"flush_all", b"verbosity")
)


class Calls:
    """The hooks of a client with a pool of connections to one server."""

    ignore_exc: bool
    serde: Any
    _pool: ConnectionPool
    _tally: Tally
    _requests: Requests
    #: Whether the server knows `version`, the barrier behind noreply commands; None: not known yet.
    _knows_version: bool | None = None
    _failures: Failures

    def _call(
        self,
        kind: int,
        request: bytes,
        keys: Any = None,
        default: Any = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> Any:
        """The result of a command that has a reply of `kind`, through `convert` where given."""
        connection = None
        try:
            connection = self._pool.take()
            result = connection.call(request, kind, keys, MISS)
            while result is STALE:
                stale, connection = connection, None
                connection = self._pool.replace(stale)
                result = connection.call(request, kind, keys, MISS)
        except BaseException as error:
            return self._failed(connection, error, kind, request, keys, default, convert)
        self._pool.give(connection)
        return self._finished(kind, result, keys, default, convert)

    _call_any = _call  # for the compiled way, which has a `_call` of its own

    def _failed(
        self,
        connection: Any,
        error: BaseException,
        kind: int,
        request: bytes,
        keys: Any,
        default: Any,
        convert: Callable[[Any], Any] | None,
    ) -> Any:
        """A call has raised `error`: once more on a new connection, a miss, or `error` again."""
        self._forget(connection)
        if connection is not None:
            if not may_retry(kind, error, connection):
                connection.discard()
            else:
                ended, connection = connection, None
                self._tally.retries += 1
                try:
                    connection = self._pool.renew(ended)
                    while (result := connection.call(request, kind, keys, MISS)) is STALE:
                        stale, connection = connection, None
                        connection = self._pool.replace(stale)
                except BaseException as second:
                    if connection is not None:
                        connection.discard()
                    error = second
                else:
                    self._pool.give(connection)
                    return self._finished(kind, result, keys, default, convert)
        if self._failures.ended(error) and self.ignore_exc and kind in _FORGIVEN:
            return default if kind in (GET, GETS) else {}
        try:
            raise error
        finally:
            # Else it holds this frame, and this frame it: with them the request, until the garbage
            # collector comes by.
            del error

    def _finished(
        self,
        kind: int,
        result: Any,
        keys: Any,
        default: Any,
        convert: Callable[[Any], Any] | None,
    ) -> Any:
        """What the caller gets for `result`, `MISS` being `default`; the connection has gone back.

        A command is counted when it is known how it ends.
        """
        tally = self._tally
        if type(result) in _UNFINISHED:
            if isinstance(result, MemcacheError):
                if keys is not None and isinstance(result, MemcacheValueTooLargeError):
                    result.key = keys  # as the caller has it, not as it was sent
                self._failures.refused(result)
                if self.ignore_exc and kind == STATS:
                    return {}
                raise _anew(result)
            if isinstance(result, PartialFailure):
                self._failures.refused(result.error)
                if self.ignore_exc and kind == STORE_MANY:
                    return result.result
                raise _anew(result.error)
            result = self._deserialized(kind, result)
        tally.commands += 1
        if kind in _FETCHES:
            if kind in _FETCHES_OF_MANY:
                tally.fetched(keys, result)
            elif result is MISS:
                tally.misses += 1
                return default
            else:
                tally.hits += 1
        return result if convert is None else convert(result)

    def _deserialized(self, kind: int, undecoded: Undecoded) -> Any:
        fetched = undecoded.result
        cas = kind in (GETS, GETS_MANY)
        deserialize = self.serde.deserialize
        missed = False
        for key, data, flags in undecoded.items:
            try:
                value = deserialize(key, data, flags)
            except BaseException as error:
                if (
                    not self.ignore_exc
                    or not isinstance(error, Exception)
                    or is_interruption(error)
                ):
                    self._tally.failed(error)
                    raise
                self._tally.error(error)
                value = MISS
            if kind in _FETCHES_OF_ONE:
                return (value, fetched[1]) if cas and value is not MISS else value
            # A key can be there twice, and its second value be better than its first.
            missed = missed or value is MISS
            fetched[key] = (value, fetched[key][1]) if cas else value
        if missed:
            for key, found in list(fetched.items()):
                if (found[0] if cas else found) is MISS:
                    del fetched[key]
        return fetched

    # -- noreply -------------------------------------------------------------------------------

    def _send(self, request: bytes, commands: int, result: Any) -> Any:
        """Send `commands` noreply commands, and return `result`."""
        connection = None
        if self._knows_version is not True or len(request) >= DOUBTFUL_SIZE:
            asking = self._asking(request, self._learned())
            if asking is not None:
                self._write(asking, commands)
                return result
        try:
            connection = self._pool.take()
            while connection.send(request, commands) is STALE:
                connection = self._pool.replace(connection)
        except BaseException as error:
            self._not_sent(error, connection)
        self._pool.hold(connection)
        self._tally.commands += 1
        return result

    def _asking(self, request: bytes, knows_version: bool) -> bytes | None:
        """The noreply commands in `request` with replies asked for; None where that need not be.

        It must be where there is no barrier to ask for their fate afterwards, and where the server
        may refuse a value for its size: memcached says nothing of that where noreply was asked for.
        """
        if not knows_version:
            return self._requests.with_replies(request, 0)
        if len(request) < DOUBTFUL_SIZE:
            return None
        return self._requests.with_replies(request, DOUBTFUL_SIZE)

    def _write(self, asking: bytes, commands: int) -> None:
        """Send `commands` commands which have replies, though their caller wants none."""
        connection = None
        errors: list[Any]
        try:
            connection = self._pool.take()
            while (errors := connection.call(asking, WRITES, range(commands))) is STALE:
                connection = self._pool.replace(connection)
        except BaseException as error:
            if not is_refusal(error):
                self._not_sent(error, connection)
            if connection is not None:
                connection.discard()
            errors = [error]
            self._tally.report(commands, errors)
        else:
            self._pool.give(connection)
            self._written(commands, errors)
            self._learn(self._knows_version is True)
        self._tally.commands += 1

    def _written(self, commands: int, errors: list[MemcacheError]) -> None:
        """Such commands were answered, some of them with `errors`."""
        if errors:
            self._tally.report(commands, errors)

    def _learned(self) -> bool:
        """Whether the server knows `version`, for which it is asked where that is not known yet.

        Before the first noreply command: then its answer can be that to nothing else.  One that
        does not know it answers an error, or closes the connection: twice in a row, since an idle
        one may have ended.  That one is only believed once it has answered something else: a server
        that is going down closes connections, too.
        """
        if self._knows_version is not None:
            return self._knows_version
        connection = None
        answer: Any = STALE
        try:
            connection = self._pool.take()
            for _ in range(2):
                try:
                    answer = connection.call(BARRIER_REQUEST, LINE)
                except BaseException as error:
                    if not was_ended(error):
                        raise
                if answer is not STALE:
                    break
                ended, connection = connection, None
                connection = self._pool.renew(ended)
        except BaseException as error:
            self._not_sent(error, connection)
        self._pool.give(connection)
        if is_version(answer):
            self._learn(True)
        return self._knows_version is True

    def _learn(self, knows_version: bool) -> None:
        if self._knows_version is knows_version:
            return
        self._knows_version = knows_version
        if not knows_version:
            self._tally.report_no_barrier()

    def _forget(self, connection: Any) -> None:
        """`connection` has failed: with a barrier on it, another kind of server may be there."""
        if connection is not None and connection.unacknowledged and self._knows_version:
            self._knows_version = None

    def _not_sent(self, error: BaseException, connection: Any) -> NoReturn:
        """Noreply commands could not be sent: they count as lost."""
        if connection is not None:
            connection.discard()
        self._failures.ended(error)
        try:
            raise error
        finally:
            del error  # as in `_failed`

    _send_any = _send

    def _call_raw(
        self, request: bytes, end_token: bytes, convert: Callable[[Any], Any] | None = None
    ) -> Any:
        if raw_kind(request, end_token) == LINE:
            return self._call(LINE, request, None, None, convert)
        try:
            result = self._call_and_close(RAW, request, end_token)
        except BaseException as error:
            self._failures.ended(error)
            raise
        return self._finished(RAW, result, None, None, convert)

    def _leave(self, request: bytes, answered: bool) -> None:
        result = None
        try:
            if answered:
                result = self._call_and_close(LINE, request)
            else:
                connection = self._pool.take()
                try:
                    if connection.unacknowledged:  # the next connection must not overtake them
                        connection.call(BARRIER_REQUEST, VERSION)
                    connection.send(request, 0)
                except BaseException:
                    connection.discard()
                    raise
                connection.close()
        except BaseException as error:
            if not was_ended(error):
                self._failures.ended(error)
                raise
            # That is what was asked for; but there is no server any more after a shutdown.
            if answered:
                self._failures.told(error)
        finally:
            self._pool.close()
        self._finished(LINE, result, None, None, None)

    def _call_and_close(self, kind: int, request: bytes, keys: Any = None) -> Any:
        """Like `_call`, for a connection that is of no use afterwards."""
        connection = None
        try:
            connection = self._pool.take()
            while (result := connection.call(request, kind, keys)) is STALE:
                connection = self._pool.replace(connection)
        except BaseException:
            if connection is not None:
                connection.discard()
            raise
        connection.close()
        return result

    def _done(self, result: Any) -> Any:
        return result


def _anew(error: MemcacheError) -> MemcacheError:
    """The error to be raised for one that is a result, which the frames on the way hold."""
    made = type(error)(*error.args)
    vars(made).update(vars(error))
    return made


def raw_kind(request: bytes, end_token: bytes) -> int:
    """The kind of the reply to a raw command: `LINE` where it is known to be one line, else `RAW`.

    After a `RAW` one the connection is of no use: what else comes belongs to no other command.
    """
    words = request.split()
    if (
        end_token == b"\r\n"
        and words
        and words[0] in _ONE_LINE
        and words[-1] != b"noreply"
        and request.count(b"\n") == 1
    ):
        return LINE
    return RAW


def is_version(answer: Any) -> bool:
    """Whether `answer`, a line or an error, is what a server says that knows `version`."""
    return isinstance(answer, bytes) and answer.startswith(b"VERSION ")
