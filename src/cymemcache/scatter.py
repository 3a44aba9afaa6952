"""Commands of a cluster that more than one node answers: split up, sent to all, put together.

Each node gets its part in one request, all are sent before any reply is read (`gather`), and a node
that is slow or down costs its own keys only.  A node whose client has another method than ours for
the command (wrapped by a tracer, overridden in a subclass) is asked through that method instead.
Nothing may be sent before every argument has been checked.
"""

from __future__ import annotations

from time import monotonic
from types import MethodType

from .calls import Calls, raw_kind
from .commands import Commands, end_token_of
from .core import fetch_from_all
from .core.arguments import listed, listed_items
from .core.replies import (
    BARRIER_REQUEST,
    DELETE_MANY,
    GET_MANY,
    GETS_MANY,
    NOREPLY,
    OK,
    RAW,
    STATS,
    STORE_MANY,
    VERSION,
    Failed,
)
from .exceptions import (
    MemcacheIllegalInputError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)
from .failures import is_early, is_forgivable, told_by
from .gather import Errand, gather
from .interruptions import is_interruption
from .stats import convert_stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Any

    from .exchange import Exchange
    from .node import Node

# The commands that need no client's method, as long as it is this one.
_OURS = {name: function for name, function in vars(Commands).items() if callable(function)}


_NO_KEYS: list[Any] = []

# What becomes of `version` where the server does not know it, beside an error in answer.
_NO_VERSION = (MemcacheUnexpectedCloseError, MemcacheUnknownError, ConnectionError)


def plain_key(key: Any) -> Any:
    """`key` without its server key, where it has one."""
    return split_key(key)[1] if type(key) is tuple else key


def split_key(key: tuple[Any, ...]) -> tuple[Any, Any]:
    """The server key and the key of ``(server_key, key)``."""
    if len(key) != 2:
        raise MemcacheIllegalInputError(
            f"key must be str, bytes, or a pair (server_key, key), not {key!r:.200}"
        )
    return key


class Part:
    """What one node is asked, and what came of it.

    `given` are the caller's keys, `keys` the same without their server keys.
    """

    __slots__ = ("client", "errand", "error", "failed", "given", "keys", "node", "result")

    def __init__(
        self, node: Node, client: Any, given: list[Any] = _NO_KEYS, keys: list[Any] = _NO_KEYS
    ) -> None:
        self.node = node
        self.client = client
        self.given = given
        self.keys = keys
        self.errand: Errand | None = None
        self.result: Any = None
        self.failed = False
        self.error: Exception | None = None


class ScatterGather:
    """The commands of a cluster on several keys, and on all nodes.

    A class that has it says which nodes have which keys.
    """

    ignore_exc: bool
    default_noreply: bool
    default_kwargs: dict[str, Any]

    def _partition(self, keys: list[Any]) -> tuple[list[Part], list[Any], Exception | None]:
        """The parts of `keys`, and those whose node cannot be asked now, with the reason."""
        raise NotImplementedError

    def _members(self) -> list[tuple[str, Any, Node]]:
        """The name, client and health of every node."""
        raise NotImplementedError

    def _came_back(self, node: Node) -> None:
        """`node`, which was not up, has answered."""
        raise NotImplementedError

    # -- several keys ------------------------------------------------------------------------------

    def _get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return self._fetched("get_many", GET_MANY, listed(keys))

    def _gets_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        return self._fetched("gets_many", GETS_MANY, listed(keys))

    def _fetched(self, name: str, kind: int, keys: list[Any]) -> dict[Any, Any]:
        def begin(client: Any, part: Part) -> Errand:
            return Errand(client, getattr(client._requests, name)(part.keys), kind, part.keys)

        def call(client: Any, part: Part) -> Any:
            return getattr(client, name)(part.keys)

        parts, _ = self._scattered(name, keys, kind, begin, call, fetches=True)
        found: dict[Any, Any] | None = None
        for part in parts:
            if not part.failed and part.result is not found:
                if found is None:
                    found = part.result
                else:
                    found.update(part.result)
        return {} if found is None else found

    def _set_many(
        self,
        values: Mapping[Any, Any],
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> list[Any]:
        if noreply is None:
            noreply = self.default_noreply
        values = dict(listed_items(values))

        def items(part: Part) -> Any:
            return zip(part.keys, map(values.__getitem__, part.given), strict=True)

        def begin(client: Any, part: Part) -> Errand:
            request = client._requests.store_many(b"set", items(part), expire, noreply, flags)
            if noreply:
                return Errand.of_noreply(client, request, len(part.keys))
            return Errand(client, request, STORE_MANY, part.given)

        def call(client: Any, part: Part) -> Any:
            failed = client.set_many(dict(items(part)), expire, noreply, flags)
            return [
                given for given, key in zip(part.given, part.keys, strict=True) if key in failed
            ]

        kind = NOREPLY if noreply else STORE_MANY
        parts, lost = self._scattered("set_many", list(values), kind, begin, call)
        for part in parts:
            if part.failed:
                lost += part.given
            elif type(part.result) is list:
                lost += part.result
        return lost

    def _delete_many(self, keys: Iterable[Any], noreply: bool | None = None) -> bool:
        if noreply is None:
            noreply = self.default_noreply

        def begin(client: Any, part: Part) -> Errand:
            request = client._requests.delete_many(part.keys, noreply)
            if noreply:
                return Errand.of_noreply(client, request, len(part.keys))
            return Errand(client, request, DELETE_MANY, part.keys)

        def call(client: Any, part: Part) -> Any:
            return client.delete_many(part.keys, noreply)

        kind = NOREPLY if noreply else DELETE_MANY
        parts, lost = self._scattered("delete_many", listed(keys), kind, begin, call)
        return not lost and not any(part.failed for part in parts)

    def _scattered(
        self,
        name: str,
        keys: list[Any],
        kind: int,
        begin: Callable[[Any, Part], Errand],
        call: Callable[[Any, Part], Any],
        fetches: bool = False,
    ) -> tuple[list[Part], list[Any]]:
        """Every part with its result or error, and the keys that nobody could be asked about."""
        done: list[Part] = []
        lost: list[Any] = []
        down: Exception | None = None
        gone: set[Node] = set()
        began = monotonic()
        while keys:
            parts, unasked, reason = self._partition(keys)
            if fetches:
                _check_keys(parts)
            lost += unasked
            down, reason = down or reason, None
            self._run(name, parts, kind, begin, call)
            # Those of a node that was given a chance, and is not there yet, have other nodes; but
            # without a `dead_timeout` it would be given another chance, and another.  Nor is there
            # time for others where a slow node has used it up.
            keys = []
            early = is_early(self.default_kwargs["timeout"], began)
            for part in parts:
                if part.failed and part.node.is_gone and part.node not in gone and early:
                    gone.add(part.node)
                    part.error = None
                    keys += part.given
                else:
                    done.append(part)
        # No variable of this frame may have it when it is raised: it holds the frame.
        reasons, down = [down], None
        self._raise_first(done, reasons.pop())
        return done, lost

    def _raise_first(self, parts: list[Part], error: Exception | None = None) -> None:
        """Raise `error` or the first of `parts`, unless those are to be ignored."""
        if self.ignore_exc:
            error = None
        for part in parts:
            found, part.error = part.error, None  # it holds the frames that hold the part
            if found is not None and self.ignore_exc and is_forgivable(part.client, found):
                found = None
            error = error or found
            found = None
        if error is None:
            return
        try:
            raise error
        finally:
            del error

    # -- all nodes ---------------------------------------------------------------------------------

    def _stats(self, *args: str | bytes | int) -> dict[str, dict[bytes, Any]]:
        def begin(client: Any, _: Part) -> Errand:
            return Errand(client, client._requests.stats(*args), STATS)

        return self._from_all("stats", STATS, begin, args, {}, convert_stats)

    def _version(self) -> dict[str, bytes | None]:
        def begin(client: Any, _: Part) -> Errand:
            return Errand(client, client._requests.version(), VERSION)

        return self._from_all("version", VERSION, begin, (), None)

    def _flush_all(
        self, delay: int | timedelta | datetime = 0, noreply: bool | None = None
    ) -> dict[str, bool]:
        if noreply is None:
            noreply = self.default_noreply

        def begin(client: Any, _: Part) -> Errand:
            request = client._requests.flush_all(delay, noreply)
            if noreply:
                return Errand.of_noreply(client, request, 1)
            return Errand(client, request, OK)

        kind = NOREPLY if noreply else OK
        return self._from_all("flush_all", kind, begin, (delay, noreply), False)

    def _cache_memlimit(self, memlimit: int) -> dict[str, bool]:
        def begin(client: Any, _: Part) -> Errand:
            return Errand(client, client._requests.cache_memlimit(memlimit), OK)

        return self._from_all("cache_memlimit", OK, begin, (memlimit,), False)

    def _raw_command(
        self, command: str | bytes, end_tokens: str | bytes = "\r\n"
    ) -> dict[str, bytes | None]:
        token = end_token_of(end_tokens)

        def begin(client: Any, _: Part) -> Errand:
            request = client._requests.raw(command)
            return Errand(client, request, raw_kind(request, token), token)

        return self._from_all("raw_command", RAW, begin, (command, end_tokens), None)

    def _shutdown(self, graceful: bool = False) -> None:
        self._from_all("shutdown", 0, None, (graceful,), None)

    def _quit(self) -> None:
        def leave(client: Any) -> None:
            # There is nobody to take leave of where there is no connection.
            if getattr(client, "sock", None) is not None:
                client.quit()
            else:
                client.close()

        self._leave_all(leave)

    def _close(self) -> None:
        def leave(client: Any) -> None:
            client.close()

        self._leave_all(leave)

    def _leave_all(self, leave: Callable[[Any], None]) -> None:
        self._settle()
        failed: Exception | None = None
        for _, client, _ in self._members():
            try:
                leave(client)
            except Exception as error:
                if not is_forgivable(client, error):
                    raise
                failed = failed or error
        if failed is not None and not self.ignore_exc:
            try:
                raise failed
            finally:
                del failed  # it holds this frame

    def _settle(self) -> None:
        """Wait for this thread's noreply commands on all nodes at once: closing waits in turn."""
        errands = []
        for _, client, _ in self._members():
            pool = getattr(client, "_pool", None)
            if pool is not None and pool.holds():
                errands.append(Errand(client, BARRIER_REQUEST, VERSION))
        if errands:
            gather(errands)
            for errand in errands:
                errand.outcome = None  # an error holds the frames that hold the errand

    def _from_all(
        self,
        name: str,
        kind: int,
        begin: Callable[[Any, Part], Errand] | None,
        arguments: tuple[Any, ...],
        miss: Any,
        convert: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any]:
        """The answer of every node, whatever its health, by its name; `miss` where there is none.

        Without `begin`, and where a client has another method than ours, they are asked in turn.
        """

        def call(client: Any, _: Part) -> Any:
            return getattr(client, name)(*arguments)

        parts = [Part(node, client) for _, client, node in self._members()]
        self._run(name, parts, kind, begin, call, convert)
        self._raise_first(parts)
        return {part.node.name: miss if part.failed else part.result for part in parts}

    # -- both --------------------------------------------------------------------------------------

    def _run(
        self,
        name: str,
        parts: list[Part],
        kind: int,
        begin: Callable[[Any, Part], Errand] | None,
        call: Callable[[Any, Part], Any],
        convert: Callable[[Any], Any] | None = None,
    ) -> None:
        """Give every one of `parts` its result or its error."""
        if (
            fetch_from_all is not None
            and kind in (GET_MANY, GETS_MANY)
            and fetch_from_all(name, _OURS[name], kind, parts, self._go_on)
        ):
            return
        for part in parts:
            if begin is not None and _has_ours(part.client, name):
                part.errand = begin(part.client, part)
        for part in parts:
            if part.errand is None:
                self._ask(part, call)
        self._gather(parts, kind, convert)

    def _go_on(
        self, parts: list[Part], kind: int, begun: list[tuple[list[Exchange], bytes, Any]]
    ) -> None:
        """Bring to its end what the compiled way has begun."""
        for part, (connection, request, outcome) in zip(parts, begun, strict=True):
            part.errand = Errand(part.client, request, kind, part.keys)
            part.errand.take_over(connection, outcome)
        self._gather(parts, kind)

    def _gather(
        self, parts: list[Part], kind: int, convert: Callable[[Any], Any] | None = None
    ) -> None:
        errands = [part.errand for part in parts if part.errand is not None]
        try:
            gather(errands)
        except BaseException as error:
            for errand in errands:
                errand.client._tally.failed(error)
            raise
        for part in parts:
            if part.errand is not None:
                self._finish(part, kind, convert)
        if kind == NOREPLY:
            _learn([part.client for part in parts if part.errand is not None and not part.failed])

    def _ask(self, part: Part, call: Callable[[Any, Part], Any]) -> None:
        """Through the client's own method."""
        failures = part.node.failures
        try:
            part.result = call(part.client, part)
        except Exception as error:
            if _is_of_arguments(error) or is_interruption(error):
                raise  # ignore_exc or not
            part.failed, part.error = True, error
            if not isinstance(part.client, Calls):
                told_by(part.node, error)
        else:
            if not part.node.is_up and part.node.failures == failures:
                self._came_back(part.node)

    def _finish(self, part: Part, kind: int, convert: Callable[[Any], Any] | None) -> None:
        errand = part.errand
        assert errand is not None
        outcome, errand.outcome = errand.outcome, None
        if type(outcome) is Failed:
            part.failed, part.error = True, outcome.error
            part.client._failures.ended(outcome.error, part.node)
            return
        if not part.node.is_up:
            self._came_back(part.node)
        try:
            part.result = part.client._finished(kind, outcome, part.keys, None, convert)
        except Exception as error:
            if is_interruption(error):
                raise
            part.failed, part.error = True, error


def _learn(clients: list[Any]) -> None:
    """Let clients that have just got replies learn whether their servers know `version`.

    All at once, and after the commands themselves: no server may hold up the keys of another.
    """
    asked = [client for client in clients if client._knows_version is None]
    errands = [Errand(client, BARRIER_REQUEST, VERSION) for client in asked]
    gather(errands)
    for client, errand in zip(asked, errands, strict=True):
        outcome, errand.outcome = errand.outcome, None
        if type(outcome) is not Failed:
            client._learn(type(outcome) is bytes)
        elif isinstance(outcome.error, _NO_VERSION):
            client._learn(False)


def _is_of_arguments(error: Exception) -> bool:
    # A certificate that is refused is a ValueError, too.
    of_arguments = isinstance(error, (MemcacheIllegalInputError, TypeError, ValueError))
    return of_arguments and not isinstance(error, OSError)


def _has_ours(client: Any, name: str) -> bool:
    """Whether the client's method `name` is ours, so that nobody minds that it is not called."""
    method = getattr(client, name)
    # By its exact type: a tracer's wrapper passes for the method that it wraps.
    return type(method) is MethodType and method.__func__ is _OURS[name]


def _check_keys(parts: list[Part]) -> None:
    """No key may be found on two nodes: values come under the keys without their server keys."""
    for part in parts:
        if part.keys is not part.given:  # there are server keys
            break
    else:
        return
    nodes: dict[Any, Node] = {}
    for part in parts:
        for key in part.keys:
            if nodes.setdefault(key, part.node) is not part.node:
                raise MemcacheIllegalInputError(
                    f"key {key!r:.200} is asked for under two server keys, of different nodes"
                )
