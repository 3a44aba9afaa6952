"""What memcached 1.6.45 does otherwise than 1.6.18 is right with every client, on both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    FallbackClient,
    HashClient,
    MemcacheServerError,
    MemcacheUnknownCommandError,
    PooledClient,
    RetryingClient,
)
from cymemcache.core import replies
from cymemcache.testing import EmbeddedServer
from wire import PATIENCE, block

VERSIONS = ["1.6.18", "1.6.45"]
CLIENTS: dict[str, Any] = {
    "Client": lambda address: Client(address, timeout=PATIENCE),
    "PooledClient": lambda address: PooledClient(address, timeout=PATIENCE),
    "HashClient": lambda address: HashClient([address], timeout=PATIENCE),
    "HashClient, pooling": lambda address: HashClient(
        [address], timeout=PATIENCE, use_pooling=True
    ),
    "RetryingClient": lambda address: RetryingClient(Client(address, timeout=PATIENCE)),
    "FallbackClient": lambda address: FallbackClient([Client(address, timeout=PATIENCE)]),
    "AWSElastiCacheHashClient": lambda address: AWSElastiCacheHashClient(
        "{}:{}".format(*address), timeout=PATIENCE
    ),
}


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(version=request.param) as server:
        server.cluster_config = "1\n{0}|{0}|{1}\n".format(*server.address)
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[Client]:
    with Client(server.address, timeout=PATIENCE) as client:
        yield client


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_key_named_noreply_is_deleted_and_the_deletion_answered(
    server: EmbeddedServer, kind: str
) -> None:
    client = CLIENTS[kind](server.address)
    keys = ["a", "noreply", "b"]
    client.set_many(dict.fromkeys(keys, b"1"), noreply=False)
    assert client.delete("noreply", noreply=False) is True
    assert client.delete("noreply", noreply=False) is False
    client.set("noreply", b"1", noreply=False)
    assert client.delete_many(keys, noreply=False) is True
    assert client.get_many(keys) == {}
    client.set("noreply", b"1", noreply=False)
    client.delete("noreply", noreply=True)
    assert client.get("noreply") is None
    client.close()


def test_every_command_takes_a_key_named_noreply(client: Client) -> None:
    assert client.set("noreply", b"1", noreply=False) is True
    assert client.add("noreply", b"1", noreply=False) is False
    assert client.replace("noreply", b"1", noreply=False) is True
    assert client.append("noreply", b"2", noreply=False) is True
    assert client.prepend("noreply", b"3", noreply=False) is True
    assert client.get("noreply") == client.gat("noreply", expire=60) == b"312"
    assert client.get_many(["x", "noreply"]) == {"noreply": b"312"}
    value, token = client.gets("noreply")
    assert client.gats("noreply", expire=60) == (value, token)
    assert client.cas("noreply", b"5", token) is True
    assert client.incr("noreply", 1) == 6
    assert client.decr("noreply", 1) == 5
    assert client.touch("noreply", 60, noreply=False) is True


def test_shutdown_that_is_not_enabled_raises(client: Client) -> None:
    with pytest.raises(
        (MemcacheServerError, MemcacheUnknownCommandError), match=r"^shutdown not enabled$"
    ):
        client.shutdown()


def test_dumps_are_read_whatever_they_begin_with(server: EmbeddedServer, client: Client) -> None:
    client.set_many({"a": b"1", "b": b"2"}, noreply=False)
    metadump = client._requests.lru_crawler("metadump", "all")
    lines = client._call(replies.METADUMP, metadump)
    assert sorted(line.split()[0] for line in lines) == [b"key=a", b"key=b"]
    client.delete_many(["a", "b"], noreply=False)
    assert client._call(replies.METADUMP, metadump) == []
    with pytest.raises(MemcacheServerError, match=r"^BADCLASS"):
        client._call(replies.METADUMP, client._requests.lru_crawler("metadump", 999))
    assert client.get("a") is None


def test_an_embedded_server_of_a_newer_version_reads_lines_as_that_does() -> None:
    script = block(b"set n 0 0 #", b"10") + b"".join(
        line + b"\r\n"
        for line in (
            *(b"get", b"x", b" get n", b"bogus", b"bogus noreply", b"incr n +5", b"touch n 1e3"),
            *(b"delete noreply", b"delete n x y", b"set n 0 0 -1 noreply", b"set n x 0 1\r\nv"),
            *(b"shutdown", b"stats sizes_enable", b"gat 10", b"cas n 0 0 1\r\nv", b"get n", b"mn"),
        )
    )
    bad = b"CLIENT_ERROR bad command line format\r\n"
    with EmbeddedServer(version="1.6.45") as server, Client(server.address) as client:
        reply = client.raw_command(script[:-2].decode(), "MN\r\n")
    assert reply == b"".join(
        (
            *(b"STORED\r\n", bad, bad, b"ERROR\r\n", b"ERROR\r\n"),
            b"CLIENT_ERROR invalid numeric delta argument\r\n",
            b"CLIENT_ERROR invalid exptime argument\r\n",
            *(b"DELETED\r\n", bad, bad, b"SERVER_ERROR: shutdown not enabled\r\n"),
            *(b"ERROR\r\n", bad, bad, b"END\r\n"),
        )
    )
