"""``client[key]``: what Python's own syntax for containers does with a client, by its methods.

A subclass's `get`, and a tracer's wrapper of it, is what answers here too.  Nothing in here may
reach a server in another way.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Subscripts:
    """``client[key]``, ``client[key] = value``, ``del client[key]`` and ``key in client``.

    Storing and deleting do not wait for the server (`noreply`).  None is no value here: of an item
    that the serde makes None of, ``client[key]`` says that it is not there.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # Of the client.
        get: Any
        set: Any
        delete: Any

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value, noreply=True)

    def __delitem__(self, key: Any) -> None:
        self.delete(key, noreply=True)

    def __contains__(self, key: Any) -> bool:
        return self.get(key) is not None

    # A server does not tell its keys.  Without these Python would ask for the keys 0, 1, 2 ...
    __iter__ = None
    __reversed__ = None
