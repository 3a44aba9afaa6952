"""A cache backend for Django: ``"BACKEND": "cymemcache.contrib.django.CymemcacheCache"``.

It takes the settings of Django's own PyMemcacheCache, and reads and writes the same items.  Django
makes a backend for every thread, and under ASGI for every request; here those with equal settings
have one client, which keeps its connections when a request is over.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.memcached import BaseMemcachedCache

import cymemcache
from cymemcache.serde import pickle_serde

# (servers, options, client); settings differ in few places and seldom, so that there are few.
_clients: list[tuple[Any, dict[str, Any], cymemcache.HashClient]] = []
_lock = threading.Lock()


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

    @cached_property
    def _cache(self) -> cymemcache.HashClient:
        servers = list(self.client_servers)
        with _lock:
            for known, options, client in _clients:
                if known == servers and options == self._options:
                    return client
            client = self._class(servers, **self._options)
            _clients.append((servers, self._options, client))
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
            return timedelta(seconds=min(int(timeout), timedelta.max.days * 86_400))
        return timeout

    def close(self, **kwargs: Any) -> None:
        """Called by Django after every request: the connections stay for the next one."""
