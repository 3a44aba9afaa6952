"""The walk through the main job: records go to the server and back, and every reply is checked.

A reply that is not what it has to be raises `DemoError`.  What the steps store lives under the
client's key prefix, and the last step deletes it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from .. import Client
from ..serde import JSONSerde
from . import EXPIRE, PATIENCE, DemoError, records

_SHOWN = 80  # characters of a wrong value
_SERVER_TICK = 5.0  # seconds in which what expires in one second must be gone

Report = Callable[[str, str, float], None]


def walk(address: Any, prefix: str, count: int, report: Report, *, wait: bool = True) -> None:
    """Walk through the main job with `count` users and as many sessions, under `prefix`.

    `report` gets each step's name, what it did, and its seconds.  Without `wait` what is to expire
    does so at once, not a second later.
    """
    with _client(address, prefix) as client, _client(address, prefix) as rival:
        tour = _Tour(client, rival, count, wait)
        for name, step in tour.steps():
            started = time.perf_counter()
            text = step()
            report(name, text, time.perf_counter() - started)


def _client(address: Any, prefix: str) -> Client:
    return Client(
        address,
        connect_timeout=PATIENCE,
        timeout=PATIENCE,
        key_prefix=prefix,
        default_noreply=False,
        serde=JSONSerde(on_error="raise"),
    )


class _Tour:
    """The steps, each of which says what it has done; they build on each other."""

    def __init__(self, client: Client, rival: Client, count: int, wait: bool) -> None:
        self.client = client
        self.rival = rival
        self.wait = wait
        self.users = records.users(count)
        self.sessions = records.sessions(count)
        self.few = list(self.users)[:20]
        self.views: Counter[str] = Counter()

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        yield "set", self.set
        yield "get", self.get
        yield "set_many", self.set_many
        yield "get_many", self.get_many
        yield "cas", self.cas
        yield "incr, decr", self.count
        yield "touch", self.touch
        yield "delete", self.delete

    def set(self) -> str:
        for key, user in self.users.items():
            expect(f"set {key}", self.client.set(key, user, EXPIRE), True)
        return f"{len(self.users)} users stored as JSON, each acknowledged"

    def get(self) -> str:
        for key, user in self.users.items():
            expect(f"get {key}", self.client.get(key), user)
        expect("get of a key that holds nothing", self.client.get("user:0", "nobody"), "nobody")
        return f"{len(self.users)} users back, each as it was; 1 miss"

    def set_many(self) -> str:
        expect("set_many", self.client.set_many(self.sessions, EXPIRE), [])
        return f"{len(self.sessions)} sessions stored in one round trip"

    def get_many(self) -> str:
        keys = ["session:none", *self.sessions, "session:nor-this"]
        found = self.client.get_many(keys)
        for key, session in self.sessions.items():
            expect(f"get_many, {key}", found.get(key), session)
        expect("the keys of get_many", list(found), list(self.sessions))
        return f"{len(found)} sessions back in one round trip; 2 misses"

    def cas(self) -> str:
        for key in self.few:
            user, token = self.client.gets(key)
            theirs = {**user, "language": "eo"}
            expect(f"set {key}", self.rival.set(key, theirs, EXPIRE), True)
            # What was read is out of date: storing it would undo the other client's change.
            stored = self.client.cas(key, {**user, "credit": 0}, token, EXPIRE)
            expect(f"cas {key} with a token that is out of date", stored, False)
            user, token = self.client.gets(key)
            expect(f"gets {key}", user, theirs)
            stored = self.client.cas(key, {**user, "credit": 0}, token, EXPIRE)
            expect(f"cas {key}", stored, True)
            expect(f"get {key}", self.client.get(key), {**theirs, "credit": 0})
        return f"{len(self.few)} users: a lost race noticed, both changes kept"

    def count(self) -> str:
        pages = [page for session in self.sessions.values() for page in session["pages"]]
        counters = {f"views:{page}": 0 for page in pages}
        expect("set_many", self.client.set_many(counters, EXPIRE), [])
        for page in pages:
            key = f"views:{page}"
            self.views[key] += 1
            expect(f"incr {key}", self.client.incr(key, 1), self.views[key])
        expect("the counters", self.client.get_many(list(self.views)), dict(self.views))
        for key, views in self.views.items():
            expect(f"decr {key} by 1", self.client.decr(key, 1), views - 1)
            expect(f"get {key}", self.client.get(key), views - 1)
            expect(f"decr {key} below 0", self.client.decr(key, views), 0)
        return f"{len(pages)} page views on {len(self.views)} counters, and back to 0"

    def touch(self) -> str:
        kept, ended = self.few[::2], self.few[1::2]
        for key in kept:
            expect(f"touch {key}", self.client.touch(key, EXPIRE), True)
        for key in ended:
            expect(f"touch {key}", self.client.touch(key, 1 if self.wait else -1), True)
        deadline = time.monotonic() + _SERVER_TICK
        while (found := set(self.client.get_many(self.few))) & set(ended):
            if time.monotonic() > deadline:
                expect("what is left of the users that expired", found & set(ended), set())
            time.sleep(0.05)
        expect("what is left of the users that did not expire", found, set(kept))
        return f"{len(ended)} users expired, {len(kept)} kept"

    def delete(self) -> str:
        first, *others = (key for key in self.users if key not in self.few[1::2])
        expect(f"delete {first}", self.client.delete(first), True)
        expect(f"delete {first} again", self.client.delete(first), False)
        for key in others:
            expect(f"delete {key}", self.client.delete(key), True)
        rest = [*self.sessions, *self.views]
        expect("delete_many", self.client.delete_many(rest), True)
        keys = [*self.users, *rest]
        expect("what is left of the records", self.client.get_many(keys), {})
        return f"{1 + len(others)} users one by one, {len(rest)} keys in one round trip"


def expect(what: str, got: Any, wanted: Any) -> None:
    """Raise `DemoError` unless `got` is `wanted`, in value and in type."""
    if got != wanted or type(got) is not type(wanted):
        raise DemoError(f"{what}: expected {_short(wanted)}, got {_short(got)}")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
