"""The users of a cluster whose servers come and go: random commands on keys that all of them share,
each result held against what can be.

A value that is read was written under its key (`model.value_of`), a number is one that the
increments can have made; nothing else can be known where every node may be lost at any time, or
stopped with commands that it executes later.  Nothing in here may grow with the number of commands.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

from cymemcache import HashClient, MemcacheUnexpectedCloseError
from faults.model import Wrong, number_of, value_of

KEYS = [f"key-{number}" for number in range(200)]
SCORES = [f"score-{number}" for number in range(20)]
STEP = 10**9  # between the scores: each has numbers of its own
SET_MOST, GET_MOST = 8, 20  # keys of one command


class Latencies:
    """How long calls took, in classes that are 10 % wide, whatever their number."""

    _LEAST = 1e-6  # seconds
    _WIDTH = math.log(1.1)

    def __init__(self) -> None:
        self._counts = [0] * 220  # up to 20 minutes
        self.most = 0.0

    def add(self, seconds: float) -> None:
        place = int(math.log(max(seconds, self._LEAST) / self._LEAST) / self._WIDTH)
        self._counts[min(place, len(self._counts) - 1)] += 1
        self.most = max(self.most, seconds)

    def add_all(self, other: Latencies) -> None:
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.most = max(self.most, other.most)

    @property
    def count(self) -> int:
        return sum(self._counts)

    def within(self, part: float) -> float:
        """Seconds within which so much of all calls, 0 to 1, came to their end."""
        sums = itertools.accumulate(self._counts)
        place = next(place for place, reached in enumerate(sums) if reached >= part * self.count)
        return self._LEAST * math.exp((place + 1) * self._WIDTH)


class Book:
    """What all users have written so far."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._points = {key: itertools.count(1) for key in SCORES}

    def value(self, key: str) -> bytes:
        """A value for `key` that nobody has written before."""
        return value_of(key, next(self._numbers))

    def check(self, key: str, value: Any) -> None:
        """`Wrong` where `value` was not written under `key`."""
        if key in self._points:
            self.check_score(key, int(value))
        # It takes the next number to see how many there were.
        elif not 0 < number_of(key, value) < next(self._numbers):
            raise Wrong(f"{key} holds {value[:80]!r}, which nobody has written yet")

    def least(self, key: str) -> int:
        """Where the score `key` begins."""
        return SCORES.index(key) * STEP

    def point(self, key: str) -> None:
        """Somebody is about to add a point to the score `key`."""
        next(self._points[key])

    def check_score(self, key: str, score: int) -> None:
        """`Wrong` where the score `key` cannot be `score`."""
        if not 0 <= score - self.least(key) < next(self._points[key]):
            raise Wrong(f"{key} is {score}, and began with {self.least(key)}")


class User:
    """What one thread does with the cluster."""

    def __init__(self, cluster: HashClient, choice: random.Random, book: Book) -> None:
        self.cluster = cluster
        self.choice = choice
        self.book = book
        self.latencies = Latencies()
        self.done: Counter[str] = Counter()  # calls that came to a good end, by the method's name
        self.found: Counter[str] = Counter()  # keys: "hit", "miss"
        self.errors: Counter[str] = Counter()  # by kind
        self.since: float | None = None  # when the call began that is under way
        self._commands: list[Callable[[], None]] = [
            *[self.get] * 3,
            *[self.get_many] * 2,
            *[self.set] * 2,
            self.set_many,
            self.gets_and_cas,
            self.incr,
            self.touch,
            self.delete,
            self.delete_many,
            self.index,
            self.rare,
        ]

    def use(self) -> None:
        """Give a command; `Wrong`, or the error, where something else came of it than may."""
        try:
            self.choice.choice(self._commands)()
        except (OSError, MemcacheUnexpectedCloseError) as error:
            if self.cluster.ignore_exc:
                raise
            self.errors[type(error).__name__] += 1
        except RuntimeError as error:
            if "max_pool_size" not in str(error):
                raise
            self.errors["pool exhausted"] += 1

    # -- the commands ------------------------------------------------------------------------------

    def get(self) -> None:
        key = self.key()
        self.check(key, self.call(self.cluster.get, key))

    def get_many(self) -> None:
        keys = self.keys(GET_MOST)
        found = self.call(self.cluster.get_many, keys)
        self.expect(found.keys() <= set(keys), found.keys())
        for key in keys:
            self.check(key, found.get(key))

    def set(self) -> None:
        key = self.key()
        stored = self.call(
            self.cluster.set, key, self.book.value(key), self.expire(), noreply=self.noreply()
        )
        self.expect(stored in (True, False), stored)

    def set_many(self) -> None:
        items = {key: self.book.value(key) for key in self.keys(SET_MOST)}
        failed = self.call(self.cluster.set_many, items, self.expire(), noreply=self.noreply())
        self.expect(set(failed) <= items.keys(), failed)

    def gets_and_cas(self) -> None:
        key = self.key()
        value, token = self.call(self.cluster.gets, key)
        self.check(key, value)
        if value is not None:
            stored = self.call(self.cluster.cas, key, self.book.value(key), token)
            self.expect(stored in (True, False, None), stored)

    def incr(self) -> None:
        key = self.choice.choice(SCORES)
        self.book.point(key)
        score = self.call(self.cluster.incr, key, 1)
        if score is False:  # its node is down
            self.expect(self.cluster.ignore_exc, score)
        elif score is not None:
            self.book.check_score(key, score)
        elif self.choice.random() < 0.5:
            least = b"%d" % self.book.least(key)
            added = self.call(self.cluster.add, key, least, noreply=self.noreply())
            self.expect(added in (True, False), added)
        else:
            self.check(key, self.call(self.cluster.get, key))

    def touch(self) -> None:
        touched = self.call(self.cluster.touch, self.key(), self.expire(), noreply=self.noreply())
        self.expect(touched in (True, False), touched)

    def delete(self) -> None:
        deleted = self.call(self.cluster.delete, self.key(), noreply=self.noreply())
        self.expect(deleted in (True, False), deleted)

    def delete_many(self) -> None:
        deleted = self.call(self.cluster.delete_many, self.keys(3), noreply=self.noreply())
        self.expect(deleted in (True, False), deleted)

    def index(self) -> None:
        key = self.key()
        try:
            value = self.call(self.cluster.__getitem__, key)
        except KeyError:
            value = None
        self.check(key, value)

    def rare(self) -> None:
        """What nobody does often."""
        if self.choice.random() < 0.1:
            versions = self.call(self.cluster.version)
            self.expect(
                all(one is None or one[:1].isdigit() for one in versions.values()), versions
            )
        elif self.choice.random() < 0.1:
            self.call(self.cluster.disconnect_all)

    # -- what they need ----------------------------------------------------------------------------

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What `method` returns; how long it took is noted."""
        self.since = began = monotonic()
        try:
            result = method(*args, **options)
        finally:
            self.since = None
            self.latencies.add(monotonic() - began)
        self.done[method.__name__] += 1
        return result

    def check(self, key: str, value: Any) -> None:
        self.found["miss" if value is None else "hit"] += 1
        if value is not None:
            self.book.check(key, value)

    def expect(self, right: bool, found: Any) -> None:
        if not right:
            raise Wrong(f"{found!r:.200} is no result")

    def key(self) -> str:
        return self.choice.choice(KEYS)

    def keys(self, most: int) -> list[str]:
        return self.choice.sample(KEYS, self.choice.randint(1, most))

    def noreply(self) -> bool:
        return self.choice.random() < 0.5

    def expire(self) -> int:
        return self.choice.choice([0, 0, 1000])
