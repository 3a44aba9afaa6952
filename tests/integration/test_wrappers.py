"""`RetryingClient` and `FallbackClient` over clients of real servers, which come and go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cymemcache import (
    Client,
    FallbackClient,
    MemcacheClientError,
    MemcacheUnexpectedCloseError,
    RetryingClient,
)
from cymemcache.testing import Close, EmbeddedServer, MemcachedProcess
from cymemcache.testing.process import free_port
from wire import Server

Connect = Callable[..., Client]


@pytest.fixture
def pair(both: tuple[Server, Server], connect: Connect) -> tuple[Client, Client]:
    """A client of memcached and one of the embedded server, both empty."""
    new, old = (connect(server.address, default_noreply=False) for server in both)
    return new, old


# -- retrying --------------------------------------------------------------------------------------


def test_a_server_that_is_back_in_time_is_not_missed(
    memcached_factory: Callable[..., MemcachedProcess], connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "memcached"
    process = memcached_factory(unix=path)
    client = connect(process.address, default_noreply=False)
    assert client.set("key", b"before") is True
    failed = []

    def restart(attempt: int) -> float:
        failed.append(attempt)
        if attempt == 2:
            memcached_factory(unix=path)
        return 0

    process.stop()
    retrying = RetryingClient(client, attempts=3, retry_for=[OSError], backoff=restart)
    assert retrying.set("key", b"after") is True
    assert retrying.get("key") == b"after"
    assert failed == [1, 2]


def test_a_server_that_stays_away_is_refused_by_its_own_error(connect: Connect) -> None:
    retrying = RetryingClient(connect(("127.0.0.1", free_port())), attempts=3)
    with pytest.raises(ConnectionRefusedError):
        retrying.get("key")


def test_a_command_whose_reply_was_lost_is_done_twice(
    embedded: EmbeddedServer, connect: Connect
) -> None:
    """What the documentation warns of."""
    client = connect(embedded.address, default_noreply=False)
    client.set_many({"number": b"1", "text": b"a"})
    _, cas = client.gets("text")
    retrying = RetryingClient(client, retry_for=[MemcacheUnexpectedCloseError])
    for verb in ("incr", "cas", "append"):
        embedded.inject(Close("executed"), verb=verb)
    assert retrying.incr("number", 1) == 3
    assert retrying.cas("text", b"b", cas) is False
    assert client.get("text") == b"b"  # although it was stored
    assert retrying.append("text", b"c") is True
    assert client.get("text") == b"bcc"


def test_an_error_that_will_not_change_can_be_left_out(
    embedded: EmbeddedServer, connect: Connect
) -> None:
    client = connect(embedded.address, default_noreply=False)
    client.set("text", b"a")
    retrying = RetryingClient(client, attempts=5, do_not_retry_for=[MemcacheClientError])
    with pytest.raises(MemcacheClientError, match="non-numeric"):
        retrying.incr("text", 1)
    assert [line for _, line in embedded.requests][1:] == [b"incr text 1"]


# -- fallback --------------------------------------------------------------------------------------


def test_a_new_cache_warms_up_before_an_old_one(pair: tuple[Client, Client]) -> None:
    new, old = pair
    old.set_many({key: f"old {key}" for key in "abcd"})
    with FallbackClient(pair) as client:
        assert client.get("a") == b"old a"
        assert client.set("a", "new a") is True
        assert client.get("a") == client["a"] == b"new a"
        assert client.get_many(list("abcx")) == {"a": b"new a", "b": b"old b", "c": b"old c"}
        assert {key: value for key, (value, _) in client.gets_many(list("abx")).items()} == {
            "a": b"new a",
            "b": b"old b",
        }
        for key in "abcd":
            value, cas = client.gets(key)
            assert client.cas(key, value + b"!", cas) is True
            assert client.cas(key, b"late", cas) is False
    assert new.get_many(list("abcd")) == {
        "a": b"new a!",
        "b": b"old b!",
        "c": b"old c!",
        "d": b"old d!",
    }
    assert old.get_many(list("abcd")) == {key: f"old {key}".encode() for key in "abcd"}


def test_only_the_first_server_is_flushed_and_asked_about_itself(
    pair: tuple[Client, Client],
) -> None:
    new, old = pair
    client = FallbackClient(pair)
    new.set("key", b"new")
    old.set("key", b"old")
    assert client.version() == new.version()
    assert client.stats()[b"pid"] == new.stats()[b"pid"] != old.stats()[b"pid"]
    assert client.flush_all() is True
    assert client.get("key") == b"old"
    client.quit()
    assert new.sock is old.sock is None


def test_a_server_that_is_down_is_passed_over_where_its_client_ignores_errors(
    server: Server, connect: Connect
) -> None:
    address = ("127.0.0.1", free_port())
    alive = connect(server.address, default_noreply=False)
    alive.set("key", b"1")
    down, forgiving = connect(address), connect(address, ignore_exc=True)

    def fetched(*caches: Client) -> list[Any]:
        client = FallbackClient(caches)
        return [
            client.get("key"),
            client.gat("key", 60),
            client.gets("key")[0],
            client.gats("key", 60)[0],
            client.get_many(["key", "none"])["key"],
            client.gets_many(["key", "none"])["key"][0],
        ]

    assert fetched(forgiving, alive) == fetched(alive, forgiving) == [b"1"] * 6
    assert FallbackClient([alive, forgiving]).get("none", 5) == 5
    with pytest.raises(ConnectionRefusedError):
        fetched(down, alive)
    with pytest.raises(ConnectionRefusedError):  # a write is for the first, and not forgiven
        FallbackClient([forgiving, alive]).set("key", b"2", noreply=False)


def test_a_token_of_the_old_server_does_no_harm_on_the_new_one(
    pair: tuple[Client, Client],
) -> None:
    new, old = pair
    client = FallbackClient(pair)
    old.set("key", b"old")
    _, cas = client.gets("key")
    assert client.cas("key", b"mine", cas, noreply=False) is True
    assert client.cas("key", b"late", cas) is False
    # Nor does it where it goes to the server as it is.
    assert new.cas("key", b"late", cas) is False
    assert new.cas("none", b"late", cas) is None
    assert new.get("key") == b"mine"
