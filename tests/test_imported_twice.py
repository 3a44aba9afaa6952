"""The package imported twice in one process, as test runners, reloaders and
`unittest.mock.patch.dict` do: both are as the first, whichever implementation runs.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import cymemcache
import cymemcache.serde
from cymemcache.testing import Answer, EmbeddedServer
from wire import PATIENCE


def imported() -> ModuleType:
    """The package, imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cymemcache"]:
        del sys.modules[name]
    import cymemcache as package
    import cymemcache.serde

    return with_all_names(package)


def with_all_names(package: ModuleType) -> ModuleType:
    """`package`, which has not left any of its names for later."""
    for name in (*package.__all__, "serde"):
        getattr(package, name)
    package.serde.SignedSerde  # noqa: B018
    return package


@pytest.fixture(scope="module", params=["first", "second", "third"])
def package(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """One of three imports of the package, after all of them."""
    with_all_names(cymemcache)
    with mock.patch.dict(sys.modules):
        second = imported()
        third = imported()
        assert second is not third is not cymemcache
        yield {"first": cymemcache, "second": second, "third": third}[request.param]


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture(params=["Client", "PooledClient", "HashClient", "HashClient of two"])
def client(
    request: pytest.FixtureRequest, package: ModuleType, embedded: EmbeddedServer
) -> Iterator[Any]:
    name, *two = request.param.split(" of ")
    options: dict[str, Any] = {"timeout": PATIENCE, "serde": package.serde.pickle_serde}
    with EmbeddedServer() as other:
        servers: Any = embedded.address
        if name == "HashClient":
            servers = [servers, other.address] if two else [servers]
        with getattr(package, name)(servers, **options) as client:
            client.flush_all(noreply=False)
            yield client


THINGS = {f"key-{number}": [number, (number,)] for number in range(20)}


def test_values_come_back_as_they_were(client: Any) -> None:
    assert client.set_many(THINGS, noreply=False) == []
    assert client.get("key-1") == THINGS["key-1"]
    assert client.get_many(THINGS) == THINGS
    assert {key: value for key, (value, _) in client.gets_many(THINGS).items()} == THINGS
    assert client.get("absent", "miss") == "miss"
    assert client.get_many(["absent", "key-1"]) == {"key-1": THINGS["key-1"]}


def test_errors_are_raised_as_the_classes_that_the_package_shows(
    client: Any, package: ModuleType
) -> None:
    client.set("text", "text", noreply=False)
    with pytest.raises(package.MemcacheClientError):
        client.incr("text", 1)
    with pytest.raises(package.MemcacheIllegalInputError):
        client.get("white space")
    assert client.get("text") == "text"


def test_refused_keys_of_a_batch_and_a_broken_reply_are_errors(
    package: ModuleType, embedded: EmbeddedServer
) -> None:
    with package.Client(embedded.address, timeout=PATIENCE) as client:
        out_of_memory = Answer(b"SERVER_ERROR out of memory\r\n")
        with (
            embedded.inject(out_of_memory, verb="set"),
            pytest.raises(package.MemcacheServerError),
        ):
            client.set_many({"a": b"1", "b": b"2"}, noreply=False)
        with (
            embedded.inject(Answer(b"nonsense\r\n"), verb="get"),
            pytest.raises(package.MemcacheUnknownError),
        ):
            client.get("a")
        assert client.get("absent", "miss") == "miss"


def test_values_of_a_signing_serde_that_are_forged_are_misses(
    package: ModuleType, embedded: EmbeddedServer
) -> None:
    serde = package.serde.SignedSerde(
        b"a secret of sixteen bytes or more", package.serde.pickle_serde
    )
    with package.Client(embedded.address, timeout=PATIENCE, serde=serde) as client:
        client.set("signed", [1], noreply=False)
        with package.Client(embedded.address, timeout=PATIENCE) as forger:
            forger.set("forged", b"forged", noreply=False)
        assert client.get("signed") == [1]
        assert client.get("forged", "miss") == "miss"
        assert client.get_many(["signed", "forged"]) == {"signed": [1]}


def test_a_hasher_can_be_pickled() -> None:
    with mock.patch.dict(sys.modules):
        package = imported()
        hasher = package.RendezvousHash(["a", "b"])
        assert pickle.loads(pickle.dumps(hasher.table())).choose("k") == hasher.get_node("k")
