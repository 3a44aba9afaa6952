"""python-binary-memcached, which has only the binary protocol and keeps sockets per thread."""

from __future__ import annotations

from functools import partial
from typing import Any

from bmemcached import Client, DistributedClient

from ..workloads import Setup
from . import Commands, addresses


def _client(kind: type, setup: Setup) -> Any:
    options = {}
    if setup.certificate is not None:
        import ssl

        options["tls_context"] = ssl.create_default_context(cafile=setup.certificate)
    return kind(addresses(setup.servers), socket_timeout=setup.timeout, **options)


def _commands(client: Any) -> Commands:
    gets, cas = client.gets, client.cas

    def cas_loop(key: str, value: Any) -> Any:
        return cas(key, value, gets(key)[1])

    return {
        "get": client.get,
        "get_miss": client.get,
        "set": partial(client.set, compress_level=0),  # as the others: it would compress
        "get_many": client.get_multi,
        "set_many": partial(client.set_multi, compress_level=0),
        "delete_many": client.delete_multi,
        "incr": client.incr,
        "cas_loop": cas_loop,
    }


def single(setup: Setup) -> Commands:
    return _commands(_client(Client, setup))


shared = single


def cluster(setup: Setup) -> Commands:
    return _commands(_client(DistributedClient, setup))
