"""A client around several caches, of which the later ones are asked for what the earlier ones miss:
`FallbackClient`.

It lets a new cache warm up in front of an old one.  It must never write to any cache but the first,
and never hand a cas token to another cache than the one that gave it.
"""

from __future__ import annotations

from inspect import cleandoc, signature

from .command_types import OF_ONE_SERVER, show
from .commands import Commands
from .core.arguments import listed, refuse_text, require_client
from .counters import total
from .interruptions import is_interruption
from .subscripts import Subscripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Any, Self, TypeAlias

    from .commands import ClusterKey, K
    from .counters import Counters

    # What a command without a key gives depends on the first cache: a dict where it is a cluster.
    FallbackCommands: TypeAlias = Commands[
        ClusterKey,
        Any,
        bool,
        bool | None,
        int | None,
        list[Any],
        dict[Any, Any],
        tuple[Any, Any],
        None,
        Any,
        Any,
        Any,
    ]
else:
    FallbackCommands = Commands

_MISS: Any = object()

# The cas token of an item that a later cache has, and the first one has not.  Servers count their
# tokens from 1, so it matches no item, wherever it may be sent.
_NOT_IN_FIRST = b"0"
# The same in each type that a token may be given in.
_SAME = {bytes: _NOT_IN_FIRST, str: "0", int: 0}


class FallbackClient(FallbackCommands, Subscripts):
    """Reads from the first of `caches` that has the item, writes to the first one only.

    `caches` are clients, the one to be used from now on first; the list is kept, not copied.

    - get, gets, gat, gats, get_many, gets_many and ``[]`` ask each cache for what those before it
      did not have.  Any value that a cache has is a hit, be it empty, zero or equal to the default.
    - close, disconnect_all and quit are done on every cache.
    - Everything else is done on the first cache alone, and gives what that gives.  That holds for
      delete and flush_all too: what an older cache has is read again after them.  It holds for
      stats and version; ``caches[1].stats()`` asks another one.

    An error of any cache that is asked is raised.  A cache with ``ignore_exc`` misses instead, and
    the next one is asked; the older caches had better be such, so that they can be taken down.
    Raises `ValueError` where there are no caches, `TypeError` where they are no list of clients.
    """

    __module__ = "cymemcache"

    def __init__(self, caches: Sequence[Any]) -> None:
        if not hasattr(caches, "__len__") or not hasattr(caches, "__getitem__"):
            raise TypeError(f"caches must be a list of clients, not {caches!r}")
        refuse_text(caches, "caches")
        if len(caches) == 0:
            raise ValueError("caches must hold at least one client")
        for number, cache in enumerate(caches):
            require_client(cache, f"caches[{number}]")
        self.caches = caches

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(map(repr, self.caches))}>"

    @property
    def counters(self) -> Counters:
        """The sum of what the caches have counted that count.

        A key that only the second one has is a miss of the first and a hit of the second.
        """
        return total(cache.counters for cache in self.caches if hasattr(cache, "counters"))

    # -- each cache in turn ------------------------------------------------------------------------

    def get(self, key: ClusterKey, default: Any = None) -> Any:
        """The value under `key` in the first cache that has it, `default` where none has.

        See protocol.txt, "Retrieval command".
        """
        for cache in self.caches:
            value = cache.get(key, default=_MISS)
            if value is not _MISS:
                return value
        return default

    def gat(
        self, key: ClusterKey, expire: int | timedelta | datetime = 0, default: Any = None
    ) -> Any:
        """Get and touch, in the first cache that has `key`: its value, or `default`.

        The item's expiry becomes `expire` in that cache.  See protocol.txt, "Get And Touch".
        """
        for cache in self.caches:
            value = cache.gat(key, expire, default=_MISS)
            if value is not _MISS:
                return value
        return default

    def gets(
        self, key: ClusterKey, default: Any = None, cas_default: Any = None
    ) -> tuple[Any, Any]:
        """The value under `key` and a cas token (bytes), from the first cache that has it.

        ``(default, cas_default)`` where none has.  The token is for `cas` of this client: one of
        another cache than the first is b"0".  See protocol.txt, "Retrieval command".
        """
        for position, cache in enumerate(self.caches):
            value, cas = cache.gets(key, default=_MISS)
            if value is not _MISS:
                return value, _NOT_IN_FIRST if position else cas
        return default, cas_default

    def gats(
        self,
        key: ClusterKey,
        expire: int | timedelta | datetime = 0,
        default: Any = None,
        cas_default: Any = None,
    ) -> tuple[Any, Any]:
        """Like `gat`, with a cas token as `gets` gives it: ``(value, cas)``.

        ``(default, cas_default)`` where none has it.  See protocol.txt, "Get And Touch".
        """
        for position, cache in enumerate(self.caches):
            value, cas = cache.gats(key, expire, default=_MISS)
            if value is not _MISS:
                return value, _NOT_IN_FIRST if position else cas
        return default, cas_default

    def get_many(self, keys: Iterable[K]) -> dict[K, Any]:
        """The values under `keys`, as a dict from the keys given; what no cache has is left out.

        Each cache is asked once, for the keys that those before it did not have, and not at all
        where there are none left.  See protocol.txt, "Retrieval command".
        """
        missing = listed(keys)
        found: dict[K, Any] = {}
        for cache in self.caches:
            if not missing:
                break
            found |= cache.get_many(missing)
            missing = _not_in(found, missing)
        return found

    get_multi = get_many

    def gets_many(self, keys: Iterable[K]) -> dict[K, tuple[Any, bytes]]:
        """Like `get_many`, with cas tokens as `gets` gives them: ``{key: (value, cas)}``.

        See protocol.txt, "Retrieval command".
        """
        missing = listed(keys)
        found: dict[K, tuple[Any, bytes]] = {}
        for position, cache in enumerate(self.caches):
            if not missing:
                break
            for key, (value, cas) in cache.gets_many(missing).items():
                found[key] = value, _NOT_IN_FIRST if position else cas
            missing = _not_in(found, missing)
        return found

    gets_multi = gets_many

    # -- the first cache ---------------------------------------------------------------------------

    def cas(
        self,
        key: ClusterKey,
        value: Any,
        cas: int | str | bytes,
        expire: int | timedelta | datetime = 0,
        noreply: bool = False,
        flags: int | None = None,
    ) -> bool | None:
        """Store `value` in the first cache, unless its item has changed since `gets` gave `cas`.

        See protocol.txt, "Storage commands".  Returns True where it was stored, False where
        somebody else has changed the item, None where it is gone.  Where `gets` found the item in
        another cache, it is added to the first: False where somebody else was quicker.
        """
        first = self.caches[0]
        if cas == _SAME.get(type(cas), _MISS):
            stored: bool = first.add(key, value, expire, noreply, flags)
            return stored
        result: bool | None = first.cas(key, value, cas, expire, noreply, flags)
        return result

    # -- every cache -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every cache's connections; the first error is raised when all have been tried."""
        self._each("close")

    disconnect_all = close

    def quit(self) -> None:
        """Quit every cache; the first error is raised when all have been tried.

        See protocol.txt, "Other commands".
        """
        self._each("quit")

    def _each(self, command: str) -> None:
        first_error = None
        for cache in self.caches:
            try:
                getattr(cache, command)()
            except Exception as error:
                if is_interruption(error):
                    raise
                if first_error is None:
                    first_error = error
        if first_error is not None:
            raise first_error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._each("close")


def _not_in(found: dict[Any, Any], keys: list[Any]) -> list[Any]:
    """Those of `keys` that are not in `found`, where a ``(server key, key)`` is under its key."""
    return [
        key
        for key in keys
        if key not in found and not (isinstance(key, tuple) and len(key) == 2 and key[1] in found)
    ]


def _on_first(command: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is `command` of the first cache; it shows the same signature."""
    name = command.__name__

    def method(self: FallbackClient, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.caches[0], name)(*args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"FallbackClient.{name}"
    method.__doc__ = f"{cleandoc(command.__doc__ or '')}\n\nIn the first cache only."
    method.__signature__ = signature(command)  # type: ignore[attr-defined]
    return method


for _name, _command in vars(Commands).items():
    if not _name.startswith("_") and _name not in vars(FallbackClient):
        if _name == _command.__name__:
            setattr(FallbackClient, _name, _on_first(_command))
        else:  # set_multi is another name of set_many
            setattr(FallbackClient, _name, getattr(FallbackClient, _command.__name__))

show(vars(FallbackClient).values(), OF_ONE_SERVER)
