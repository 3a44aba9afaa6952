"""A cache shared with pymemcache: what either library writes with one of its serdes the other one
reads, and both put the same bytes and flags on the server.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pymemcache.serde as reference_serde
import pytest
from pymemcache.client.base import Client as Reference

from cymemcache import Client, serde
from wire import PATIENCE, Server


@dataclass
class Point:
    """A value that has to be pickled."""

    x: int
    y: int


class Text(str):
    """A str that has to be pickled: it must come back as what it is."""

    __slots__ = ()


VALUES: list[Any] = [
    b"",
    b"bytes \r\nEND\r\n\0\xff",
    "",
    "text \r\n äöü 日本 🎉",
    0,
    -5,
    2**64 - 1,
    -(2**100),
    True,
    None,
    1.5,
    ["list", {"of": (1, b"2")}],
    Text("subclass"),
    Point(1, 2),
    b"x" * 5000,
    random.Random(1).randbytes(5000),  # which no compression makes smaller
    "text " * 5000,
    list(range(1000)),
]


def lower(key: Any, value: Any) -> tuple[Any, int]:
    return (value.lower(), 1 << 10) if isinstance(value, str) else (repr(value), 1 << 11)


def marked(key: Any, value: bytes, flags: int) -> Any:
    return value.decode(), flags


# By name: options for our client, and the same ones for pymemcache's.
SERDES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "pickle": ({"serde": serde.pickle_serde}, {"serde": reference_serde.pickle_serde}),
    "pickle-0": ({"serde": serde.PickleSerde(0)}, {"serde": reference_serde.PickleSerde(0)}),
    "compressed": (
        {"serde": serde.compressed_serde},
        {"serde": reference_serde.compressed_serde},
    ),
    "compressed-own": (
        {"serde": serde.CompressedSerde(lambda data: zlib.compress(data, 9), min_compress_len=50)},
        {
            "serde": reference_serde.CompressedSerde(
                lambda data: zlib.compress(data, 9), min_compress_len=50
            )
        },
    ),
    "functions": (
        {
            "serializer": serde.python_memcache_serializer,
            "deserializer": serde.python_memcache_deserializer,
        },
        {
            "serializer": reference_serde.python_memcache_serializer,
            "deserializer": reference_serde.python_memcache_deserializer,
        },
    ),
    "functions-2": (
        {
            "serializer": serde.get_python_memcache_serializer(2),
            "deserializer": serde.python_memcache_deserializer,
        },
        {
            "serializer": reference_serde.get_python_memcache_serializer(2),
            "deserializer": reference_serde.python_memcache_deserializer,
        },
    ),
    "own-functions": (
        {"serializer": lower, "deserializer": marked},
        {"serializer": lower, "deserializer": marked},
    ),
    "crossed": (
        {"serde": reference_serde.pickle_serde},
        {"serde": serde.pickle_serde},
    ),
}

UTF8 = {"encoding": "utf-8", "timeout": PATIENCE, "default_noreply": False}


@pytest.fixture(params=sorted(SERDES))
def pair(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Client, Any]]:
    """Our client and pymemcache's, with the same serde."""
    ours, theirs = SERDES[request.param]
    reference = Reference(server.address, **UTF8, **theirs)
    with Client(server.address, **UTF8, **ours) as client:
        yield client, reference
    reference.close()


def item(server: Server, key: str) -> tuple[int, bytes]:
    """The flags and the bytes that the server has."""
    line, _, rest = server.raw(b"get %b\r\n" % key.encode()).partition(b"\r\n")
    _, _, flags, size = line.split(b" ")
    return int(flags), rest[: int(size)]


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:30])
def test_either_reads_what_the_other_wrote(
    server: Server, pair: tuple[Client, Any], value: Any
) -> None:
    client, reference = pair
    client.set("ours", value)
    reference.set("theirs", value)
    assert item(server, "ours") == item(server, "theirs")
    expected = reference.get("theirs")
    for reader in pair:
        for key in ("ours", "theirs"):
            assert same(reader.get(key), expected)
            assert same(reader.gets(key)[0], expected)
        found = reader.get_many(["ours", "theirs", "none"])
        assert found.keys() == {"ours", "theirs"}
        assert all(same(one, expected) for one in found.values())


def test_batches_are_as_readable(server: Server, pair: tuple[Client, Any]) -> None:
    values = {f"key-{number}": value for number, value in enumerate(VALUES)}
    stored = []
    for writer in pair:
        assert writer.set_many(values) == []
        stored.append([item(server, key) for key in values])
        read = [reader.get_many(list(values)) for reader in pair]
        assert read[0] == read[1]
        assert read[0].keys() == values.keys()
    assert stored[0] == stored[1]


def test_every_way_to_write_gives_the_same_item(server: Server, pair: tuple[Client, Any]) -> None:
    ways: list[Callable[[Any, str, Any], Any]] = [
        lambda client, key, value: client.add(key, value),
        lambda client, key, value: client.set(key, b"") and client.replace(key, value),
        lambda client, key, value: (
            client.add(key, b"") and client.cas(key, value, client.gets(key)[1])
        ),
        lambda client, key, value: client.set(key, value, flags=1 << 20),
    ]
    extensions: list[Callable[[Any, str, Any], Any]] = [
        lambda client, key, value: client.set(key, b"") and client.append(key, value),
        lambda client, key, value: client.set(key, b"") and client.prepend(key, value),
    ]
    cases = [(way, value) for way in ways for value in (b"bytes" * 200, "text", 55, [1])]
    # What a serde would pickle or compress is refused there.
    cases += [(way, value) for way in extensions for value in (b"bytes", "text", 55)]
    for number, (way, value) in enumerate(cases):
        items = []
        for client in pair:
            assert client.delete("key") in (True, False)
            assert way(client, "key", value) is True
            items.append(item(server, "key"))
        assert items[0] == items[1], (number, value)


def test_compressed_values_are_compressed(server: Server) -> None:
    with Client(server.address, serde=serde.compressed_serde, **UTF8) as client:
        client.set("key", "text " * 1000)
        flags, data = item(server, "key")
        assert flags == serde.FLAG_TEXT | serde.FLAG_COMPRESSED
        assert zlib.decompress(data) == b"text " * 1000
        client.set("key", "short")
        assert item(server, "key") == (serde.FLAG_TEXT, b"short")


def test_a_large_number_that_only_we_can_compress_is_read_by_both(server: Server) -> None:
    reference = Reference(server.address, serde=reference_serde.compressed_serde, **UTF8)
    with Client(server.address, serde=serde.compressed_serde, **UTF8) as client:
        client.set("key", 10**1000)
        assert item(server, "key")[0] == serde.FLAG_INTEGER | serde.FLAG_COMPRESSED
        assert reference.get("key") == client.get("key") == 10**1000
    reference.close()


def test_counters_are_shared(server: Server) -> None:
    reference = Reference(server.address, serde=reference_serde.pickle_serde, **UTF8)
    with Client(server.address, serde=serde.pickle_serde, **UTF8) as client:
        client.set("key", 99)
        assert reference.incr("key", 1) == 100
        assert client.decr("key", 1) == 99
        assert reference.get("key") == client.get("key") == 99
    reference.close()


def test_keys_are_the_same_items(server: Server) -> None:
    options = {"allow_unicode_keys": True, "key_prefix": b"p:", **UTF8}
    reference = Reference(server.address, **options)
    with Client(server.address, **options) as client:
        for key in ("text", b"bytes", "schlüssel", "日本".encode(), "k" * 248):
            client.set(key, b"ours")
            assert reference.get(key) == b"ours"
            reference.set(key, b"theirs")
            assert client.get(key) == b"theirs"
            assert client.get_many([key]) == reference.get_many([key]) == {key: b"theirs"}
            assert client.gets(key) == reference.gets(key)
            _, cas = reference.gets(key)
            assert client.cas(key, b"ours", cas) is True
            assert reference.cas(key, b"theirs", cas) is False
    reference.close()
