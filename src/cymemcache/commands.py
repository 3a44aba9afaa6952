"""Every command of memcached's classic text protocol: its signature and docstring, once.

`Commands` is a mixin.  A method encodes its request and hands it to one of a handful of hooks, in
which the clients differ: `_call` (a request and its reply), `_send` (noreply), `_call_raw`,
`_leave` (the commands after which the connection is gone) and `_done` (nothing to ask).  It is
generic over what the hooks give, so that a client whose hooks give awaitables has the same methods.
No method here may call another public one: whoever wraps them would see one call as two.
"""

from __future__ import annotations

from .command_types import (
    OF_ONE_SERVER,
    AnyR,
    BoolR,
    CasR,
    DictR,
    IntR,
    KeysR,
    KeyT,
    NoneR,
    OkR,
    PairR,
    Results,
    StatsR,
    TextR,
    overload,
    remember,
    show,
)
from .core.arguments import listed, listed_items
from .core.replies import (
    ARITHMETIC,
    CAS,
    DELETE,
    DELETE_MANY,
    GET,
    GET_MANY,
    GETS,
    GETS_MANY,
    OK,
    STATS,
    STORE,
    STORE_MANY,
    TOUCH,
    VERSION,
)
from .exceptions import MemcacheIllegalInputError
from .stats import convert_stats, convert_stats_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Any, NoReturn, TypeAlias, TypeVar

    from .core import Requests

    Key: TypeAlias = str | bytes
    # In a cluster the first of a pair, the server key, tells the node.
    ClusterKey: TypeAlias = str | bytes | tuple[str | bytes, str | bytes]
    K = TypeVar("K", bound=Key)

# Their reply has no END.
_STATS_OF_ONE_LINE = frozenset((b"stats sizes_enable\r\n", b"stats sizes_disable\r\n"))


def refuse_copy(client: Any) -> NoReturn:
    """In the place of `__reduce__`: connections, locks and sockets' modules are not copied."""
    name = type(client).__name__
    raise TypeError(
        f"a {name} cannot be copied or pickled: share this one (threads and forked processes "
        f"may), or make another {name} from the same arguments"
    )


def end_token_of(end_tokens: Any) -> bytes:
    """`raw_command`'s argument as bytes.

    Raises `TypeError` where it is not text, `MemcacheIllegalInputError` where it is empty.
    """
    token = end_tokens.encode() if isinstance(end_tokens, str) else end_tokens
    if not isinstance(token, bytes):
        raise TypeError(f"end_tokens must be str or bytes, not {type(end_tokens).__name__}")
    if not token:
        raise MemcacheIllegalInputError("end_tokens must not be empty")
    return token


class Commands(
    Results[KeyT, AnyR, BoolR, CasR, IntR, KeysR, DictR, PairR, NoneR, OkR, TextR, StatsR]
):
    """The commands, over the hooks of a client.

    All of them raise, beside what their own docstring names: `MemcacheIllegalInputError` or
    `TypeError` for an argument that is refused before anything is sent, `OSError` (`TimeoutError`
    among them) where the connection fails, `MemcacheUnexpectedCloseError` where the server closes
    it, `MemcacheUnknownError` for a reply that is none, and the server's own error otherwise.

    Keys are str (ASCII, or any text with ``allow_unicode_keys``) or bytes, at most 250 bytes with
    the prefix, without whitespace and NUL.

    `expire` is in seconds: 0 for never, negative for at once, from 1,000,000,000 on a UNIX time.
    A `timedelta` and an aware `datetime` are taken as well; without a time zone a datetime is a
    `TypeError`.  The protocol (protocol.txt, "Expiration times") takes more than 30 days for a UNIX
    time, so such a span goes out as one, by this machine's clock; it has no time after January
    2038, so a span or a datetime that ends later ends then.

    With `noreply` the server is not waited for: what a method returns then says nothing, and an
    error is only logged.
    """

    allow_unicode_keys: bool
    default_noreply: bool
    _requests: Requests
    _extending: Requests  # for append and prepend

    if TYPE_CHECKING:

        def _call(
            self,
            kind: int,
            request: bytes,
            keys: Any = None,
            default: Any = None,
            convert: Callable[[Any], Any] | None = None,
        ) -> Any: ...

        def _send(self, request: bytes, commands: int, result: Any) -> Any: ...

        def _call_raw(
            self,
            request: bytes,
            end_token: bytes,
            convert: Callable[[Any], Any] | None = None,
        ) -> Any: ...

        def _leave(self, request: bytes, answered: bool) -> Any: ...

        def _done(self, result: Any) -> Any: ...

    # -- storage commands --------------------------------------------------------------------------

    def set(
        self,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> BoolR:
        """Store `value` under `key`, whatever was there (protocol.txt, "Storage commands").

        `flags` (32 bits) overrides the flags that the serde gives.  Returns True; False where the
        server did not store the item.  `MemcacheValueTooLargeError` where it is too large for it.
        """
        return self._store(b"set", key, value, expire, noreply, flags)

    def add(
        self,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> BoolR:
        """Store `value` only where `key` holds nothing (protocol.txt, "Storage commands").

        Returns True where it was stored, False where there was an item already.
        """
        return self._store(b"add", key, value, expire, noreply, flags)

    def replace(
        self,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> BoolR:
        """Store `value` only where `key` holds something (protocol.txt, "Storage commands").

        Returns True where it was stored, False on a miss.
        """
        return self._store(b"replace", key, value, expire, noreply, flags)

    def append(
        self,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> BoolR:
        """Add `value` behind what `key` holds (protocol.txt, "Storage commands").

        The server keeps the item's flags and expiry and ignores those given here.  Returns True,
        False on a miss.  `MemcacheIllegalInputError` for what the serde would pickle, compress or
        sign: bytes, str and int go as they are.  An item that *is* pickled, compressed or
        signed is destroyed by this, which cannot be seen from here.
        """
        return self._extend(b"append", key, value, expire, noreply, flags)

    def prepend(
        self,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> BoolR:
        """Add `value` before what `key` holds (protocol.txt, "Storage commands").

        The server keeps the item's flags and expiry and ignores those given here.  Returns True,
        False on a miss.  `MemcacheIllegalInputError` for what the serde would pickle, compress or
        sign: bytes, str and int go as they are.  An item that *is* pickled, compressed or
        signed is destroyed by this, which cannot be seen from here.
        """
        return self._extend(b"prepend", key, value, expire, noreply, flags)

    def cas(
        self,
        key: KeyT,
        value: Any,
        cas: int | str | bytes,
        expire: int | timedelta | datetime = 0,
        noreply: bool = False,
        flags: int | None = None,
    ) -> CasR:
        """Store `value` only where the item is still the one that `gets` gave `cas` for.

        See protocol.txt, "Storage commands".  `cas` is the token, digits.  Returns True where it
        was stored, False where somebody else has changed the item, None where it is gone.
        """
        request = self._requests.cas(key, value, cas, expire, noreply, flags)
        return self._send(request, 1, True) if noreply else self._call(CAS, request, key)

    def set_many(
        self,
        values: Mapping[Any, Any],
        expire: int | timedelta | datetime = 0,
        noreply: bool | None = None,
        flags: int | None = None,
    ) -> KeysR:
        """Store every key and value of a mapping, in one go (protocol.txt, "Storage commands").

        Returns the list of keys that were not stored, empty where all were (and always with
        `noreply`).  Where the server refuses items with an error, the others are stored all the
        same and the first error is raised; with `ignore_exc` their keys are returned instead.
        """
        if noreply is None:
            noreply = self.default_noreply
        items = listed_items(values)
        if not items:
            return self._done([])
        request = self._requests.store_many(b"set", items, expire, noreply, flags)
        if noreply:
            return self._send(request, len(items), [])
        return self._call(STORE_MANY, request, [key for key, _ in items])

    set_multi = set_many

    def _store(
        self,
        verb: bytes,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime,
        noreply: bool | None,
        flags: int | None,
    ) -> Any:
        if noreply is None:
            noreply = self.default_noreply
        request = self._requests.store(verb, key, value, expire, noreply, flags)
        return self._send(request, 1, True) if noreply else self._call(STORE, request, key)

    def _extend(
        self,
        verb: bytes,
        key: KeyT,
        value: Any,
        expire: int | timedelta | datetime,
        noreply: bool | None,
        flags: int | None,
    ) -> Any:
        if noreply is None:
            noreply = self.default_noreply
        request = self._extending.store(verb, key, value, expire, noreply, flags)
        return self._send(request, 1, True) if noreply else self._call(STORE, request)

    # -- retrieval commands ------------------------------------------------------------------------

    def get(self, key: KeyT, default: Any = None) -> AnyR:
        """The value under `key`, `default` on a miss (protocol.txt, "Retrieval command").

        It is bytes, unless there is a serde that makes something else of them.
        """
        return self._call(GET, self._requests.get(key), key, default)

    def gets(self, key: KeyT, default: Any = None, cas_default: Any = None) -> PairR:
        """The value under `key` and its cas token (bytes): ``(value, cas)``.

        ``(default, cas_default)`` on a miss.  See protocol.txt, "Retrieval command".
        """
        return self._call(GETS, self._requests.gets(key), key, (default, cas_default))

    def gat(self, key: KeyT, expire: int | timedelta | datetime = 0, default: Any = None) -> AnyR:
        """Get and touch: the value under `key`, whose expiry becomes `expire`; `default` on a miss.

        See protocol.txt, "Get And Touch".
        """
        return self._call(GET, self._requests.gat(key, expire), key, default)

    def gats(
        self,
        key: KeyT,
        expire: int | timedelta | datetime = 0,
        default: Any = None,
        cas_default: Any = None,
    ) -> PairR:
        """Like `gat`, with the cas token (bytes): ``(value, cas)``.

        ``(default, cas_default)`` on a miss.  See protocol.txt, "Get And Touch".
        """
        return self._call(GETS, self._requests.gats(key, expire), key, (default, cas_default))

    @overload
    def get_many(self: Synchronous, keys: Iterable[K]) -> dict[K, Any]: ...

    @overload
    def get_many(self, keys: Iterable[KeyT]) -> DictR: ...

    def get_many(self, keys: Iterable[Any]) -> Any:
        """The values under `keys`, as a dict from the keys given; misses are left out.

        One round trip for any number of keys, none for none.  See protocol.txt, "Retrieval
        command".
        """
        keys = listed(keys)
        if not keys:
            return self._done({})
        return self._call(GET_MANY, self._requests.get_many(keys), keys)

    get_multi = get_many

    @overload
    def gets_many(self: Synchronous, keys: Iterable[K]) -> dict[K, tuple[Any, bytes]]: ...

    @overload
    def gets_many(self, keys: Iterable[KeyT]) -> DictR: ...

    def gets_many(self, keys: Iterable[Any]) -> Any:
        """Like `get_many`, with cas tokens (bytes): ``{key: (value, cas)}``; misses are left out.

        See protocol.txt, "Retrieval command".
        """
        keys = listed(keys)
        if not keys:
            return self._done({})
        return self._call(GETS_MANY, self._requests.gets_many(keys), keys)

    gets_multi = gets_many

    # -- deletion, arithmetic, touch ---------------------------------------------------------------

    def delete(self, key: KeyT, noreply: bool | None = None) -> BoolR:
        """Delete the item under `key` (protocol.txt, "Deletion").

        Returns True, False on a miss.
        """
        if noreply is None:
            noreply = self.default_noreply
        request = self._requests.delete(key, noreply)
        return self._send(request, 1, True) if noreply else self._call(DELETE, request)

    def delete_many(self, keys: Iterable[KeyT], noreply: bool | None = None) -> BoolR:
        """Delete the items under `keys`, in one go (protocol.txt, "Deletion").

        Returns True, whether or not there was anything to delete.
        """
        if noreply is None:
            noreply = self.default_noreply
        keys = listed(keys)
        if not keys:
            return self._done(True)
        request = self._requests.delete_many(keys, noreply)
        if noreply:
            return self._send(request, len(keys), True)
        return self._call(DELETE_MANY, request, keys)

    delete_multi = delete_many

    def incr(self, key: KeyT, value: int, noreply: bool = False) -> IntR:
        """Add `value` (64 bits, not negative) to the number under `key`.

        See protocol.txt, "Increment/Decrement": the sum wraps at 2**64.  Returns the new number,
        None on a miss and with `noreply`.  `MemcacheClientError` where no number is stored.
        """
        request = self._requests.incr(key, value, noreply)
        return self._send(request, 1, None) if noreply else self._call(ARITHMETIC, request)

    def decr(self, key: KeyT, value: int, noreply: bool = False) -> IntR:
        """Subtract `value` (64 bits, not negative) from the number under `key`.

        See protocol.txt, "Increment/Decrement": it stops at 0.  Returns the new number, None on a
        miss and with `noreply`.  `MemcacheClientError` where no number is stored.
        """
        request = self._requests.decr(key, value, noreply)
        return self._send(request, 1, None) if noreply else self._call(ARITHMETIC, request)

    def touch(
        self, key: KeyT, expire: int | timedelta | datetime = 0, noreply: bool | None = None
    ) -> BoolR:
        """Give the item under `key` a new expiry (protocol.txt, "Touch").

        Returns True, False on a miss.
        """
        if noreply is None:
            noreply = self.default_noreply
        request = self._requests.touch(key, expire, noreply)
        return self._send(request, 1, True) if noreply else self._call(TOUCH, request)

    # -- the server --------------------------------------------------------------------------------

    def stats(self, *args: str | bytes | int) -> StatsR:
        """The server's statistics, as a dict with bytes keys (protocol.txt, "Statistics").

        `args` choose a sub-command, a word each: "items", "slabs", "settings", "conns", "sizes",
        "reset", ("detail", "on") ...  Whole numbers come as int, the known fractions as float and
        the known switches as bool, anything else as bytes.  Empty where the sub-command reports
        nothing; `MemcacheUnknownCommandError` where the server does not know it.
        """
        request = self._requests.stats(*args)
        if request in _STATS_OF_ONE_LINE:
            return self._call_raw(request, b"\r\n", convert_stats_line)
        return self._call(STATS, request, None, None, convert_stats)

    def version(self) -> TextR:
        """The server's version, as bytes, such as b"1.6.18" (protocol.txt, "Other commands")."""
        return self._call(VERSION, self._requests.version())

    def flush_all(self, delay: int | timedelta | datetime = 0, noreply: bool | None = None) -> OkR:
        """Make all items expire, in `delay` seconds (protocol.txt, "Other commands").

        `delay` may be all that `expire` is elsewhere, but negative.  Returns True.
        """
        if noreply is None:
            noreply = self.default_noreply
        request = self._requests.flush_all(delay, noreply)
        return self._send(request, 1, True) if noreply else self._call(OK, request)

    def cache_memlimit(self, memlimit: int) -> OkR:
        """Limit the server's memory to `memlimit` megabytes (protocol.txt, "Other commands").

        Returns True.  `MemcacheServerError` where the server refuses, as it does below 8.
        """
        return self._call(OK, self._requests.cache_memlimit(memlimit))

    def raw_command(self, command: str | bytes, end_tokens: str | bytes = "\r\n") -> TextR:
        """Send `command`, and return what comes before the first `end_tokens`, as bytes.

        Nothing in `command` is checked; its line end is added.  A reply that is an error line
        raises that error, whatever `end_tokens` are; one that refuses the command in other words
        ("BADCLASS invalid class id") raises `MemcacheServerError` where they are not in that line.
        memcached 1.6.45 begins the reply to ``lru_crawler metadump`` with a line "OK", and does not
        answer a command that ends with the word noreply.  Unless the command is one whose reply is
        known to be one line, its connection is closed afterwards: what else comes belongs to no
        other command.
        """
        request = self._requests.raw(command)
        return self._call_raw(request, end_token_of(end_tokens))

    def quit(self) -> NoneR:
        """Tell the server that we leave, and close (protocol.txt, "Other commands").

        The next command connects anew.
        """
        return self._leave(self._requests.quit(), False)

    def shutdown(self, graceful: bool = False) -> NoneR:
        """Ask the server to stop; `graceful` lets it finish first (protocol.txt, "Other commands").

        Where the server was not started with ``--enable-shutdown``: `MemcacheServerError`, and
        `MemcacheUnknownCommandError` before memcached 1.6.40.
        """
        return self._leave(self._requests.shutdown(graceful), True)


if TYPE_CHECKING:
    SyncCommands: TypeAlias = Commands[
        Key,
        Any,
        bool,
        bool | None,
        int | None,
        list[Any],
        dict[Any, Any],
        tuple[Any, Any],
        None,
        bool,
        bytes,
        dict[bytes, Any],
    ]
    ClusterCommands: TypeAlias = Commands[
        ClusterKey,
        Any,
        bool,
        bool | None,
        int | None,
        list[Any],
        dict[Any, Any],
        tuple[Any, Any],
        None,
        dict[str, bool],
        dict[str, bytes | None],
        dict[str, dict[bytes, Any]],
    ]
    Synchronous: TypeAlias = SyncCommands | ClusterCommands


remember(vars(Commands).values())
show(vars(Commands).values(), OF_ONE_SERVER)
