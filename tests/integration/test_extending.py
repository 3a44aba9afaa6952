"""append and prepend with a serde: what goes as it is is added, anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cymemcache import Client, MemcacheIllegalInputError, serde
from cymemcache.serde import CompressedSerde, JSONSerde, PickleSerde, SignedSerde
from cymemcache.testing import MockMemcacheClient
from wire import Server

VERBS = ["append", "prepend"]


class Sealed(PickleSerde):
    """A serde of a user's own, made of one of ours."""

    def serialize(self, key: Any, value: Any) -> tuple[Any, int]:
        data, flags = super().serialize(key, value)
        return b"sealed:" + (data.encode() if isinstance(data, str) else data), flags


class Lines:
    """A serde of a user's own, whose values are made to be added."""

    def serialize(self, key: Any, value: Any) -> tuple[bytes, int]:
        return json.dumps(value).encode() + b"\n", 1

    def deserialize(self, key: Any, value: bytes, flags: int) -> Any:
        return [json.loads(line) for line in value.splitlines()]


OURS: dict[str, dict[str, Any]] = {
    "pickle": {"serde": PickleSerde()},
    "json": {"serde": JSONSerde()},
    "compressed": {"serde": CompressedSerde()},
    "function": {
        "serializer": serde.python_memcache_serializer,
        "deserializer": serde.python_memcache_deserializer,
    },
}
ALL = OURS | {"signed": {"serde": SignedSerde(b"k" * 16)}, "sealed": {"serde": Sealed()}}


@pytest.mark.parametrize("options", OURS.values(), ids=OURS)
def test_bytes_text_and_numbers_are_added_as_they_are(
    running_memcached: Server, connect: Callable[..., Client], options: dict[str, Any]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, default_noreply=False, **options)
    client.set_many({"bytes": b"-", "text": "ö", "number": 5})
    for key, after, before in (("bytes", b">", b"<"), ("text", "ä", "ü"), ("number", 6, 4)):
        assert client.append(key, after) is True
        assert client.prepend(key, before) is True
        assert client.append(f"no {key}".replace(" ", "-"), after) is False
    assert client.get_many(["bytes", "text", "number"]) == {
        "bytes": b"<->",
        "text": "üöä",
        "number": 456,
    }


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("noreply", [False, True])
@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
def test_what_would_be_pickled_compressed_or_signed_is_refused(
    running_memcached: Server,
    connect: Callable[..., Client],
    options: dict[str, Any],
    noreply: bool,
    verb: str,
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, **options)
    client.set("k", "text", noreply=False)
    values: list[Any] = [[1, 2], {"a": 1}, None, True, 1.5]
    if isinstance(client.serde, CompressedSerde):
        values += [b"long" * 200, "long" * 200, 10**1000]
    if isinstance(client.serde, (SignedSerde, Sealed)):
        values += [b"x", "x", 1]
    for value in values:
        with pytest.raises(MemcacheIllegalInputError, match="append and prepend take values that"):
            getattr(client, verb)("k", value, noreply=noreply)
    assert client.counters.commands == 1  # nothing was sent
    if not isinstance(client.serde, Sealed):
        assert client.get("k") == "text"


def test_what_a_users_own_serde_makes_is_added(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, serde=Lines(), default_noreply=False)
    client.set("k", {"a": 1})
    assert client.append("k", [2]) is True
    assert client.prepend("k", None) is True
    assert client.get("k") == [None, {"a": 1}, [2]]


def test_without_a_serde_all_is_added_that_can_be_stored(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address, default_noreply=False)
    client.set("k", "1")
    assert client.append("k", 1.5) is True
    assert client.prepend("k", bytearray(b"0")) is True
    assert client.get("k") == b"011.5"


@pytest.mark.parametrize("use_pooling", [False, True])
def test_a_cluster_refuses_it_as_well(
    nodes: list[tuple[str, int]], connect_all: Callable[..., Any], use_pooling: bool
) -> None:
    client = connect_all(nodes, serde=PickleSerde(), use_pooling=use_pooling)
    client.set("k", "text", noreply=False)
    for verb in VERBS:
        with pytest.raises(MemcacheIllegalInputError, match="PickleSerde would pickle"):
            getattr(client, verb)("k", [1])
    assert client.append("k", "s", noreply=False) is True
    assert client.get("k") == "texts"


def test_the_mock_client_refuses_it_as_well() -> None:
    client = MockMemcacheClient(serde=PickleSerde())
    client.set("k", "text")
    with pytest.raises(MemcacheIllegalInputError, match="this list"):
        client.append("k", [1])
    client.append("k", "s")
    assert client.get("k") == "texts"
