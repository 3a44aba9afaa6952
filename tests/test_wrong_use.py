"""Wrong uses that are easily made, and errors that say what to write instead.

Nothing here connects to anything.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    FallbackClient,
    HashClient,
    KetamaHash,
    MemcacheIllegalInputError,
    PooledClient,
    RetryingClient,
)
from cymemcache.hashing import RendezvousHash
from cymemcache.serde import CompressedSerde, JSONSerde, PickleSerde
from cymemcache.testing import MockMemcacheClient

CLIENTS: dict[str, Callable[[], Any]] = {
    "Client": lambda: Client("localhost"),
    "PooledClient": lambda: PooledClient("localhost"),
    "HashClient": lambda: HashClient(["localhost"]),
    "pooled HashClient": lambda: HashClient(["localhost"], use_pooling=True),
    "RetryingClient": lambda: RetryingClient(Client("localhost")),
    "FallbackClient": lambda: FallbackClient([Client("localhost")]),
    "MockMemcacheClient": MockMemcacheClient,
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]()


# -- text where a list belongs ---------------------------------------------------------------------


@pytest.mark.parametrize("text", ["abc", b"abc", bytearray(b"abc")], ids=ascii)
@pytest.mark.parametrize(
    "method", ["get_many", "get_multi", "gets_many", "gets_multi", "delete_many", "delete_multi"]
)
def test_text_is_no_list_of_keys(client: Any, method: str, text: Any) -> None:
    with pytest.raises(TypeError, match=r"^keys must be a list.*; write \[") as caught:
        getattr(client, method)(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("values", ["ab", b"ab", ["a"], [("a", 1)], 5, None], ids=ascii)
@pytest.mark.parametrize("method", ["set_many", "set_multi"])
def test_what_is_no_mapping_has_no_values(client: Any, method: str, values: Any) -> None:
    with pytest.raises(TypeError, match=r"^values must be a mapping"):
        getattr(client, method)(values)


@pytest.mark.parametrize("servers", ["localhost", "localhost:11211", b"localhost"], ids=ascii)
def test_one_address_is_no_list_of_servers(servers: Any) -> None:
    with pytest.raises(TypeError, match=r"^servers must be a list.*; write \["):
        HashClient(servers)


def test_one_pair_is_no_list_of_servers() -> None:
    with pytest.raises(TypeError, match=r"write \[\('localhost', 11211\)\]"):
        HashClient(("localhost", 11211))
    cluster = HashClient((("localhost", 11211), ("localhost", 11212)))
    assert list(cluster.clients) == ["localhost:11211", "localhost:11212"]


@pytest.mark.parametrize("servers", [None, 5])
def test_what_is_no_list_has_no_servers(servers: Any) -> None:
    with pytest.raises(TypeError, match=r"^servers must be a list, or another iterable, not"):
        HashClient(servers)


def test_text_is_no_list_of_nodes_or_caches() -> None:
    for hasher in (RendezvousHash, KetamaHash):
        with pytest.raises(TypeError, match=r"^nodes must be a list"):
            hasher("localhost:11211")
    with pytest.raises(TypeError, match=r"^caches must be a list"):
        FallbackClient("localhost")  # type: ignore[arg-type]


# -- constructors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [11211, "11211"])
@pytest.mark.parametrize(
    "kind", [Client, PooledClient, HashClient, AWSElastiCacheHashClient, MockMemcacheClient]
)
def test_host_and_port_are_one_argument(kind: Callable[..., Any], port: Any) -> None:
    with pytest.raises(TypeError, match=r'host and port as one argument.*"host:11211"'):
        kind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("kind", "option", "takers"),
    [
        (Client, "max_pool_size", "PooledClient"),
        (Client, "hasher", "HashClient"),
        (PooledClient, "use_pooling", "HashClient"),
        (HashClient, "discovery_interval", "AWSElastiCacheHashClient"),
    ],
)
def test_an_option_of_another_client_is_said_to_be_one(
    kind: Callable[..., Any], option: str, takers: str
) -> None:
    with pytest.raises(TypeError) as caught:
        kind(["localhost"], **{option: 1})
    assert f"has no option {option!r}, {takers}" in str(caught.value)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"tls_context": True},
        {"socket_keepalive": (1, 1, 5)},
        {"username": "user"},
        {"username": "two words", "password": "secret"},
        {"server": "/run/memcached", "tls_context": ssl.create_default_context()},
        {"server": "memcached://localhost"},
        {"server": ""},
        {"max_pool_size": 4},
        {"timeout": 0},
    ],
    ids=str,
)
def test_the_mock_refuses_what_the_client_refuses(given: dict[str, Any]) -> None:
    refused = []
    for kind in (Client, MockMemcacheClient):
        with pytest.raises((TypeError, ValueError, MemcacheIllegalInputError)) as caught:
            kind(**{"server": "localhost", **given})
        refused.append(str(caught.value).replace(kind.__name__, "Client"))
    assert refused[0] == refused[1]


@pytest.mark.parametrize("serde", [JSONSerde, PickleSerde, CompressedSerde])
@pytest.mark.parametrize("kind", [Client, PooledClient, MockMemcacheClient])
def test_the_class_of_a_serde_is_no_serde(kind: Callable[..., Any], serde: Any) -> None:
    with pytest.raises(TypeError, match=rf"write serde={serde.__name__}\(\)"):
        kind("localhost", serde=serde)


def test_a_class_may_be_a_serde_where_its_methods_need_no_instance() -> None:
    class Own:
        @staticmethod
        def serialize(key: Any, value: Any) -> tuple[bytes, int]:
            return repr(value).encode(), 1

        @classmethod
        def deserialize(cls, key: Any, value: bytes, flags: int) -> Any:
            return value, flags

    client = MockMemcacheClient(serde=Own)
    client.set("key", 1.5)
    assert client.get("key") == (b"1.5", 1)


def test_the_path_of_a_socket_needs_a_platform_that_has_such() -> None:
    class Module:
        AF_INET, AF_UNSPEC, SOCK_STREAM, IPPROTO_TCP = range(4)

        @staticmethod
        def socket(*_: Any) -> Any:
            raise AssertionError

    for kind, server in ((Client, "unix:/run/memcached"), (HashClient, ["/run/memcached"])):
        with pytest.raises(ValueError, match="has no AF_UNIX"):
            kind(server, socket_module=Module)  # type: ignore[operator]


# -- a client as a container -----------------------------------------------------------------------


def test_a_client_has_no_keys_to_go_through(client: Any) -> None:
    for go_through in (list, iter, reversed, lambda client: [*client]):
        with pytest.raises(TypeError, match=r"(iterable|reversible|iterator)"):
            go_through(client)
    assert not isinstance(client, Iterable)


def test_a_key_is_in_a_client_that_has_it() -> None:
    mock = MockMemcacheClient()
    for client in (mock, RetryingClient(mock), FallbackClient([mock])):
        client["key"] = b""
        assert "key" in client
        del client["key"]
        assert "key" not in client
        with pytest.raises(TypeError, match="key must be str or bytes, not int"):
            _ = 5 in client
