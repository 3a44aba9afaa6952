"""meta-memcache, which has only the meta protocol, with its compiled socket.

It has no set_many: its users loop.  Its sockets are made by a function that one may replace, which
is the documented way to a UNIX socket.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import meta_memcache_socket  # noqa: F401  # without it there is nothing to compare
from meta_memcache import CacheClient, ServerAddress, connection_pool_factory_builder
from meta_memcache.connection.pool import ConnectionPool
from meta_memcache.serializer import MixedSerializer

from ..workloads import Setup
from . import Commands, Unsupported

_TTL = 3600


class _Serializer(MixedSerializer):
    """Its usual one, without the compression of all but small values: the others do none."""

    COMPRESSION_THRESHOLD = 1 << 31


def _client(setup: Setup) -> Any:
    if setup.certificate is not None:
        raise Unsupported("its compiled socket knows no TLS")
    if setup.timeout is None:
        raise Unsupported("always with timeouts")
    if isinstance(setup.servers[0], str):
        servers = [ServerAddress(path, 0) for path in setup.servers]
        pools = partial(_unix_pool, setup=setup)
    else:
        servers = [ServerAddress(host, port) for host, port in setup.servers]
        pools = connection_pool_factory_builder(
            max_pool_size=setup.threads,
            connection_timeout=setup.timeout,
            recv_timeout=setup.timeout,
            read_buffer_size=_buffer_size(setup),
        )
    return CacheClient.cache_client_from_servers(servers, pools, serializer=_Serializer())


def _buffer_size(setup: Setup) -> int:
    # The default, 4 KB, makes it read larger values a little at a time: a second for 100 KB.
    return max(4096, 2 * setup.largest)


def _unix_pool(server: ServerAddress, setup: Setup) -> ConnectionPool:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(setup.timeout)
        sock.connect(server.host)
        return sock

    return ConnectionPool(
        server.host,
        connect,
        initial_pool_size=1,
        max_pool_size=1,
        read_buffer_size=_buffer_size(setup),
    )


def single(setup: Setup) -> Commands:
    client = _client(setup)
    get_cas = client.get_cas
    set_ = partial(client.set, ttl=_TTL)

    def set_many(items: dict[str, Any]) -> None:
        for key, value in items.items():
            if not set_(key, value):
                raise RuntimeError(f"{key} was not stored")

    def delete_many(keys: list[str]) -> None:
        for key in keys:
            client.delete(key)

    def cas_loop(key: str, value: Any) -> Any:
        return set_(key, value, cas_token=get_cas(key)[1])

    return {
        "get": client.get,
        "get_miss": client.get,
        "set": set_,
        "set_noreply": partial(set_, no_reply=True),
        "get_many": client.multi_get,
        "set_many": set_many,
        "delete_many": delete_many,
        "incr": client.delta_and_get,
        "cas_loop": cas_loop,
    }


cluster = shared = single
