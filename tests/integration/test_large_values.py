"""Values of many megabytes, on both exchanges; `max_value_size` bounds them in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import Client, MemcacheIllegalInputError, MemcacheServerError, MemcacheUnknownError
from cymemcache.testing import MemcachedProcess
from exchanges import MODULES
from wire import MEBIBYTE, PATIENCE

SIZE = 20_000_000
VALUE = bytes(range(251)) * (SIZE // 251) + b"." * (SIZE % 251)


@pytest.fixture(scope="module")
def roomy() -> Iterator[MemcachedProcess]:
    with MemcachedProcess("-I", "32m", "-m", "256") as process:
        yield process


@pytest.fixture(params=sorted(MODULES))
def connect(request: pytest.FixtureRequest, roomy: MemcachedProcess) -> Callable[..., Client]:
    def make(**options: Any) -> Client:
        module = MODULES[request.param]
        return Client(roomy.address, timeout=PATIENCE, socket_module=module, **options)

    return make


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_20_megabytes_go_in_and_come_back(
    connect: Callable[..., Client], kind: Callable[[bytes], Any]
) -> None:
    with connect() as client:
        assert client.set("large", kind(VALUE), noreply=False) is True
        assert client.get("large") == VALUE
        value, cas = client.gets("large")
        assert value == VALUE
        assert client.cas("large", b"small", cas) is True
        assert client.get("large") == b"small"


def test_large_and_small_values_in_one_fetch(connect: Callable[..., Client]) -> None:
    items = {"a": b"1", "large": VALUE, "b": b"", "medium": VALUE[: MEBIBYTE // 2], "c": b"3"}
    with connect() as client:
        assert client.set_many(items, noreply=False) == []
        assert client.get_many([*items, "absent"]) == items
        assert {key: value for key, (value, _) in client.gets_many(items).items()} == items


def test_a_noreply_write_of_20_megabytes_is_read_back(connect: Callable[..., Client]) -> None:
    with connect() as client:
        client.set("large", VALUE, noreply=True)
        assert client.get("large") == VALUE


def test_what_is_too_large_for_the_server_is_its_error(connect: Callable[..., Client]) -> None:
    with connect() as client:
        with pytest.raises(MemcacheServerError, match="-I"):
            client.set("large", bytes(33 * MEBIBYTE), noreply=False)
        assert client.set("small", b"value", noreply=False) is True


def test_max_value_size_bounds_what_is_sent(connect: Callable[..., Client]) -> None:
    with connect(max_value_size=1000) as client:
        assert client.set("key", bytes(1000), noreply=False) is True
        with pytest.raises(MemcacheIllegalInputError, match="value"):
            client.set("key", bytes(1001), noreply=False)
        assert client.get("key") == bytes(1000)


def test_max_value_size_bounds_what_is_received(connect: Callable[..., Client]) -> None:
    with connect() as client:
        client.set("key", bytes(1001), noreply=False)
        client.set("other", bytes(1000), noreply=False)
    with connect(max_value_size=1000) as client:
        with pytest.raises(MemcacheUnknownError, match="max_value_size"):
            client.get("key")
        assert client.get("other") == bytes(1000)
        with pytest.raises(MemcacheUnknownError, match="max_value_size"):
            client.get_many(["other", "key"])
