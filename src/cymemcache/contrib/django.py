"""A cache backend for Django: ``"BACKEND": "cymemcache.contrib.django.CymemcacheCache"``.

It takes the settings of Django's own PyMemcacheCache, and reads and writes the same items.  Django
makes a backend for every thread, and under ASGI for every request; here those with equal settings
have one client, which keeps its connections when a request is over.  The clients end with
`close_clients`, which is called when ``CACHES`` change (``override_settings`` in tests).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.signals import setting_changed
from django.utils.functional import cached_property  # Python 3.11 locks in its own

import cymemcache
from cymemcache.forks import Lock
from cymemcache.serde import pickle_serde


class _Clients:
    """The client of each class, list of servers and options, as long as it is not closed."""

    _lock = Lock()

    def __init__(self) -> None:
        self._made: list[tuple[tuple[Any, list[Any], dict[str, Any]], Any]] = []

    def client(self, kind: Any, servers: list[Any], options: dict[str, Any]) -> Any:
        wanted = (kind, servers, options)
        with self._lock:
            for settings, client in self._made:
                if settings == wanted:
                    return client
            client = kind(servers, **options)
            self._made.append((wanted, client))
            return client

    def close(self) -> None:
        while self._made:
            with self._lock:
                _, client = self._made.pop() if self._made else (None, None)
            if client is not None:
                client.close()


_clients = _Clients()


def close_clients() -> None:
    """Close the connections of all caches of this backend, and forget their clients.

    Caches that are in use go on: their next command connects again.
    """
    _clients.close()


def _follow_settings(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHES":
        close_clients()


setting_changed.connect(_follow_settings, dispatch_uid="cymemcache.contrib.django")


class CymemcacheCache(BaseMemcachedCache):  # type: ignore[misc]
    """``LOCATION`` is one server or a list, ``OPTIONS`` are the options of `HashClient`."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(server, params, library=cymemcache, value_not_found_exception=KeyError)
        self._class = cymemcache.HashClient
        self._options: dict[str, Any] = {
            "allow_unicode_keys": True,
            "default_noreply": False,
            "serde": pickle_serde,
            **(params.get("OPTIONS") or {}),
        }

    @cached_property  # type: ignore[untyped-decorator]
    def _cache(self) -> cymemcache.HashClient:
        client: cymemcache.HashClient = _clients.client(
            self._class, list(self.client_servers), self._options
        )
        return client

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> Any:
        """What the client takes for a timeout of Django's: a span of any length, 0 for at once.

        A timedelta and an aware datetime are the client's own.
        """
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return 0
        if isinstance(timeout, (int, float, str)):
            return timedelta(seconds=max(-1, min(int(timeout), timedelta.max.days * 86_400)))
        return timeout

    def close(self, **kwargs: Any) -> None:
        """Called by Django after every request: the connections stay for the next one."""
