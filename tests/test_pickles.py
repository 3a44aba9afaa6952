"""What can be pickled and copied: hashers, counters, errors and settings, and no client."""

from __future__ import annotations

import copy
import os
import pathlib
import pickle
import pickletools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import cymemcache
from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    ClusterCounters,
    Counters,
    FallbackClient,
    HashClient,
    KetamaHash,
    PooledClient,
    RendezvousHash,
    RetryingClient,
)
from cymemcache.hashing import murmur3_32
from cymemcache.testing import MockMemcacheClient

NODES = ("10.0.0.1:11211", "10.0.0.2:11211", "/run/memcached.sock")
KEYS = [f"user:{i}" for i in range(40)]


def weigh(text: str, seed: int) -> int:
    return len(text) * seed


HASHERS: dict[str, Callable[[], Any]] = {
    "ketama": lambda: KetamaHash(NODES, weights={NODES[1]: 3}),
    "ketama unweighted": lambda: KetamaHash(NODES, weighted=False),
    "rendezvous": lambda: RendezvousHash(NODES),
    "seeded": lambda: RendezvousHash(NODES, 7),
    "murmur by name": lambda: RendezvousHash(NODES, 0, murmur3_32),
    "own function": lambda: RendezvousHash(NODES, 7, weigh),
}
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}
CLIENTS: dict[str, Callable[[], Any]] = {
    "Client": lambda: Client("127.0.0.1:1"),
    "PooledClient": lambda: PooledClient("127.0.0.1:1"),
    "HashClient": lambda: HashClient(["127.0.0.1:1"]),
    "AWSElastiCacheHashClient": lambda: (
        AWSElastiCacheHashClient.__new__(  # made whole, it asks its endpoint
            AWSElastiCacheHashClient
        )
    ),
    "MockMemcacheClient": lambda: MockMemcacheClient(),
}

# What a process of the other implementation does with a pickled hasher: it prints the keys' nodes.
LOADS = """
import pickle, sys
class NoCompiled:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cymemcache.") and name.endswith("_c"):
            raise ImportError(name)
if sys.argv[2] == "pure wheel":
    sys.meta_path.insert(0, NoCompiled())
hasher = pickle.loads(open(sys.argv[1], "rb").read())
import cymemcache
print(cymemcache.__impl__, *[hasher.get_node(f"user:{i}") for i in range(40)])
if cymemcache.__impl__ == "python":
    ours = [name for name in sys.modules if name.startswith("cymemcache.")]
    assert not [name for name in ours if name.endswith("_c")]
"""


def placement(hasher: Any) -> list[str | None]:
    return [hasher.get_node(key) for key in KEYS]


@pytest.mark.parametrize("name", [name for name in cymemcache.__all__ if name[0] != "_"])
def test_a_public_thing_says_where_it_is_public(name: str) -> None:
    thing = getattr(cymemcache, name)
    if isinstance(thing, type):
        assert thing.__module__ == "cymemcache"
        assert pickle.loads(pickle.dumps(thing)) is thing


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("clone", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", HASHERS.values(), ids=HASHERS)
def test_a_copied_hasher_places_keys_alike(
    make: Callable[[], Any], clone: Callable[[Any], Any], used: bool
) -> None:
    hasher = make()
    if used:
        hasher.get_node("key")
    copied = clone(hasher)
    assert type(copied) is type(hasher)
    assert placement(copied) == placement(hasher)
    assert type(copied.table()) is type(hasher.table())
    if clone is not copy.copy:
        copied.add_node("new:1")
        assert hasher.nodes == list(NODES)


@pytest.mark.parametrize("make", HASHERS.values(), ids=HASHERS)
def test_a_pickled_hasher_names_no_implementation(make: Callable[[], Any]) -> None:
    hasher = make()
    hasher.get_node("key")
    named = [text for _, text, _ in pickletools.genops(pickle.dumps(hasher)) if type(text) is str]
    assert not [text for text in named if text.endswith(("_c", "_py"))]


@pytest.mark.parametrize("process", ["other", "pure wheel"])
@pytest.mark.parametrize("kind", ["ketama", "rendezvous", "seeded"])
def test_a_pickled_hasher_loads_on_the_other_implementation(
    tmp_path: pathlib.Path, kind: str, process: str
) -> None:
    hasher = HASHERS[kind]()
    expected = placement(hasher)
    path = tmp_path / "hasher.pickle"
    path.write_bytes(pickle.dumps(hasher))
    other = "python" if cymemcache.__impl__ == "c" or process == "pure wheel" else "c"
    environment = {**os.environ, "CYMEMCACHE_IMPL": "" if process == "pure wheel" else other}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(path), process],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert done.stdout.split() == [other, *map(str, expected)]


@pytest.mark.parametrize("used", ["ketama", "ketama_used"])
@pytest.mark.parametrize("impl", ["c", "python"])
def test_a_hasher_pickled_by_an_earlier_version_loads(used: str, impl: str) -> None:
    hasher = pickle.loads(stored(f"{used}_{impl}"))
    assert type(hasher.table()) is type(KetamaHash(["a:1"]).table())
    weights = {"a:1": 3} if used == "ketama" else None
    own = KetamaHash(["a:1", "b:2"], weighted=used == "ketama", weights=weights)
    assert placement(hasher) == placement(own)


def test_other_things_pickled_by_an_earlier_version_load() -> None:
    error = pickle.loads(stored("error"))
    assert type(error) is cymemcache.MemcacheServerError
    assert error.args == ("text",)
    assert pickle.loads(stored("class")) is HashClient
    assert type(pickle.loads(stored("keepalive"))) is cymemcache.KeepaliveOpts
    assert pickle.loads(stored("backoff"))(1) <= cymemcache.ExponentialBackoff().base
    for serde in ("serde", "compressed"):
        value, flags = pickle.loads(stored(serde)).serialize("key", [1])
        assert pickle.loads(stored(serde)).deserialize("key", value, flags) == [1]


@pytest.mark.parametrize("clone", COPIES.values(), ids=COPIES)
def test_counters_can_be_copied(clone: Callable[[Any], Any]) -> None:
    with MockMemcacheClient() as client:
        client.set("key", b"value")
        client.get("key")
        client.get("other")
        counters = client.counters
    assert (counters.hits, counters.misses) == (1, 1)
    copied = clone(counters)
    assert type(copied) is Counters
    assert copied == counters


@pytest.mark.parametrize("clone", COPIES.values(), ids=COPIES)
def test_a_clusters_counters_can_be_copied(clone: Callable[[Any], Any]) -> None:
    with HashClient(["127.0.0.1:1"], ignore_exc=True) as client:
        client.get("key")
        counters = client.counters
    copied = clone(counters)
    assert type(copied) is ClusterCounters
    assert copied == counters
    assert copied.errors == {"ConnectionRefusedError": 1}
    assert copied.nodes == counters.nodes


def test_counters_pickled_when_less_was_counted_load() -> None:
    counters = Counters({"commands": 3}, {})
    assert (counters.commands, counters.hits) == (3, 0)


@pytest.mark.parametrize("clone", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
def test_a_client_cannot_be_copied(make: Callable[[], Any], clone: Callable[[Any], Any]) -> None:
    client = make()
    name = type(client).__name__
    with pytest.raises(TypeError, match=f"a {name} cannot be copied or pickled: share this one"):
        clone(client)


@pytest.mark.parametrize("wrap", [RetryingClient, lambda client: FallbackClient([client])])
def test_a_wrapper_can_be_copied_as_far_as_its_clients_can(wrap: Callable[[Any], Any]) -> None:
    client = MockMemcacheClient()
    client.set("key", b"value")
    assert copy.copy(wrap(client)).get("key") == b"value"
    for clone in (copy.deepcopy, COPIES["pickle"]):
        with pytest.raises(TypeError, match="a MockMemcacheClient cannot be copied or pickled"):
            clone(wrap(client))


def test_a_subclass_may_say_how_it_is_pickled() -> None:
    client = pickle.loads(pickle.dumps(OwnPickles("host:1")))
    assert (type(client), client.server) == (OwnPickles, ("host", 1))


class OwnPickles(Client):
    def __reduce__(self) -> tuple[Any, ...]:
        return OwnPickles, (self.server,)


def stored(name: str) -> bytes:
    return (pathlib.Path(__file__).parent / "pickles" / f"{name}.pickle").read_bytes()
