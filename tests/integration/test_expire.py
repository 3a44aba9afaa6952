"""Spans of more than 30 days, timedelta and datetime: items live as long as was said."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cymemcache import Client, FallbackClient, MemcacheIllegalInputError
from cymemcache.testing import ManualClock, MockMemcacheClient
from wire import Server

DAY = 24 * 60 * 60
SPAN = 31 * DAY
EXPIRES: list[Any] = [SPAN, timedelta(days=31)]

STORING: dict[str, Callable[[Any, Any], Any]] = {
    "set": lambda client, expire: client.set("k", b"v", expire, noreply=False),
    "add": lambda client, expire: client.add("k", b"v", expire=expire, noreply=False),
    "replace": lambda client, expire: there(client).replace("k", b"v", expire, noreply=False),
    "cas": lambda client, expire: client.cas("k", b"v", there(client).gets("k")[1], expire),
    "touch": lambda client, expire: there(client).touch("k", expire, noreply=False),
    "gat": lambda client, expire: there(client).gat("k", expire) == b"v",
    "gats": lambda client, expire: there(client).gats("k", expire)[0] == b"v",
    "set_many": lambda client, expire: client.set_many({"k": b"v"}, expire, noreply=False) == [],
}


def there(client: Any) -> Any:
    """`client`, with an item under "k"."""
    client.set("k", b"v", noreply=False)
    return client


def seconds_left(server: Server) -> int:
    reply = server.raw(b"mg k t\r\n")
    assert reply.startswith(b"HD t"), reply
    return int(reply.split()[1][1:])


@pytest.mark.parametrize("expire", EXPIRES, ids=repr)
@pytest.mark.parametrize("name", STORING)
def test_an_item_lives_for_a_span_of_more_than_30_days(
    running_memcached: Server, connect: Callable[..., Client], name: str, expire: Any
) -> None:
    running_memcached.flush()
    assert STORING[name](connect(running_memcached.address), expire)
    assert SPAN - 100 < seconds_left(running_memcached) <= SPAN + 5


def test_an_item_lives_until_a_datetime(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address)
    client.set("k", b"v", datetime.now(UTC) + timedelta(hours=1), noreply=False)
    assert 3500 < seconds_left(running_memcached) <= 3605
    client.set("k", b"v", datetime(2020, 1, 1, tzinfo=UTC), noreply=False)
    assert client.get("k") is None


def test_a_span_that_is_over_is_not_for_ever(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    client.set("k", b"v", timedelta(0), noreply=False)
    assert client.get("k") is None


def test_a_flush_in_31_days_flushes_nothing_now(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = there(connect(server.address))
    assert client.flush_all(timedelta(days=31), noreply=False) is True
    assert client.get("k") == b"v"
    assert client.flush_all(noreply=False) is True
    assert client.get("k") is None


def test_a_cluster_passes_them_on(
    nodes: list[tuple[str, int]], connect_all: Callable[..., Any]
) -> None:
    client = connect_all(nodes[:1])
    assert client.set("k", b"v", timedelta(days=40), noreply=False)
    assert 39 * DAY < seconds_left(Server("memcached", nodes[0])) <= 40 * DAY + 5
    assert client.set_many({"k": b"v"}, timedelta(days=50), noreply=False) == []
    assert 49 * DAY < seconds_left(Server("memcached", nodes[0])) <= 50 * DAY + 5


def test_a_fallback_client_passes_them_on(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = FallbackClient([connect(running_memcached.address)])
    client.set("k", b"v", timedelta(days=40), noreply=False)
    assert client.gat("k", timedelta(days=50)) == b"v"
    assert 49 * DAY < seconds_left(running_memcached) <= 50 * DAY + 5


def test_the_mock_client_counts_from_its_own_clock() -> None:
    clock = ManualClock(1_500_000_000)
    client = MockMemcacheClient(clock=clock)
    client.set("k", "v", expire=SPAN)
    clock.advance(SPAN - 1)
    assert client.get("k") == b"v"
    clock.advance(2)
    assert client.get("k") is None


def test_what_is_refused_is_refused_before_anything_is_sent(connect: Callable[..., Client]) -> None:
    client = connect("nowhere.invalid")
    with pytest.raises(TypeError, match="time zone"):
        client.set("k", b"v", datetime(2030, 1, 1))
    with pytest.raises(MemcacheIllegalInputError, match="expire must be"):
        client.set("k", b"v", 1.5)  # type: ignore[arg-type]
