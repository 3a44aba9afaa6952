"""Lists and objects of others, which change while they are worked with: a key's own methods run in
the middle of it.  Results are of what was asked for, and nothing is read past an end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from cymemcache import HashClient
from cymemcache.core.replies import (
    DECODE_LATER,
    DECODE_RAW,
    DECODE_STOCK,
    DELETE_MANY,
    GET_MANY,
    GETS_MANY,
    NEED_DATA,
    STORE_MANY,
    Undecoded,
)
from cymemcache.hashing import RendezvousHash
from cymemcache.testing import EmbeddedServer


class Emptying(str):
    """A key that empties lists when it is hashed, which dicts do."""

    __slots__ = ()
    lists: list[list[Any]] = []  # noqa: RUF012

    def __hash__(self) -> int:
        for emptied in self.lists:
            emptied.clear()
        return str.__hash__(self)


@pytest.fixture
def emptied() -> Any:
    """Lists to be emptied by the first key that is hashed."""
    Emptying.lists = lists = []
    yield lists
    Emptying.lists = []


NAMES = [f"key-{number}" for number in range(100)]
VALUES = {name: b"value of %b" % name.encode() for name in NAMES}


@pytest.mark.parametrize("decode", [DECODE_RAW, DECODE_STOCK, DECODE_LATER])
@pytest.mark.parametrize("kind", [GET_MANY, GETS_MANY])
@pytest.mark.parametrize("order", [1, -1])
def test_a_parser_knows_its_keys_although_their_list_is_emptied(
    core: Any, emptied: list[Any], kind: int, decode: int, order: int
) -> None:
    keys = [Emptying(name) for name in NAMES]
    cas = b" 7" if kind == GETS_MANY else b""
    reply = b"".join(
        b"VALUE %b 0 %d%b\r\n%b\r\n" % (name.encode(), len(value), cas, value)
        for name, value in list(VALUES.items())[::order]
    )
    reply += b"END\r\n"
    parser = core.ReplyParser(decode)
    request = b"get " + " ".join(NAMES).encode() + b"\r\n"
    emptied.append(keys)
    parser.feed(reply[:1000])
    assert parser.parse(kind, request, keys) is NEED_DATA
    parser.feed(reply[1000:])
    result = parser.parse(kind, request, keys)
    if isinstance(result, Undecoded):
        assert {key: data for key, data, _ in result.items} == VALUES
        result = result.result
    assert result == ({k: (v, b"7") for k, v in VALUES.items()} if cas else VALUES)


@pytest.mark.parametrize(
    ("kind", "line", "expected"),
    [(STORE_MANY, b"NOT_STORED\r\n", NAMES), (DELETE_MANY, b"DELETED\r\n", True)],
)
def test_a_parser_knows_how_many_replies_it_awaits_although_the_list_is_emptied(
    core: Any, kind: int, line: bytes, expected: Any
) -> None:
    keys = list(NAMES)
    parser = core.ReplyParser()
    parser.feed(line * 50)
    assert parser.parse(kind, b"", keys) is NEED_DATA
    keys.clear()
    parser.feed(line * 50)
    assert parser.parse(kind, b"", keys) == expected


class KeepingTable:
    """A table of a user's own that keeps the lists that it gives."""

    def __init__(self, table: Any, kept: list[list[Any]]) -> None:
        self.nodes = table.nodes
        self.choose = table.choose
        self.inner = table
        self.kept = kept

    def partition(self, keys: list[Any]) -> Any:
        owned = self.inner.partition(keys)
        self.kept += owned.values()
        return owned


def hasher_with(kept: list[list[Any]]) -> Callable[[], Any]:
    class Hasher(RendezvousHash):
        def table(self) -> Any:
            return KeepingTable(super().table(), kept)

    return Hasher


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("pooling", [False, True])
def test_a_fetch_gives_what_was_asked_for_although_the_tables_lists_are_emptied(
    emptied: list[Any], missing: int, pooling: bool
) -> None:
    with EmbeddedServer() as one, EmbeddedServer() as other:
        servers = [one.address, other.address]
        options = {"timeout": 20, "use_pooling": pooling}
        with HashClient(servers, hasher=hasher_with(emptied), **options) as client:
            client.set_many(VALUES, noreply=False)
            for name in NAMES[:missing]:
                client.delete(name, noreply=False)
            for name in ("get_many", "gets_many"):
                found = getattr(client, name)([Emptying(key) for key in NAMES])
                assert set(found) == set(NAMES[missing:])
            assert client.counters.hits == 2 * (len(NAMES) - missing)
            assert client.counters.misses == 2 * missing
            assert client.delete_many([Emptying(key) for key in NAMES], noreply=False) is True
            assert client.get_many(NAMES) == {}


def test_a_point_belongs_to_a_node_that_there_is_whatever_its_class_says(core: Any) -> None:
    class Liar(int):
        def __lt__(self, other: object) -> bool:
            return True

        def __ge__(self, other: object) -> bool:
            return True

        __gt__ = __le__ = __lt__

    with pytest.raises(ValueError, match="there can be no such point"):
        core.KetamaTable(["a"], [(1, Liar(1000))], True)


@pytest.mark.skipif(os.name != "posix", reason="there is no compiled exchange")
def test_the_compiled_exchange_takes_sockets_only() -> None:
    from cymemcache.core.exchange_c import PlainExchange
    from cymemcache.core.parser_c import ReplyParser

    class NoSocket:
        def fileno(self) -> int:
            return 0

    with pytest.raises(TypeError, match="not a socket"):
        PlainExchange(NoSocket(), ReplyParser(), None, None)
