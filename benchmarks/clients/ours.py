"""cymemcache; the environment says which implementation."""

from __future__ import annotations

from functools import partial
from typing import Any

from cymemcache import Client, serde

from ..workloads import Setup
from . import Commands, addresses


def options(setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = {"connect_timeout": setup.timeout, "timeout": setup.timeout}
    if setup.pickled:
        found["serde"] = serde.pickle_serde
    if setup.certificate is not None:
        import ssl

        found["tls_context"] = ssl.create_default_context(cafile=setup.certificate)
    return found


def commands(client: Any) -> Commands:
    """Of any of our clients."""
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
    return commands(Client(setup.servers[0], **options(setup)))


shared = single  # a Client may be used by any number of threads


def cluster(setup: Setup) -> Commands:
    from cymemcache import HashClient

    return commands(HashClient(list(setup.servers), **options(setup)))


def hasher(setup: Setup) -> Commands:
    from cymemcache.hashing import RendezvousHash

    return {"get_node": RendezvousHash(addresses(setup.servers)).get_node}


def hold(setup: Setup, count: int, key: str) -> Any:
    """One client with `count` idle connections, each of which has fetched `key`.

    A thread keeps a connection of its own from a noreply command to its next command.
    """
    from threading import Barrier, Thread

    client = Client(setup.servers[0], **options(setup))
    barrier = Barrier(count)

    def use() -> None:
        client.touch(key, noreply=True)
        barrier.wait()
        client.get(key)

    threads = [Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return client
