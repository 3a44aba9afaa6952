"""The embedded server's cache: what it holds, for how long, and what has to go."""

from __future__ import annotations

import pytest

from cymemcache.testing import ManualClock
from cymemcache.testing.store import NO_MEMORY, TOO_LARGE, Cache, item_size

MONTH = 60 * 60 * 24 * 30


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000_000.0)


@pytest.fixture
def cache(clock: ManualClock) -> Cache:
    return Cache(clock=clock)


def put(cache: Cache, key: bytes, value: bytes = b"v", exptime: int = 0) -> bytes:
    return cache.store(b"set", key, 0, cache.deadline(exptime), value)


def keys(cache: Cache) -> list[bytes]:
    """The keys held, the most recently used first."""
    return [item.key for item in cache]


@pytest.mark.parametrize(
    ("exptime", "seconds"),
    [(1, 1.0), (100, 100.0), (MONTH, float(MONTH)), (1_000_000_050, 50.0), (1_100_000_000, 1e8)],
)
def test_an_item_lives_until_its_time_comes(
    cache: Cache, clock: ManualClock, exptime: int, seconds: float
) -> None:
    put(cache, b"k", exptime=exptime)
    clock.advance(seconds - 0.5)
    assert cache.get(b"k") is not None
    clock.advance(0.5)
    assert cache.get(b"k") is None


@pytest.mark.parametrize("exptime", [-1, -(1 << 31), MONTH + 1, 999_999_999, 1_000_000_000])
def test_an_item_may_be_born_expired(cache: Cache, exptime: int) -> None:
    assert put(cache, b"k", exptime=exptime) == b"STORED"
    assert cache.get(b"k") is None


def test_exptime_0_is_for_ever(cache: Cache, clock: ManualClock) -> None:
    put(cache, b"k")
    clock.advance(1e12)
    assert cache.get(b"k") is not None


def test_an_expired_item_is_as_good_as_none(cache: Cache, clock: ManualClock) -> None:
    for key in (b"a", b"b", b"c", b"d", b"e", b"f"):
        put(cache, key, b"1", exptime=1)
    clock.advance(1)
    assert cache.touch(b"a", 0.0) is None
    assert cache.delete(b"b") is False
    assert cache.arithmetic(b"c", 1, incr=True) is None
    assert cache.store(b"append", b"d", 0, 0.0, b"x") == b"NOT_STORED"
    assert cache.store(b"cas", b"e", 0, 0.0, b"x", 5) == b"NOT_FOUND"
    assert cache.store(b"add", b"f", 0, 0.0, b"x") == b"STORED"
    assert keys(cache) == [b"f"]
    assert len(cache) == 1


def test_a_flush_that_comes_later_spares_what_comes_after_it(
    cache: Cache, clock: ManualClock
) -> None:
    put(cache, b"before")
    cache.flush(10)
    put(cache, b"between")
    assert len(cache) == 2
    clock.advance(10)
    put(cache, b"after")
    assert keys(cache) == [b"after"]


def test_a_flush_at_once_takes_the_place_of_one_to_come(cache: Cache, clock: ManualClock) -> None:
    cache.flush(10)
    cache.flush()
    put(cache, b"k")
    clock.advance(20)
    assert keys(cache) == [b"k"]


def test_the_least_recently_used_items_are_evicted() -> None:
    size = item_size(b"a", 0, 1000)
    cache = Cache(memory_limit=3 * size)
    for key in (b"a", b"b", b"c"):
        put(cache, key, bytes(1000))
    cache.get(b"a")
    cache.touch(b"b", 0.0)
    put(cache, b"d", bytes(1000))
    put(cache, b"e", bytes(1000))
    assert keys(cache) == [b"e", b"d", b"b"]
    assert cache.used == 3 * size
    assert sum(slab.evicted for slab in cache.slabs) == 2


def test_expired_items_make_room_without_counting_as_evicted(clock: ManualClock) -> None:
    cache = Cache(memory_limit=2 * item_size(b"a", 0, 1000), clock=clock)
    put(cache, b"a", bytes(1000), exptime=1)
    put(cache, b"b", bytes(1000))
    clock.advance(1)
    put(cache, b"c", bytes(1000))
    assert keys(cache) == [b"c", b"b"]
    assert sum(slab.evicted for slab in cache.slabs) == 0
    assert sum(slab.reclaimed for slab in cache.slabs) == 1


def test_memory_is_given_back() -> None:
    cache = Cache()
    put(cache, b"a", bytes(1000))
    put(cache, b"a", bytes(10))
    assert cache.used == item_size(b"a", 0, 10)
    cache.store(b"append", b"a", 0, 0.0, bytes(5))
    assert cache.used == item_size(b"a", 0, 15)
    cache.delete(b"a")
    assert cache.used == 0
    put(cache, b"b")
    cache.flush()
    assert cache.used == 0
    assert all(slab.items == slab.bytes == 0 for slab in cache.slabs)


def test_less_memory_evicts_at_once() -> None:
    cache = Cache()
    for number in range(10):
        put(cache, b"%d" % number, bytes(1000))
    cache.limit_memory(4 * item_size(b"0", 0, 1000))
    assert keys(cache) == [b"9", b"8", b"7", b"6"]


def test_without_evictions_new_items_are_refused_until_there_is_room(clock: ManualClock) -> None:
    size = item_size(b"a", 0, 1000)
    cache = Cache(memory_limit=2 * size, evictions=False, clock=clock)
    put(cache, b"a", bytes(1000), exptime=5)
    assert cache.refusal(b"b", 0, 1000) is None
    put(cache, b"b", bytes(1000))
    assert cache.refusal(b"c", 0, 1000) == NO_MEMORY
    assert cache.store(b"append", b"b", 0, 0.0, bytes(1000)) == b"NOT_STORED"
    clock.advance(5)
    assert cache.refusal(b"c", 0, 1000) is None
    assert keys(cache) == [b"b"]


def test_a_counter_that_grows_needs_room_too() -> None:
    cache = Cache(memory_limit=item_size(b"n", 0, 1), evictions=False)
    put(cache, b"n", b"9")
    assert cache.arithmetic(b"n", 1, incr=True) == b"SERVER_ERROR out of memory"
    assert cache.arithmetic(b"n", 1, incr=False) == b"8"


def test_what_can_never_fit_is_refused() -> None:
    cache = Cache(memory_limit=5000, max_item_size=2000)
    assert cache.refusal(b"k", 0, 2000 - item_size(b"k", 0, 0)) is None
    assert cache.refusal(b"k", 0, 2001 - item_size(b"k", 0, 0)) == TOO_LARGE
    assert cache.refusal(b"k", 1, 2000 - item_size(b"k", 0, 0)) == TOO_LARGE
    put(cache, b"k", bytes(1500))
    assert cache.store(b"append", b"k", 0, 0.0, bytes(500)) == b"NOT_STORED"


def test_every_change_has_a_cas_token_of_its_own(cache: Cache) -> None:
    tokens = []
    for verb in (b"set", b"replace", b"append", b"prepend"):
        cache.store(verb, b"n", 0, 0.0, b"1")
        item = cache.get(b"n")
        assert item is not None
        tokens.append(item.cas)
    cache.arithmetic(b"n", 1, incr=True)
    cache.touch(b"n", 0.0)
    item = cache.get(b"n")
    assert item is not None
    assert [*tokens, item.cas] == sorted({*tokens, item.cas})
    assert cache.store(b"cas", b"n", 0, 0.0, b"x", item.cas - 1) == b"EXISTS"
    assert cache.store(b"cas", b"n", 0, 0.0, b"x", item.cas) == b"STORED"
