"""Caching libraries: dogpile.cache, oslo.cache over it, and Flask-Caching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import flask_caching
import pytest
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from oslo_cache import core as oslo
from oslo_config import cfg

import cymemcache
from cymemcache import MemcacheError
from cymemcache.testing import MemcachedProcess

LOST = (OSError, MemcacheError)


def comes_back(
    memcached: MemcachedProcess,
    eventually: Callable[..., None],
    store: Callable[[], Any],
    read: Callable[[], Any],
) -> None:
    """The server is lost, which is told, and found again."""
    memcached.stop()
    with pytest.raises(LOST):
        store()
    memcached.start()

    def is_stored() -> bool:
        try:
            store()
        except LOST:
            return False
        return bool(read())

    eventually(is_stored)


@pytest.mark.parametrize("retrying", [False, True])
def test_dogpile(
    retrying: bool, location: str, memcached: MemcachedProcess, eventually: Callable[..., None]
) -> None:
    region = make_region().configure(
        "dogpile.cache.pymemcache",
        expiration_time=100,
        arguments={
            "url": [location],
            "distributed_lock": True,
            "lock_timeout": 30,
            "memcached_expire_time": 1,
            "socket_keepalive": cymemcache.KeepaliveOpts(idle=10, intvl=5, cnt=3),
            **({"enable_retry_client": True, "retry_attempts": 2} if retrying else {}),
            "hashclient_retry_attempts": 2,
            "hashclient_retry_timeout": 0,
            "dead_timeout": 0,
        },
    )
    kinds = (cymemcache.RetryingClient, cymemcache.HashClient)
    assert isinstance(region.backend.client, kinds[0] if retrying else kinds[1])
    calls = []

    @region.cache_on_arguments()
    def squared(number: int) -> int:
        calls.append(number)
        return number * number

    assert [squared(3), squared(3), squared(4)] == [9, 9, 16]
    assert calls == [3, 4]
    squared.invalidate(3)
    assert squared(3) == 9
    assert calls == [3, 4, 3]
    region.set("key", {"a": 1})
    assert region.get("key") == {"a": 1}
    assert region.get("none") is NO_VALUE
    region.set_multi({"a": 1, "b": 2})
    assert region.get_multi(["a", "none", "b"]) == [1, NO_VALUE, 2]
    region.delete_multi(["a", "b"])
    region.delete("none")
    assert region.get_multi(["a", "b"]) == [NO_VALUE, NO_VALUE]
    lock, other = region.backend.get_mutex("key"), region.backend.get_mutex("key")
    assert lock.acquire()
    assert not other.acquire(False)
    lock.release()
    assert other.acquire(False)
    other.release()
    eventually(lambda: region.get("key") is NO_VALUE)
    comes_back(memcached, eventually, lambda: region.set("key", 5), lambda: region.get("key") == 5)


def test_oslo_cache(location: str, memcached: MemcachedProcess) -> None:
    conf = cfg.ConfigOpts()
    oslo.configure(conf)
    conf([])
    settings = {
        "enabled": True,
        "backend": "dogpile.cache.pymemcache",
        "memcache_servers": [location],
        "enable_socket_keepalive": True,
        "enable_retry_client": True,
        "expiration_time": 100,
    }
    for name, value in settings.items():
        conf.set_override(name, value, group="cache")
    region = oslo.create_region()
    oslo.configure_cache_region(conf, region)
    calls = []

    @oslo.get_memoization_decorator(conf, region, "cache")
    def squared(number: int) -> int:
        calls.append(number)
        return number * number

    assert [squared(3), squared(3)] == [9, 9]
    assert calls == [3]
    region.set("key", ["value"])
    assert region.get("key") == ["value"]
    assert region.get("none") is oslo.NO_VALUE
    region.delete("key")
    assert region.get("key") is oslo.NO_VALUE


def test_flask_caching(
    location: str, memcached: MemcachedProcess, eventually: Callable[..., None]
) -> None:
    # It looks for other libraries by name; a client of pymemcache is given to it.
    options = {"retry_timeout": 0, "dead_timeout": 0, "default_noreply": False}
    client = cymemcache.HashClient([location], serde=cymemcache.serde.pickle_serde, **options)
    app = flask.Flask(__name__)
    cache = flask_caching.Cache(
        app,
        config={
            "CACHE_TYPE": "MemcachedCache",
            "CACHE_MEMCACHED_SERVERS": client,
            "CACHE_KEY_PREFIX": "flask:",
            "CACHE_DEFAULT_TIMEOUT": 100,
        },
    )
    calls = []

    @app.route("/")
    @cache.cached(timeout=1)
    def page() -> str:
        calls.append("page")
        return f"{len(calls)} calls"

    @cache.memoize()
    def squared(number: int) -> int:
        calls.append(f"squared {number}")
        return number * number

    with app.app_context():
        web = app.test_client()
        assert [web.get("/").text, web.get("/").text] == ["1 calls", "1 calls"]
        eventually(lambda: web.get("/").text == "2 calls")
        assert [squared(3), squared(3)] == [9, 9]
        cache.delete_memoized(squared)
        assert squared(3) == 9
        assert calls == ["page", "page", "squared 3", "squared 3"]
        cache.set("key", "value")
        assert cache.get("key") == "value"
        assert cache.add("key", "other") is False
        assert cache.set_many({"a": 1, "b": [2]}) is not False
        assert cache.get_many("a", "none", "b") == [1, None, [2]]
        assert cache.get_dict("a", "b") == {"a": 1, "b": [2]}
        assert cache.has("a")
        cache.delete_many("a", "b")
        assert cache.get("a") is None
        cache.clear()
        assert cache.get("key") is None
        comes_back(
            memcached,
            eventually,
            lambda: client.set("flask:key", 5),
            lambda: cache.get("key") == 5,
        )
    client.close()
