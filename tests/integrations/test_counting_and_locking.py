"""Libraries that count and lock with memcached: limits (Flask-Limiter's storage) and tooz."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import flask
import pytest
import tooz.coordination
from flask_limiter import Limiter
from limits import RateLimitItemPerSecond, parse
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)

import cymemcache
from cymemcache import MemcacheError
from cymemcache.testing import MemcachedProcess


@pytest.mark.parametrize("strategy", [FixedWindowRateLimiter, SlidingWindowCounterRateLimiter])
@pytest.mark.parametrize("servers", [1, 2])
def test_limits(
    strategy: Any, servers: int, location: str, memcached: MemcachedProcess,
    eventually: Callable[..., None],
) -> None:  # fmt: skip
    with MemcachedProcess() as second:
        addresses = [location, "{}:{}".format(*second.address)][:servers]
        storage = storage_from_string(f"memcached://{','.join(addresses)}")
        kind = cymemcache.HashClient if servers > 1 else cymemcache.PooledClient
        assert type(storage.storage) is kind
        assert storage.check() is True
        limiter = strategy(storage)
        limit = parse("5/hour")
        assert [limiter.hit(limit, "user") for _ in range(7)] == [True] * 5 + [False] * 2
        assert limiter.test(limit, "user") is False
        assert limiter.test(limit, "other") is True
        assert limiter.get_window_stats(limit, "user").remaining == 0
        limiter.clear(limit, "user")
        assert limiter.hit(limit, "user") is True
        second_limit = RateLimitItemPerSecond(1)
        assert limiter.hit(second_limit, "quick") is True
        eventually(lambda: limiter.hit(second_limit, "quick"))
        memcached.stop()
        if servers == 1:
            assert storage.check() is False
            with pytest.raises((OSError, MemcacheError)):
                limiter.hit(limit, "user")
            memcached.start()
            assert storage.check() is True
            assert limiter.hit(limit, "user") is True


def test_many_threads_hit_a_limit_as_often_as_it_allows(location: str) -> None:
    limiter = FixedWindowRateLimiter(storage_from_string(f"memcached://{location}"))
    limit = parse("50/day")
    hits: list[bool] = []
    threads = [
        threading.Thread(target=lambda: hits.extend(limiter.hit(limit, "all") for _ in range(20)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(hits), hits.count(True)) == (160, 50)


def test_a_moving_window_is_refused_as_before(location: str) -> None:
    with pytest.raises(NotImplementedError):
        MovingWindowRateLimiter(storage_from_string(f"memcached://{location}"))


def test_flask_limiter(location: str) -> None:
    app = flask.Flask(__name__)
    limiter = Limiter(lambda: "everybody", app=app, storage_uri=f"memcached://{location}")

    @app.route("/")
    @limiter.limit("3 per hour")
    def page() -> str:
        return "page"

    web = app.test_client()
    assert [web.get("/").status_code for _ in range(5)] == [200, 200, 200, 429, 429]


def test_tooz(memcached: MemcachedProcess, location: str) -> None:
    members = [
        tooz.coordination.get_coordinator(f"memcached://{location}?timeout=5", name)
        for name in (b"one", b"two")
    ]
    for member in members:
        member.start(start_heart=False)
    one, two = members
    lock, other = one.get_lock(b"lock"), two.get_lock(b"lock")
    assert lock.acquire(blocking=False)
    assert not other.acquire(blocking=False)
    assert lock.heartbeat()
    assert lock.release()
    assert other.acquire(blocking=False)
    assert other.release()
    one.create_group(b"group").get()
    for member in members:
        member.join_group(b"group").get()
    assert set(one.get_members(b"group").get()) == {b"one", b"two"}
    assert b"group" in set(one.get_groups().get())
    seen: list[Any] = []
    one.watch_leave_group(b"group", seen.append)
    one.run_watchers()
    two.leave_group(b"group").get()
    one.run_watchers()
    assert [event.member_id for event in seen] == [b"two"]
    one.heartbeat()
    memcached.stop()
    with pytest.raises(tooz.coordination.ToozConnectionError):
        lock.acquire(blocking=False)
    memcached.start()
    assert one.get_lock(b"again").acquire(blocking=False)
    for member in members:
        member.stop()
