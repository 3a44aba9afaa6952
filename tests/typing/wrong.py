"""A wrong use on each line that has ``type: ignore``: type checkers complain where it is none.

Read by mypy and pyright (`make lint`), never run.
"""

from __future__ import annotations

from typing import Any

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    FallbackClient,
    HashClient,
    KeepaliveOpts,
    PooledClient,
    RetryingClient,
    serde,
)
from cymemcache.serde import Serde
from cymemcache.testing import MockMemcacheClient

client = Client("localhost")
cluster = HashClient(["localhost"])

# -- constructors ----------------------------------------------------------------------------------

Client()  # type: ignore[call-arg]
Client(11211)  # type: ignore[arg-type]
Client("localhost", time_out=1)  # type: ignore[call-arg]
Client("localhost", timeout="1")  # type: ignore[arg-type]
Client("localhost", ignore_exc=None)  # type: ignore[arg-type]
Client("localhost", socket_keepalive=True)  # type: ignore[arg-type]
Client("localhost", max_pool_size=4)  # type: ignore[call-arg]
PooledClient("localhost", pool_size=4)  # type: ignore[call-arg]
PooledClient("localhost", use_pooling=True)  # type: ignore[call-arg]
HashClient()  # type: ignore[call-arg]
HashClient(11211)  # type: ignore[arg-type]
HashClient(["localhost"], retries=4)  # type: ignore[call-arg]
HashClient(["localhost"], dead_timeout="60")  # type: ignore[arg-type]
HashClient(["localhost"], use_vpc=True)  # type: ignore[call-arg]
AWSElastiCacheHashClient("host:11211", discovery_interval="60")  # type: ignore[arg-type]
AWSElastiCacheHashClient("host:11211", use_vpn=True)  # type: ignore[call-arg]
MockMemcacheClient(time_out=1)  # type: ignore[call-arg]
KeepaliveOpts(idle="1")  # type: ignore[arg-type]
RetryingClient(client, retry_for=[KeyboardInterrupt])  # type: ignore[list-item]
RetryingClient(client, backoff=0.5)  # type: ignore[arg-type]
FallbackClient(client)  # type: ignore[arg-type]

# -- commands --------------------------------------------------------------------------------------

client.get(5)  # type: ignore[arg-type]
client.get(("server key", "key"))  # type: ignore[arg-type]
client.get_many(5)  # type: ignore[call-overload]
client.get_many([5])  # type: ignore[type-var]
client.get_many([("server key", "key")])  # type: ignore[type-var]
client.delete_many([5])  # type: ignore[list-item]
client.set("key")  # type: ignore[call-arg]
client.set("key", 1, expire="5")  # type: ignore[arg-type]
client.set("key", 1, exptime=5)  # type: ignore[call-arg]
client.set_many(["key"])  # type: ignore[arg-type]
client.incr("key", 1.5)  # type: ignore[arg-type]
client.cas("key", 1, None)  # type: ignore[arg-type]
client.stats(1.5)  # type: ignore[arg-type]
client.no_such_command()  # type: ignore[attr-defined]
client.noreply_errors = 5  # type: ignore[misc]
for _ in client:  # type: ignore[misc]
    pass

cluster.get(5)  # type: ignore[arg-type]
cluster.get(("server key", "key", "third"))  # type: ignore[arg-type]
cluster.get_many([("server key", 5)])  # type: ignore[type-var]
cluster.set("key", 1, expire="5")  # type: ignore[arg-type]
cluster.version().decode()  # type: ignore[attr-defined]
cluster.no_such_command()  # type: ignore[attr-defined]
FallbackClient([client]).set("key")  # type: ignore[call-arg]


def either(cache: Client | HashClient) -> Any:
    """What only one of them has."""
    cache.no_such_command()  # type: ignore[union-attr]
    return cache.add_server("localhost")  # type: ignore[union-attr]


either(5)  # type: ignore[arg-type]

# -- serdes ----------------------------------------------------------------------------------------


class Half:
    """No serde: it cannot deserialize."""

    def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
        return bytes(value), 0


half: Serde = Half()  # type: ignore[assignment]
serde.PickleSerde(on_error="ignore")  # type: ignore[arg-type]
