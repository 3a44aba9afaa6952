"""python-memcached.  Its one client shards over the servers, and keeps sockets per thread."""

from __future__ import annotations

from functools import partial
from typing import Any

from memcache import Client

from ..workloads import Setup
from . import Commands, Unsupported, addresses


def single(setup: Setup) -> Commands:
    if setup.certificate is not None:
        raise Unsupported("no TLS")
    client = Client(
        addresses(setup.servers, unix="unix:"),
        socket_timeout=setup.timeout,
        # It takes a cas token only from its own notes, which cost the other commands time.
        cache_cas=setup.command == "cas_loop",
    )
    gets, cas = client.gets, client.cas

    def cas_loop(key: str, value: Any) -> Any:
        gets(key)
        return cas(key, value)

    return {
        "get": client.get,
        "get_miss": client.get,
        "set": client.set,
        "set_noreply": partial(client.set, noreply=True),
        "get_many": client.get_multi,
        "set_many": client.set_multi,
        "delete_many": client.delete_multi,
        "incr": client.incr,
        "cas_loop": cas_loop,
    }


cluster = shared = single
