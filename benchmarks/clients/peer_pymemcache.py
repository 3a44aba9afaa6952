"""pymemcache.  Nagle's algorithm is on unless asked otherwise."""

from __future__ import annotations

from functools import partial
from typing import Any

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.rendezvous import RendezvousHash

from ..workloads import Setup
from . import Commands, addresses


def _options(setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = {
        "connect_timeout": setup.timeout,
        "timeout": setup.timeout,
        "no_delay": True,
    }
    if setup.pickled:
        found["serde"] = serde.pickle_serde
    if setup.certificate is not None:
        import ssl

        found["tls_context"] = ssl.create_default_context(cafile=setup.certificate)
    return found


def _commands(client: Any) -> Commands:
    gets, cas = client.gets, client.cas

    def cas_loop(key: str, value: Any) -> Any:
        return cas(key, value, gets(key)[1])

    return {
        "get": client.get,
        "get_miss": client.get,
        "set": partial(client.set, noreply=False),
        "set_noreply": partial(client.set, noreply=True),
        "get_many": client.get_many,
        "set_many": partial(client.set_many, noreply=False),
        "delete_many": partial(client.delete_many, noreply=False),
        "incr": client.incr,
        "cas_loop": cas_loop,
    }


def single(setup: Setup) -> Commands:
    return _commands(Client(setup.servers[0], **_options(setup)))


def shared(setup: Setup) -> Commands:
    pooled = PooledClient(setup.servers[0], max_pool_size=setup.threads, **_options(setup))
    return _commands(pooled)


def cluster(setup: Setup) -> Commands:
    return _commands(HashClient(list(setup.servers), **_options(setup)))


def hasher(setup: Setup) -> Commands:
    return {"get_node": RendezvousHash(addresses(setup.servers)).get_node}
