"""The cache of the embedded server: items, expiry, cas tokens, LRU eviction, memory accounting.

It behaves as memcached 1.6 does, down to the bytes that an item counts for, so that size limits
and the classes in `stats slabs` come out alike.  Slab pages and the segments of the LRU are not
imitated: an item takes its own size only, and one plain LRU of all sizes tells what is evicted.  It
knows nothing of sockets, protocol lines or threads, and reads time from the clock it was given
only: whoever moves that clock moves expiry.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from .integers import unsigned64

STORED: Final = b"STORED"
NOT_STORED: Final = b"NOT_STORED"
EXISTS: Final = b"EXISTS"
NOT_FOUND: Final = b"NOT_FOUND"

TOO_LARGE: Final = b"SERVER_ERROR object too large for cache"
NO_MEMORY: Final = b"SERVER_ERROR out of memory storing object"
NOT_A_NUMBER: Final = b"CLIENT_ERROR cannot increment or decrement non-numeric value"

MEBIBYTE: Final = 1 << 20

_MONTH = 60 * 60 * 24 * 30  # longer expiries are points in UNIX time
_EXPIRED = -1.0
_UINT64 = 1 << 64

_ITEM_HEADER = 48 + 8  # bytes: memcached's own, and the cas token
_FLAGS_SIZE = 4  # not there where the flags are 0
_SMALLEST_CHUNK = 96
_GROWTH = 1.25
_LARGEST_CHUNK = 1 << 19


class ManualClock:
    """A clock for tests that stands still until it is moved: ``EmbeddedServer(clock=...)``.

    It starts at the present UNIX time, or at `now` (seconds).
    """

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class SlabClass:
    """A class of items of about the same size, with its counters."""

    __slots__ = (
        "bytes",
        "cas_badval",
        "cas_hits",
        "chunk_size",
        "cmd_set",
        "decr_hits",
        "delete_hits",
        "evicted",
        "evicted_nonzero",
        "evicted_unfetched",
        "expired_unfetched",
        "get_hits",
        "id",
        "incr_hits",
        "items",
        "out_of_memory",
        "reclaimed",
        "touch_hits",
    )

    def __init__(self, id: int, chunk_size: int) -> None:
        self.id = id
        self.chunk_size = chunk_size
        self.items = 0
        self.bytes = 0
        self.reset()

    def reset(self) -> None:
        """Set the counters to 0, as ``stats reset`` does."""
        self.get_hits = self.cmd_set = self.delete_hits = self.touch_hits = 0
        self.incr_hits = self.decr_hits = self.cas_hits = self.cas_badval = 0
        self.evicted = self.evicted_nonzero = self.evicted_unfetched = 0
        self.expired_unfetched = self.reclaimed = self.out_of_memory = 0


def _slab_classes() -> list[SlabClass]:
    classes: list[SlabClass] = []
    size = float(_SMALLEST_CHUNK)
    while size < _LARGEST_CHUNK / _GROWTH:
        aligned = -(-int(size) // 8) * 8
        classes.append(SlabClass(len(classes) + 1, aligned))
        size = aligned * _GROWTH
    classes.append(SlabClass(len(classes) + 1, _LARGEST_CHUNK))
    return classes


class Item:
    """One item.  `deadline` is the UNIX time at which it expires, 0 for never."""

    __slots__ = ("cas", "deadline", "fetched", "flags", "key", "size", "slab", "used_at", "value")

    # Given when it is put into the cache.
    cas: int
    size: int
    slab: SlabClass
    used_at: float

    def __init__(self, key: bytes, value: bytes, flags: int, deadline: float) -> None:
        self.key = key
        self.value = value
        self.flags = flags
        self.deadline = deadline
        self.fetched = False


def item_size(key: bytes, flags: int, length: int) -> int:
    """The bytes that an item with a value of `length` bytes counts for."""
    return _ITEM_HEADER + len(key) + 1 + (_FLAGS_SIZE if flags else 0) + length + 2


class Cache:
    """Items under keys, with everything that memcached's classic commands do to them.

    `memory_limit` and `max_item_size` are in bytes, as memcached counts them (`item_size`).  With
    `evictions` the least recently used items make room for new ones, without it new ones that do
    not fit are refused.  `clock` gives UNIX time in seconds.  Not for two threads at once.
    """

    def __init__(
        self,
        *,
        memory_limit: int = 64 * MEBIBYTE,
        max_item_size: int = MEBIBYTE,
        evictions: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.memory_limit = memory_limit
        self.max_item_size = max_item_size
        self.evictions = evictions
        self.clock = clock
        self.started_at = clock()
        self.used = 0
        self.slabs = _slab_classes()
        #: whether `record_prefix` is to be called
        self.detail = False
        self.prefixes: dict[bytes, list[int]] = {}
        #: cas token from which on `stats sizes` counts items, None where it is off
        self.sizes_from: int | None = None
        self._items: OrderedDict[bytes, Item] = OrderedDict()  # least recently used first
        self._last_cas = 0
        self._flush_at = 0.0  # UNIX time of the delayed flush, 0 where there is none
        self.reset_counters()

    def reset_counters(self) -> None:
        """Set the statistics to 0, as ``stats reset`` does."""
        self.cmd_get = self.cmd_touch = self.cmd_flush = self.total_items = 0
        self.get_misses = self.get_expired = self.touch_misses = self.delete_misses = 0
        self.incr_misses = self.decr_misses = self.cas_misses = 0
        self.store_too_large = self.store_no_memory = 0
        self.prefixes.clear()
        for slab in self.slabs:
            slab.reset()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """The items that have not expired, the most recently used first; none may be changed."""
        self._find(b"")
        now = self.clock()
        for item in reversed(self._items.values()):
            if not 0 != item.deadline <= now:
                yield item

    # -- fetching ----------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        """The item under `key`, which counts as used; None on a miss."""
        self.cmd_get += 1
        item = self._find(key)
        if item is None:
            self.get_misses += 1
            return None
        item.slab.get_hits += 1
        self._use(item)
        return item

    def touch(self, key: bytes, deadline: float) -> Item | None:
        """Give the item under `key` another deadline; the item, None on a miss."""
        self.cmd_touch += 1
        item = self._find(key)
        if item is None:
            self.touch_misses += 1
            return None
        item.slab.touch_hits += 1
        item.deadline = deadline
        self._use(item)
        return item

    def deadline(self, exptime: int) -> float:
        """The `Item.deadline` for an exptime as the protocol has it."""
        if exptime == 0:
            return 0.0
        if exptime < 0:
            return _EXPIRED
        if exptime > _MONTH:
            return float(exptime)
        return self.clock() + exptime

    # -- storing -----------------------------------------------------------------------------------

    def refusal(self, key: bytes, flags: int, length: int) -> bytes | None:
        """The error line for a value of `length` bytes that cannot be stored, None for any other.

        memcached decides so before it has read the value.
        """
        size = item_size(key, flags, length)
        if size > self.max_item_size:
            self.store_too_large += 1
            return TOO_LARGE
        if not self._has_room(size):
            self.store_no_memory += 1
            self._slab(size).out_of_memory += 1
            return NO_MEMORY
        return None

    def store(
        self, verb: bytes, key: bytes, flags: int, deadline: float, value: bytes, cas: int = 0
    ) -> bytes:
        """Do what the storage command `verb` does; its answer.  `cas` is for ``cas`` only."""
        old = self._find(key)
        if verb == b"cas":
            if old is None:
                self.cas_misses += 1
                return NOT_FOUND
            if old.cas != cas:
                old.slab.cas_badval += 1
                return EXISTS
            old.slab.cas_hits += 1
        elif verb == b"add":
            if old is not None:
                self._use(old)
                return NOT_STORED
        elif verb != b"set":
            if old is None:
                return NOT_STORED
            if verb != b"replace":
                value = old.value + value if verb == b"append" else value + old.value
                flags = old.flags
                deadline = old.deadline
                size = item_size(key, flags, len(value))
                if size > self.max_item_size or not self._has_room(size):
                    return NOT_STORED
        self._link(Item(key, value, flags, deadline))
        return STORED

    def count_set(self, key: bytes, flags: int, length: int) -> None:
        """Count a storage command whose data has arrived, good or bad."""
        self._slab(item_size(key, flags, length)).cmd_set += 1

    def arithmetic(self, key: bytes, delta: int, *, incr: bool) -> bytes | None:
        """The new number as digits, or an error line; None on a miss.

        A number that needs fewer digits than before is padded with blanks where it stands.
        """
        item = self._find(key)
        if item is None:
            if incr:
                self.incr_misses += 1
            else:
                self.decr_misses += 1
            return None
        number = unsigned64(item.value)
        if number is None:
            return NOT_A_NUMBER
        number = (number + delta) % _UINT64 if incr else max(number - delta, 0)
        digits = b"%d" % number
        if len(digits) <= len(item.value):
            item.value = digits.ljust(len(item.value))
            self._last_cas += 1
            item.cas = self._last_cas
            self._use(item)
        else:
            if not self._has_room(item_size(key, item.flags, len(digits))):
                return b"SERVER_ERROR out of memory"
            item = Item(key, digits, item.flags, item.deadline)
            self._link(item)
        if incr:
            item.slab.incr_hits += 1
        else:
            item.slab.decr_hits += 1
        return digits

    # -- removing ----------------------------------------------------------------------------------

    def delete(self, key: bytes) -> bool:
        """Remove the item under `key`; False on a miss."""
        item = self._find(key)
        if item is None:
            self.delete_misses += 1
            return False
        item.slab.delete_hits += 1
        self._unlink(item)
        return True

    def discard(self, key: bytes) -> None:
        """Remove what is under `key`, if anything, without counting it as a deletion."""
        item = self._find(key)
        if item is not None:
            self._unlink(item)

    def flush(self, exptime: int = 0) -> None:
        """Remove all items, now or (with a positive exptime) later; a later one replaces it."""
        self.cmd_flush += 1
        if exptime > 0:
            self._flush_at = self.deadline(exptime)
        else:
            self._clear()

    def limit_memory(self, memory_limit: int) -> None:
        """Change the memory limit, in bytes, and evict what exceeds it."""
        self.memory_limit = memory_limit
        self._evict()

    # -- statistics --------------------------------------------------------------------------------

    def start_sizes(self) -> None:
        """Count items in `stats sizes` from the next one on."""
        self.sizes_from = self._last_cas + 1

    def record_prefix(self, key: bytes, column: int, hit: bool = False) -> None:
        """Count a get (0), set (2) or delete (3) for the part of `key` before its first colon."""
        prefix, colon, _ = key.partition(b":")
        if colon:
            counts = self.prefixes.setdefault(prefix, [0, 0, 0, 0])
            counts[column] += 1
            counts[1] += hit

    # -- inside ------------------------------------------------------------------------------------

    def _find(self, key: bytes) -> Item | None:
        """The item under `key` unless it has expired: then it is removed."""
        if self._flush_at and self._flush_at <= self.clock():
            self._clear()
        item = self._items.get(key)
        if item is not None and item.deadline and item.deadline <= self.clock():
            self.get_expired += 1
            self._unlink(item)
            return None
        return item

    def _use(self, item: Item) -> None:
        item.fetched = True
        item.used_at = self.clock()
        self._items.move_to_end(item.key)

    def _slab(self, size: int) -> SlabClass:
        for slab in self.slabs:
            if size <= slab.chunk_size:
                return slab
        return self.slabs[-1]

    def _has_room(self, size: int) -> bool:
        if size > self.memory_limit:
            return False
        if not self.evictions and self.used + size > self.memory_limit:
            now = self.clock()
            for item in [item for item in self._items.values() if 0 != item.deadline <= now]:
                self._reclaim(item)
            return self.used + size <= self.memory_limit
        return True

    def _link(self, item: Item) -> None:
        old = self._items.get(item.key)
        if old is not None:
            self._unlink(old)
        self._last_cas += 1
        item.cas = self._last_cas
        item.used_at = self.clock()
        item.size = item_size(item.key, item.flags, len(item.value))
        item.slab = slab = self._slab(item.size)
        slab.items += 1
        slab.bytes += item.size
        self.used += item.size
        self.total_items += 1
        self._items[item.key] = item
        if self.used > self.memory_limit:
            self._evict()

    def _unlink(self, item: Item) -> None:
        del self._items[item.key]
        item.slab.items -= 1
        item.slab.bytes -= item.size
        self.used -= item.size

    def _reclaim(self, item: Item) -> None:
        item.slab.reclaimed += 1
        item.slab.expired_unfetched += not item.fetched
        self._unlink(item)

    def _evict(self) -> None:
        now = self.clock()
        while self.used > self.memory_limit:
            item = next(iter(self._items.values()))
            if 0 != item.deadline <= now:
                self._reclaim(item)
                continue
            item.slab.evicted += 1
            item.slab.evicted_nonzero += item.deadline != 0
            item.slab.evicted_unfetched += not item.fetched
            self._unlink(item)

    def _clear(self) -> None:
        self._flush_at = 0.0
        self._items.clear()
        self.used = 0
        for slab in self.slabs:
            slab.items = slab.bytes = 0
