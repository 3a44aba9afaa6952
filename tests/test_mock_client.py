"""MockMemcacheClient does what Client does, without a server, and takes the place of pymemcache's.

It is the real client on a cache in memory: the tests hold every command against the answers that a
client gets from memcached.
"""

from __future__ import annotations

import inspect
import pickle
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymemcache.test.utils import MockMemcacheClient as Reference

from cymemcache import Client, MemcacheClientError, MemcacheIllegalInputError, MemcacheServerError
from cymemcache.serde import PickleSerde
from cymemcache.testing import ManualClock, MockMemcacheClient


@pytest.fixture
def client() -> MockMemcacheClient:
    return MockMemcacheClient(default_noreply=False)


def test_it_is_a_client() -> None:
    assert issubclass(MockMemcacheClient, Client)


def test_it_needs_neither_server_nor_sockets_nor_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the mock must not get here")

    threads = threading.active_count()
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket, "socket", fail)
    with MockMemcacheClient(("nowhere.invalid", 1)) as client:
        client.set("k", "v")
        assert client.get("k") == b"v"
        assert client.server == ("nowhere.invalid", 1)
    assert threading.active_count() == threads


def test_each_has_a_cache_of_its_own() -> None:
    one, other = MockMemcacheClient("localhost"), MockMemcacheClient("localhost")
    one.set("k", "v")
    assert other.get("k") is None
    assert one.get("k") == b"v"


@pytest.mark.parametrize(
    ("command", "arguments", "result", "left"),
    [
        ("set", ("k", "new"), True, b"new"),
        ("set", ("x", "new"), True, b"10"),
        ("add", ("k", "new"), False, b"10"),
        ("add", ("x", "new"), True, b"10"),
        ("replace", ("k", "new"), True, b"new"),
        ("replace", ("x", "new"), False, b"10"),
        ("append", ("k", "0"), True, b"100"),
        ("append", ("x", "0"), False, b"10"),
        ("prepend", ("k", "0"), True, b"010"),
        ("prepend", ("x", "0"), False, b"10"),
        ("cas", ("k", "new", b"1"), True, b"new"),
        ("cas", ("k", "new", b"7"), False, b"10"),
        ("cas", ("x", "new", b"1"), None, b"10"),
        ("set_many", ({"k": "new", "x": "y"},), [], b"new"),
        ("set_multi", ({"k": "new", "x": "y"},), [], b"new"),
        ("get", ("k",), b"10", b"10"),
        ("get", ("x",), None, b"10"),
        ("get", ("x", "default"), "default", b"10"),
        ("gets", ("k",), (b"10", b"1"), b"10"),
        ("gets", ("x", "a", "b"), ("a", "b"), b"10"),
        ("gat", ("k", 5), b"10", b"10"),
        ("gat", ("x", 5, "default"), "default", b"10"),
        ("gat", ("k", -1), b"10", None),
        ("gats", ("k", 5), (b"10", b"1"), b"10"),
        ("get_many", (["k", "x"],), {"k": b"10"}, b"10"),
        ("get_multi", ([b"k"],), {b"k": b"10"}, b"10"),
        ("gets_many", (["x", "k"],), {"k": (b"10", b"1")}, b"10"),
        ("delete", ("k",), True, None),
        ("delete", ("x",), False, b"10"),
        ("delete_many", (["k", "x"],), True, None),
        ("delete_multi", (["x"],), True, b"10"),
        ("incr", ("k", 5), 15, b"15"),
        ("incr", ("x", 5), None, b"10"),
        ("decr", ("k", 1), 9, b"9 "),
        ("decr", ("k", 100), 0, b"0 "),
        ("touch", ("k", 100), True, b"10"),
        ("touch", ("k", -1), True, None),
        ("touch", ("x", 100), False, b"10"),
        ("version", (), b"MockMemcacheClient", b"10"),
        ("flush_all", (), True, None),
        ("cache_memlimit", (64,), True, b"10"),
        ("raw_command", ("get k", "END\r\n"), b"VALUE k 0 2\r\n10\r\n", b"10"),
        ("quit", (), None, b"10"),
        ("close", (), None, b"10"),
        ("disconnect_all", (), None, b"10"),
        ("clear", (), None, None),
    ],
)
def test_a_command(
    client: MockMemcacheClient, command: str, arguments: Any, result: Any, left: bytes | None
) -> None:
    client.set("k", "10")

    assert getattr(client, command)(*arguments) == result
    assert client.get("k") == left


def test_noreply_is_answered_as_a_client_answers_it() -> None:
    client = MockMemcacheClient()

    assert client.set("k", "v") is True
    assert client.add("k", "other") is True
    assert client.delete("x") is True
    assert client.incr("k", 1, noreply=True) is None
    assert client.get("k") == b"v"


def test_stats_are_those_of_its_cache(client: MockMemcacheClient) -> None:
    client.set("k", "v")
    stats = client.stats()

    assert stats[b"curr_items"] == 1
    assert stats[b"version"] == b"MockMemcacheClient"
    assert client.stats("settings")[b"item_size_max"] == 1 << 20


@pytest.mark.parametrize("key", ["", "a b", "a\r\nb", "a\0", "k" * 251, "\xe4", 5, None])
@pytest.mark.parametrize("command", ["get", "delete", "touch"])
def test_a_key_that_the_client_refuses(client: MockMemcacheClient, command: str, key: Any) -> None:
    with pytest.raises((MemcacheIllegalInputError, TypeError)) as mocked:
        getattr(client, command)(key)
    with pytest.raises(mocked.type):  # before it would connect
        getattr(Client(("127.0.0.1", 1)), command)(key)


def test_errors_of_the_server(client: MockMemcacheClient) -> None:
    client.set("k", "text")

    with pytest.raises(MemcacheClientError, match="non-numeric"):
        client.incr("k", 1)
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set("k", bytes(1 << 20))
    assert client.get("k") is None


def test_options_are_those_of_the_client() -> None:
    client = MockMemcacheClient(
        serde=PickleSerde(pickle.HIGHEST_PROTOCOL), key_prefix=b"app:", allow_unicode_keys=True
    )
    client.set("schlüssel", {"a": [1, 2]})

    assert client.get("schlüssel") == {"a": [1, 2]}
    assert client.raw_command("get app:schlüssel".encode(), "END\r\n").startswith(b"VALUE app:")
    with pytest.raises(TypeError, match="did you mean 'key_prefix'"):
        MockMemcacheClient(key_prefx=b"app:")


def test_serializers_are_used() -> None:
    client = MockMemcacheClient(
        None,
        None,
        lambda key, value: (repr(value).encode(), 7),
        lambda key, value, flags: (key, value, flags),
    )
    client.set("k", [1])

    assert client.get("k") == ("k", b"[1]", 7)


def test_items_expire_by_its_clock() -> None:
    clock = ManualClock()
    client = MockMemcacheClient(clock=clock)
    client.set("k", "v", expire=10)
    clock.advance(9)
    assert client.get("k") == b"v"
    clock.advance(1)
    assert client.get("k") is None


def test_items_expire_by_the_time_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    client = MockMemcacheClient()
    client.set("k", "v", expire=10)
    assert client.get("k") == b"v"
    now += 10
    assert client.get("k") is None


def test_it_lives_on_after_close(client: MockMemcacheClient) -> None:
    with client:
        client.set("k", "v")
    assert client.get("k") == b"v"


def test_it_may_be_used_as_a_mapping(client: MockMemcacheClient) -> None:
    client["k"] = "v"
    assert client["k"] == b"v"
    del client["k"]
    with pytest.raises(KeyError):
        client["k"]


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_may_share_it(client: MockMemcacheClient, often: None) -> None:
    client.set("n", "0")

    def count() -> None:
        for _ in range(200):
            client.incr("n", 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("n") == b"1600"


def test_the_constructor_takes_what_pymemcaches_takes() -> None:
    parameters = inspect.signature(Reference).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert len(defaults) == 13

    for client in (MockMemcacheClient(**defaults), MockMemcacheClient(*defaults.values())):
        client.set("k", "v")
        assert client.get("k") == b"v"


def test_positions_are_those_of_pymemcaches() -> None:
    given = {
        "server": ("localhost", 11211),
        "serde": PickleSerde(),
        "serializer": None,
        "deserializer": None,
        "connect_timeout": 1.5,
        "timeout": 2.5,
        "no_delay": True,
        "ignore_exc": False,
        "socket_module": object(),
        "default_noreply": False,
        "allow_unicode_keys": True,
        "encoding": "utf-8",
        "tls_context": ssl.create_default_context(),
    }
    assert list(given) == list(inspect.signature(Reference).parameters)
    client = MockMemcacheClient(*given.values())
    client.set("k", [1])

    assert client.get("k") == [1]
    for name in ("server", "serde", "connect_timeout", "timeout", "no_delay", "ignore_exc"):
        assert getattr(client, name) == given[name]
    for name in ("default_noreply", "allow_unicode_keys", "encoding"):
        assert getattr(client, name) == given[name]


def test_too_many_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="at most"):
        MockMemcacheClient(*[None] * 99)
    with pytest.raises(TypeError, match="multiple values for argument 'serde'"):
        MockMemcacheClient(None, None, serde=None)
