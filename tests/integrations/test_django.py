"""Django's cache framework: its own PyMemcacheCache, and the backend of this package."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import django.test
import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, HttpResponse
from django.urls import path

import cymemcache
from cymemcache import MemcacheError
from cymemcache.contrib import django as contrib
from cymemcache.contrib.django import CymemcacheCache, close_clients
from cymemcache.testing import MemcachedProcess

BACKENDS = {
    "theirs": "django.core.cache.backends.memcached.PyMemcacheCache",
    "ours": "cymemcache.contrib.django.CymemcacheCache",
}
OPTIONS = {"timeout": 10, "retry_timeout": 0, "dead_timeout": 0}


def view(request: HttpRequest) -> HttpResponse:
    cache = caches["default"]
    cache.add("visits", 0)
    return HttpResponse(str(cache.incr("visits")))


urlpatterns = [path("", view)]
settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"], DEBUG=False, USE_TZ=True, SECRET_KEY="test"
)
django.setup()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return BACKENDS[request.param]


@pytest.fixture
def cache(backend: str, location: str) -> Iterator[Any]:
    chosen = {"BACKEND": backend, "LOCATION": location, "OPTIONS": dict(OPTIONS)}
    with django.test.override_settings(CACHES={"default": chosen}):
        assert type(caches["default"]._cache) is cymemcache.HashClient
        yield caches["default"]
        caches["default"]._cache.close()


def test_everything_that_a_cache_of_django_can_do(cache: Any) -> None:
    cache.set("key", {"a": [1, "two", 3.0]})
    assert cache.get("key") == {"a": [1, "two", 3.0]}
    assert cache.get("none") is None
    assert cache.get("none", 5) == 5
    cache.set("grün", "Blätter", version=2)
    assert cache.get("grün", version=2) == "Blätter"
    assert cache.get("grün") is None
    assert cache.add("key", "other") is False
    assert cache.add("new", b"bytes") is True
    assert cache.get_or_set("computed", lambda: True) is True
    key = cache.make_and_validate_key("corrupt")
    cache._cache.set(key, b"no pickle", flags=1)
    assert cache.get("corrupt", "default") == "default"
    assert cache.get_or_set("corrupt", lambda: "computed") == "computed"
    assert cache.get_many(["key", "new", "none"]) == {
        "key": {"a": [1, "two", 3.0]},
        "new": b"bytes",
    }
    assert cache.set_many({"one": 1, "two": 2}, timeout=100) == []
    assert (cache.incr("one"), cache.incr("one", 5), cache.decr("one", 3)) == (2, 7, 4)
    assert cache.get("one") == 4
    with pytest.raises(ValueError, match="not found"):
        cache.incr("none")
    assert "one" in cache
    assert cache.delete("one") is True
    assert cache.delete("one") is False
    cache.delete_many(["two", "new"])
    assert cache.get_many(["one", "two", "new"]) == {}
    assert cache.touch("key", 100) is True
    assert cache.touch("none") is False
    cache.clear()
    assert cache.get("key") is None


def test_items_expire(cache: Any, eventually: Callable[..., None]) -> None:
    cache.set("key", "value", timeout=1)
    cache.set("touched", "value", timeout=1)
    cache.touch("touched", None)
    cache.set("never", "value", timeout=None)
    cache.set("month", "value", timeout=60 * 60 * 24 * 31)
    cache.set("at-once", "value", timeout=0)
    assert cache.get("at-once") is None
    eventually(lambda: cache.get("key") is None)
    assert cache.get_many(["touched", "never", "month"]).keys() == {"touched", "never", "month"}


@pytest.mark.parametrize("backend", ["ours"], indirect=True)
def test_a_timeout_may_be_of_any_length_a_timedelta_or_a_datetime(cache: Any) -> None:
    for timeout in (
        *(60 * 60 * 24 * 365 * 20, 1_700_000_000, 10**20, timedelta(days=31), timedelta(days=9999)),
        datetime.now(UTC) + timedelta(hours=1),
    ):
        cache.set("key", "value", timeout=timeout)
        assert cache.get("key") == "value"
        assert cache.touch("key", timeout) is True
        assert cache.set_many({"many": 1}, timeout) == []
        assert cache.get("many") == 1
        cache.clear()
    cache.set("key", "value", timeout=timedelta(0))
    assert cache.get("key") is None


def test_a_value_that_is_too_large_is_told(cache: Any) -> None:
    with pytest.raises(MemcacheError, match="too large"):
        cache.set("key", "x" * (2 << 20))
    assert cache.set_many({"small": 1}) == []


def test_a_server_that_is_lost_comes_back(
    cache: Any, memcached: MemcachedProcess, eventually: Callable[..., None]
) -> None:
    cache.set("key", "value")
    memcached.stop()
    with pytest.raises((OSError, MemcacheError)):
        cache.get("key")
    memcached.start()

    def stored() -> bool:
        try:
            cache.set("key", "again")
        except OSError:
            return False
        return bool(cache.get("key") == "again")

    eventually(stored)


def test_with_ignore_exc_a_lost_server_is_a_miss(
    backend: str, location: str, memcached: MemcachedProcess
) -> None:
    options = {**OPTIONS, "ignore_exc": True, "use_pooling": True, "max_pool_size": 3}
    chosen = {"BACKEND": backend, "LOCATION": [location], "OPTIONS": options}
    with django.test.override_settings(CACHES={"default": chosen}):
        cache = caches["default"]
        cache.set("key", "value")
        assert cache.get("key") == "value"
        memcached.stop()
        assert cache.get("key", 5) == 5
        assert cache.get_many(["key"]) == {}
        assert cache.set_many({"key": 1, "other": 2}) == ["key", "other"]
        cache._cache.close()


def connections(cache: Any) -> int:
    """How many connections the server has been asked for since it began."""
    (stats,) = cache._cache.stats().values()
    return int(stats[b"total_connections"])


def test_requests_share_a_connection_where_the_backend_keeps_it(cache: Any, backend: str) -> None:
    client = django.test.Client()
    assert client.get("/").content == b"1"
    before = connections(cache)
    # The test client itself keeps the signal from closing things.
    for number in range(2, 7):
        request_started.send(sender=None, environ={})
        assert client.get("/").content == str(number).encode()
        request_finished.send(sender=None)
    made = connections(cache) - before
    if backend == BACKENDS["ours"]:
        assert made == 0
    else:
        assert made >= 4


def test_threads_and_tasks_share_the_client_of_ours(location: str) -> None:
    chosen = {"BACKEND": BACKENDS["ours"], "LOCATION": location, "OPTIONS": dict(OPTIONS)}
    with django.test.override_settings(
        CACHES={"default": chosen, "other": {**chosen, "OPTIONS": {}}}
    ):
        found = [caches["default"]._cache]
        thread = threading.Thread(target=lambda: found.append(caches["default"]._cache))
        thread.start()
        thread.join()

        async def request() -> None:
            await caches["default"].aset("key", 5)
            assert await caches["default"].aget("key") == 5
            found.append(caches["default"]._cache)

        asyncio.run(request())
        assert len(found) == 3
        assert found[0] is found[1] is found[2]
        assert caches["other"]._cache is not found[0]
        for name in ("default", "other"):
            caches[name]._cache.close()


def test_what_one_backend_stores_the_other_reads(location: str) -> None:
    chosen = {
        name: {"BACKEND": backend, "LOCATION": location} for name, backend in BACKENDS.items()
    }
    with django.test.override_settings(CACHES={"default": chosen["ours"], **chosen}):
        for number, (one, other) in enumerate([("ours", "theirs"), ("theirs", "ours")]):
            for value in (b"bytes", "text", 5, [1, {"a": None}]):
                caches[one].set(f"key{number}", value)
                assert caches[other].get(f"key{number}") == value
        for name in chosen:
            caches[name]._cache.close()


def test_unix_sockets(backend: str, tmp_path: Any) -> None:
    with MemcachedProcess(unix_path=tmp_path / "socket") as process:
        chosen = {"BACKEND": backend, "LOCATION": f"unix:{process.address}"}
        with django.test.override_settings(CACHES={"default": chosen}):
            caches["default"].set("key", "value")
            assert caches["default"].get("key") == "value"
            assert caches["default"]._cache.clients.keys() == {process.address}
            (client,) = caches["default"]._cache.clients.values()
            assert client.sock.family == socket.AF_UNIX
            client.close()


def test_clients_end_with_their_settings(location: str) -> None:
    for number in range(5):
        options = {**OPTIONS, "key_prefix": str(number)}
        chosen = {"BACKEND": BACKENDS["ours"], "LOCATION": location, "OPTIONS": options}
        with django.test.override_settings(CACHES={"default": chosen}):
            cache = caches["default"]
            cache.set("key", "value")
            (client,) = cache._cache.clients.values()
            assert client.sock is not None
        assert client.sock is None
        assert cache.get("key") == "value"  # of one that still has it
        cache._cache.close()
    assert contrib._clients._made == []


def test_clients_can_be_closed(location: str) -> None:
    chosen = {"BACKEND": BACKENDS["ours"], "LOCATION": location}
    with django.test.override_settings(CACHES={"default": chosen, "other": chosen}):
        cache = caches["default"]
        cache.set("key", "value")
        before = cache._cache
        assert caches["other"]._cache is before
        close_clients()
        assert [client.sock for client in before.clients.values()] == [None]
        assert cache.get("key") == "value"
        del caches["other"]
        assert caches["other"]._cache is not before
        before.close()


def test_backends_with_other_clients_do_not_share_them(location: str) -> None:
    class Mine(cymemcache.HashClient):
        pass

    class MyCache(CymemcacheCache):
        def __init__(self, server: Any, params: Any) -> None:
            super().__init__(server, params)
            self._class = Mine

    mine, other = MyCache(location, {}), CymemcacheCache(location, {})
    assert (type(other._cache), type(mine._cache)) == (cymemcache.HashClient, Mine)
    close_clients()


def test_a_timeout_that_ends_after_2038_is_taken(location: str) -> None:
    century = 60 * 60 * 24 * 365 * 100
    chosen = {"BACKEND": BACKENDS["ours"], "LOCATION": location, "TIMEOUT": century}
    with django.test.override_settings(CACHES={"default": chosen}):
        cache = caches["default"]
        cache.set("key", "value")
        cache.add("added", "value", timeout=2**31 - 1 - int(time.time()))
        cache.set_many({"one": 1, "two": 2}, timeout=century)
        assert cache.touch("key", century) is True
        found = cache.get_many(["key", "added", "one", "two"])
        assert found == {"key": "value", "added": "value", "one": 1, "two": 2}


@pytest.mark.parametrize("timeout", [0, -1, -(10**30)])
def test_a_timeout_that_is_over_stores_nothing(location: str, timeout: int) -> None:
    cache = CymemcacheCache(location, {})
    cache.set("key", "value")
    cache.set("key", "other", timeout=timeout)
    assert cache.get("key") is None
    close_clients()


def test_a_limit_without_pools_is_told(location: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {**OPTIONS, "max_pool_size": 3}
    chosen = {"BACKEND": BACKENDS["ours"], "LOCATION": location, "OPTIONS": options}
    with django.test.override_settings(CACHES={"default": chosen}):
        for _ in range(3):
            caches["default"].set("key", "value")
            del caches["default"]
    assert caplog.messages == ["max_pool_size: without use_pooling=True there are no pools"]


def test_a_child_that_is_forked_while_a_client_is_made_makes_its_own(location: str) -> None:
    class Forking(cymemcache.HashClient):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            worker = threading.Thread(target=self.fork)
            worker.start()
            worker.join()

        def fork(self) -> None:
            pid = os.fork()
            if pid == 0:
                try:
                    CymemcacheCache(location, {}).set("key", "of the child")
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)

    cache = CymemcacheCache(location, {})
    cache._class = Forking
    assert cache.get("key") == "of the child"
    close_clients()
