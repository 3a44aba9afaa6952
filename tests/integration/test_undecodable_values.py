"""Values that cannot be decoded: a miss for every client and command, and no other key's loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from cymemcache import Client, FallbackClient, RetryingClient, serde, undecodable
from cymemcache.serde import CompressedSerde, JSONSerde, PickleSerde
from cymemcache.testing import MockMemcacheClient
from wire import Server

#: The bytes and flags of values of which each serde below can decode none.
BAD: dict[str, tuple[bytes, int]] = {
    "text": (b"\xff", serde.FLAG_TEXT),
    "number": (b"12x", serde.FLAG_INTEGER),
    "long": (b"x", serde.FLAG_LONG),
    "false-of-php": (b"", serde.FLAG_INTEGER | serde.FLAG_PICKLE),
    "large-text": (b"x" * 50_000 + b"\xff", serde.FLAG_TEXT),
    "pickle": (b"\x80 is no pickle", serde.FLAG_PICKLE),
}
OF_COMPRESSED = {"zlib": (b"no zlib", serde.FLAG_COMPRESSED)}
OF_JSON = {"json": (b"{", serde.FLAG_JSON)}
SERDES: list[tuple[Any, dict[str, tuple[bytes, int]]]] = [
    (PickleSerde, BAD),
    (JSONSerde, BAD | OF_JSON),
    (CompressedSerde, BAD | OF_COMPRESSED),
]
NOTHING = object()


def store(client: Any, values: dict[str, tuple[bytes, int]]) -> None:
    """Store the bytes and flags `values` through a client without a serde."""
    for key, (data, flags) in values.items():
        assert client.set(key, data, flags=flags, noreply=False)


def expect_misses(client: Any, bad: dict[str, tuple[bytes, int]]) -> None:
    """Every fetch of `client` misses the keys of `bad`, and finds "good" among them."""
    for key in bad:
        assert client.get(key) is None, key
        assert client.get(key, NOTHING) is NOTHING, key
        assert client.gat(key, 0, NOTHING) is NOTHING, key
        assert client.gets(key, NOTHING, "no token") == (NOTHING, "no token"), key
        assert client.gats(key, 0, NOTHING, "no token") == (NOTHING, "no token"), key
        with pytest.raises(KeyError):
            client[key]
        assert client.get_many([key]) == {}
        assert client.gets_many([key]) == {}
    keys = ["good", *bad, "absent", "good2"]
    assert client.get_many(keys) == {"good": "value", "good2": 2}
    assert client.gets_many(keys).keys() == {"good", "good2"}


@pytest.mark.parametrize(("make", "bad"), SERDES, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("ignore_exc", [False, True])
def test_a_value_that_cannot_be_decoded_is_a_miss(
    running_memcached: Server,
    connect: Callable[..., Client],
    make: Any,
    bad: dict[str, tuple[bytes, int]],
    ignore_exc: bool,
) -> None:
    running_memcached.flush()
    store(connect(running_memcached.address), bad)
    client = connect(running_memcached.address, serde=make(), ignore_exc=ignore_exc)
    client.set_many({"good": "value", "good2": 2}, noreply=False)
    before = client.counters
    expect_misses(client, bad)
    after = client.counters
    assert after.misses - before.misses == 10 * len(bad) + 2
    assert after.hits - before.hits == 4
    assert after.errors == {}
    assert after.reconnects == 0


@pytest.mark.parametrize(("make", "bad"), SERDES, ids=lambda one: getattr(one, "__name__", ""))
def test_with_on_error_raise_it_raises_and_names_the_key(
    running_memcached: Server,
    connect: Callable[..., Client],
    make: Any,
    bad: dict[str, tuple[bytes, int]],
) -> None:
    running_memcached.flush()
    store(connect(running_memcached.address), bad)
    client = connect(running_memcached.address, serde=make(on_error="raise"))
    client.set("good", "value", noreply=False)
    sock = client.sock
    for key in bad:
        for call in (client.get, client.gets, client.gat, client.gats, client.__getitem__):
            with pytest.raises(Exception, match=r".") as caught:
                call(key)
            assert f"value of {key!r}" in "".join(caught.value.__notes__)
        for call in (client.get_many, client.gets_many):
            with pytest.raises(Exception, match=r".") as caught:
                call(["good", key])
            assert f"value of {key!r}" in "".join(caught.value.__notes__)
    assert client.sock is sock  # a bad value is no reason to close a connection
    assert client.get("good") == "value"


def test_old_style_functions_of_ours_miss_as_well(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(
        running_memcached.address,
        serializer=serde.python_memcache_serializer,
        deserializer=serde.python_memcache_deserializer,
    )
    store(connect(running_memcached.address), BAD)
    client.set_many({"good": "value", "good2": 2}, noreply=False)
    expect_misses(client, BAD)


@pytest.mark.parametrize("use_pooling", [False, True])
def test_a_cluster_merges_what_can_be_decoded(
    nodes: list[tuple[str, int]], connect_all: Callable[..., Any], use_pooling: bool
) -> None:
    values = {f"{name}-{i}": value for name, value in BAD.items() for i in range(8)}
    good = {f"good-{i}": i for i in range(20)}
    store(connect_all(nodes), values)
    client = connect_all(nodes, serde=PickleSerde(), use_pooling=use_pooling)
    client.set_many(good, noreply=False)
    assert {client.hasher.get_node(key) for key in values} == set(client.clients)
    assert client.get_many([*values, *good]) == good
    assert client.gets_many([*good, *values]).keys() == good.keys()
    assert client.get("text-0", NOTHING) is NOTHING


def test_the_next_cache_is_asked(
    nodes: list[tuple[str, int]], connect: Callable[..., Client]
) -> None:
    first, second = (connect(address, serde=PickleSerde()) for address in nodes[:2])
    store(connect(nodes[0]), BAD)
    second.set_many(dict.fromkeys(BAD, "of the second"), noreply=False)
    client = FallbackClient([first, second])
    for key in BAD:
        assert client.get(key) == "of the second"
        assert client.gat(key) == "of the second"
        assert client.gets(key) == ("of the second", b"0")
        assert client.gats(key) == ("of the second", b"0")
    assert client.get_many(BAD) == dict.fromkeys(BAD, "of the second")
    assert client.gets_many(BAD) == dict.fromkeys(BAD, ("of the second", b"0"))


def test_a_miss_is_no_reason_for_another_attempt(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    store(connect(running_memcached.address), BAD)
    inner = connect(running_memcached.address, serde=PickleSerde())
    client = RetryingClient(inner, attempts=3)
    assert client.get_many(BAD) == {}
    assert inner.counters.commands == 1


def test_the_mock_client_misses_as_well() -> None:
    client = MockMemcacheClient(serde=PickleSerde())
    for key, (data, flags) in BAD.items():
        client.set(key, data, flags=flags)
    client.set_many({"good": "value", "good2": 2})
    expect_misses(client, BAD)


def test_each_kind_is_logged_once(
    running_memcached: Server,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(undecodable, "_logged", set())
    running_memcached.flush()
    values = {f"number-{i}": (b"no number %d" % i, serde.FLAG_INTEGER) for i in range(20)}
    store(connect(running_memcached.address), values | {"text": BAD["text"]})
    client = connect(running_memcached.address, serde=PickleSerde())
    with caplog.at_level(logging.INFO, "cymemcache"):
        for key in values:
            client.get(key)
        client.get_many([*values, "text"])
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 2
    assert "the number value of 'number-0' cannot be decoded and counts as missing" in logged[0]
    assert "the text value of 'text' cannot be decoded" in logged[1]
