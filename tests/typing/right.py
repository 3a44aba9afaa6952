"""A right use of each public name: type checkers find nothing in it, and these types.

Read by mypy and pyright (`make lint`), never run.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, assert_type

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    ExponentialBackoff,
    FallbackClient,
    HashClient,
    KeepaliveOpts,
    KetamaHash,
    MemcacheError,
    MemcacheServerError,
    PooledClient,
    RetryingClient,
    serde,
)
from cymemcache.commands import Commands
from cymemcache.options import ClientOptions
from cymemcache.pool import ObjectPool
from cymemcache.serde import Serde
from cymemcache.testing import ManualClock, MockMemcacheClient

client = Client(("localhost", 11211))
Client("localhost:11211", timeout=0.5, connect_timeout=1, key_prefix="prefix", encoding="utf-8")
Client(server="unix:/run/memcached", socket_keepalive=KeepaliveOpts(idle=5))
Client("localhost", serde=serde.pickle_serde, username="user", password=b"secret")
Client("localhost", None, None, None, 1, 0.5)

Client("localhost", serde=None, serializer=None, deserializer=None, no_delay=True)
Client("localhost", ignore_exc=True, socket_module=socket, default_noreply=False, tls_context=None)
Client("localhost", allow_unicode_keys=True, max_value_size=1, max_request_size=1)
MockMemcacheClient(timeout=1, clock=ManualClock(), key_prefix=b"prefix")

options: ClientOptions = {"timeout": 1, "default_noreply": False}
Client("localhost", **options)

pooled = PooledClient("localhost", max_pool_size=4, pool_wait_timeout=0, timeout=1)
assert_type(pooled.get("key"), Any)
assert_type(pooled.client_pool.max_size, int)
assert_type(pooled.client_pool.used, tuple[int, ...])
with PooledClient("localhost") as limited:
    assert_type(limited, PooledClient)

objects = ObjectPool(list[int], after_remove=len, max_size=4, wait_timeout=1.5)
assert_type(objects.get(), list[int])
assert_type(objects.used, tuple[list[int], ...])
with objects.get_and_release(destroy_on_fail=True) as borrowed:
    assert_type(borrowed, list[int])


# -- results ---------------------------------------------------------------------------------------

assert_type(client.set("key", b"value", expire=5, noreply=False, flags=1), bool)
assert_type(client.set("key", b"value", expire=timedelta(days=40)), bool)
assert_type(client.touch("key", datetime.now(UTC)), bool)
assert_type(client.add(b"key", object()), bool)
assert_type(client.replace("key", 1), bool)
assert_type(client.append("key", "text"), bool)
assert_type(client.prepend("key", "text"), bool)
assert_type(client.cas("key", b"value", b"5"), bool | None)
assert_type(client.delete("key"), bool)
assert_type(client.delete_many(["key"]), bool)
assert_type(client.touch("key", 5), bool)
assert_type(client.incr("key", 5), int | None)
assert_type(client.decr("key", 5, noreply=True), int | None)
assert_type(client.version(), bytes)
assert_type(client.raw_command("version"), bytes)
assert_type(client.flush_all(), bool)
assert_type(client.cache_memlimit(64), bool)
assert_type(client.check_key("key"), bytes)
client.quit()
client.shutdown(graceful=True)
client.close()

# The serde decides what a value is.
assert_type(client.get("key"), Any)
assert_type(client.get("key", 5), Any)
assert_type(client.gat("key", 5, default=b""), Any)
assert_type(client["key"], Any)
assert_type(client.gets("key"), tuple[Any, Any])
assert_type(client.gats("key", 5), tuple[Any, Any])
assert_type(client.stats("items"), dict[bytes, Any])
assert_type("key" in client, bool)
client["key"] = 5
del client["key"]

# Keys come back as they were given.
mixed: list[str | bytes] = ["a", b"b"]
text: Iterable[str] = {"a": 1}.keys()
table: Mapping[bytes, int] = {b"a": 1}
assert_type(client.get_many(text), dict[str, Any])
assert_type(client.get_many(table), dict[bytes, Any])
assert_type(client.get_many(mixed), dict[str | bytes, Any])
assert_type(client.get_multi(iter(text)), dict[str, Any])
assert_type(client.gets_many(text), dict[str, tuple[Any, bytes]])
assert_type(client.gets_multi(table.keys()), dict[bytes, tuple[Any, bytes]])
assert_type(client.set_many({"a": 1}), list[Any])
assert_type(client.set_multi(table, 5), list[Any])


# -- the client itself -----------------------------------------------------------------------------

assert_type(client.server, tuple[str, int] | str)
assert_type(client.ignore_exc, bool)
assert_type(client.noreply_errors, int)


class Mine(Client):
    """A subclass stays itself."""


with Client("localhost") as entered, Mine("localhost") as mine:
    assert_type(entered, Client)
    assert_type(mine, Mine)
    assert_type(mine.get_many(text), dict[str, Any])

try:
    client.get("key")
except MemcacheServerError as error:
    base: MemcacheError = error


# -- serdes ----------------------------------------------------------------------------------------


class Own:
    """A serde of the user's."""

    def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
        return bytes(value), 0

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        return value


serdes: list[Serde] = [
    Own(),
    serde.PickleSerde(on_error="raise"),
    serde.JSONSerde(),
    serde.CompressedSerde(serde=Own(), max_decompressed_size=1000),
    serde.LegacyWrappingSerde(None, None),
]

# -- a cluster -------------------------------------------------------------------------------------

cluster = HashClient(["localhost", ("localhost", 11212), "/run/memcached"], timeout=1)
HashClient(
    ["localhost"], hasher=KetamaHash, retry_attempts=0, retry_timeout=1.5, dead_timeout=60,
    use_pooling=True, max_pool_size=4, pool_idle_timeout=5, lock_generator=threading.Lock,
)  # fmt: skip
assert_type(cluster.get("key"), Any)
assert_type(cluster.set("key", 1), bool)
assert_type(cluster.incr("key", 1), int | None)
assert_type(cluster.get_many(text), dict[str, Any])
assert_type(cluster.gets_many(table), dict[bytes, tuple[Any, bytes]])
assert_type(cluster.set_many({("server key", "key"): 1}), list[Any])

# The first of a pair tells the node.
assert_type(cluster.get(("server key", b"key")), Any)
assert_type(cluster.get_many([("server key", "key"), ("server key", "other")]), dict[Any, Any])
assert_type(cluster.delete_many([("server key", "key"), "key"]), bool)
assert_type(cluster.cas((b"server key", "key"), 1, 5), bool | None)

# What all nodes answer comes by the names of the nodes.
assert_type(cluster.version(), dict[str, bytes | None])
assert_type(cluster.raw_command("version"), dict[str, bytes | None])
assert_type(cluster.flush_all(), dict[str, bool])
assert_type(cluster.cache_memlimit(64), dict[str, bool])
assert_type(cluster.stats("items"), dict[str, dict[bytes, Any]])
assert_type(cluster.counters.nodes["localhost:11211"].hits, int)
cluster.add_server("localhost", 11213)
cluster.remove_server(("localhost", 11213))
with cluster as same_cluster:
    assert_type(same_cluster, HashClient)


def either(cache: Client | HashClient) -> Any:
    """An annotation may name both."""
    assert_type(cache.set("key", 1), bool)
    assert_type(cache.get_many(["key"]), dict[str, Any])
    assert_type(cache.version(), bytes | dict[str, bytes | None])
    return cache.get("key")


either(client)
either(pooled)
either(cluster)
kinds: list[type[Client] | type[HashClient]] = [Client, PooledClient, HashClient]
hasher = KetamaHash(["localhost:11211"], weights={"localhost:11211": 2})
assert_type(hasher.get_node("key"), str | None)

# -- clients made of others ------------------------------------------------------------------------

retrying = RetryingClient(client, 3, 0.5, [OSError, MemcacheError], {ValueError})
RetryingClient(client, backoff=ExponentialBackoff(base=0.1, jitter=0))
RetryingClient(client, backoff=lambda attempt: attempt * 0.1)
assert_type(retrying.get("key"), Any)

falling_back = FallbackClient([client, retrying])
assert_type(falling_back.get_many(text), dict[str, Any])
assert_type(falling_back.gets_many(table), dict[bytes, tuple[Any, bytes]])
assert_type(falling_back.set("key", 1), bool)
assert_type(falling_back.cas("key", 1, b"0"), bool | None)
assert_type(falling_back.gets("key"), tuple[Any, Any])
FallbackClient([cluster, client]).get(("server key", "key"))
with retrying as again, falling_back as behind:
    assert_type(again, RetryingClient)
    assert_type(behind, FallbackClient)

discovering = AWSElastiCacheHashClient("host:11211", use_vpc=False, discovery_interval=None)
assert_type(discovering.get_many(text), dict[str, Any])
assert_type(discovering.configuration_version, int)
with discovering as found:
    assert_type(found, AWSElastiCacheHashClient)

# -- the commands of a client whose hooks give awaitables ------------------------------------------

Awaiting: TypeAlias = Commands[
    str | bytes,
    Awaitable[Any],
    Awaitable[bool],
    Awaitable[bool | None],
    Awaitable[int | None],
    Awaitable[list[Any]],
    Awaitable[dict[Any, Any]],
    Awaitable[tuple[Any, Any]],
    Awaitable[None],
    Awaitable[bool],
    Awaitable[bytes],
    Awaitable[dict[bytes, Any]],
]


async def await_them(commands: Awaiting) -> None:
    """The same methods, the same signatures."""
    assert_type(await commands.set("key", 1), bool)
    assert_type(await commands.cas("key", 1, 5), bool | None)
    assert_type(await commands.incr("key", 1), int | None)
    assert_type(await commands.get_many(["key"]), dict[Any, Any])
    assert_type(await commands.gets_many(["key"]), dict[Any, Any])
    assert_type(await commands.version(), bytes)
