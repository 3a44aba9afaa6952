"""TLS against a real memcached, with certificates made for the occasion: good ones and bad ones."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from certificates import Authority
from cymemcache import AWSElastiCacheHashClient, Client, HashClient, MemcacheError
from cymemcache.testing import MemcachedProcess
from exchanges import open_sockets
from interrupting import Interrupted, interrupted_at
from wire import MEBIBYTE, PATIENCE


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    """What a user makes: certificates and names are verified."""
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def address(
    authority: Authority, memcached_factory: Callable[..., MemcachedProcess]
) -> tuple[str, int]:
    found: tuple[str, int] = memcached_factory("-I", "8m", tls=authority.issue("127.0.0.1")).address
    return found


def test_commands_over_tls(address: tuple[str, int], trusting: ssl.SSLContext) -> None:
    with Client(address, tls_context=trusting, timeout=PATIENCE) as client:
        assert client.set("k", b"value", noreply=False) is True
        assert client.get("k") == b"value"
        assert isinstance(client.sock, ssl.SSLSocket)
        for number in range(50):
            client.set("k", b"%d" % number, noreply=True)
            assert client.get("k") == b"%d" % number
        assert client.incr("k", 1) == 50


def test_a_cluster_and_its_configuration_endpoint_over_tls(
    address: tuple[str, int], trusting: ssl.SSLContext
) -> None:
    configuration = f"1\nlocalhost|{address[0]}|{address[1]}\n"
    options: Any = {"tls_context": trusting, "timeout": PATIENCE}
    with Client(address, **options) as writer:
        writer.set("AmazonElastiCache:cluster", configuration, noreply=False)
    with AWSElastiCacheHashClient(address, discovery_interval=None, **options) as client:
        assert client.set("k", b"value", noreply=False) is True
        assert client.get_many(["k"]) == {"k": b"value"}


def test_large_values_and_batches_over_tls(
    address: tuple[str, int], trusting: ssl.SSLContext
) -> None:
    items = {f"k{number}": b"%d:" % number * 50 for number in range(5000)}
    large = bytes(range(256)) * (5 * MEBIBYTE // 256)
    with Client(address, tls_context=trusting, timeout=PATIENCE) as client:
        assert client.set_many(items, noreply=False) == []
        assert client.get_many(items) == items
        assert client.set("large", large, noreply=False) is True
        assert client.get("large") == large
        assert client.get_many(["large", "k1"]) == {"large": large, "k1": items["k1"]}
        assert client.delete_many(items, noreply=False) is True
        assert client.get_many(items) == {}


def test_an_idle_connection_with_session_tickets_on_it_is_used_again(
    address: tuple[str, int], trusting: ssl.SSLContext
) -> None:
    with Client(address, tls_context=trusting, timeout=PATIENCE) as client:
        client.set("k", b"value", noreply=False)
        used = client.sock
        time.sleep(1.1)
        assert client.get("k") == b"value"
        assert client.sock is used


def test_a_connection_that_the_server_closed_is_dialled_anew(
    authority: Authority,
    trusting: ssl.SSLContext,
    memcached_factory: Callable[..., MemcachedProcess],
) -> None:
    server = memcached_factory("-o", "idle_timeout=1", tls=authority.issue("127.0.0.1"))
    with Client(server.address, tls_context=trusting, timeout=PATIENCE) as client:
        client.set("k", b"value", noreply=False)
        time.sleep(3.2)
        assert client.set("k", b"other", noreply=False) is True
        assert client.get("k") == b"other"


def refused(address: Any, context: ssl.SSLContext, why: str) -> None:
    before = open_sockets()
    client = Client(address, tls_context=context, timeout=PATIENCE)
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError, match=why):
            client.set("k", b"value", noreply=False)
    assert client.sock is None
    assert open_sockets().keys() == before.keys()


def test_an_unknown_authority_is_refused(address: tuple[str, int]) -> None:
    refused(address, ssl.create_default_context(), "unable to get local issuer|self.signed")


def test_a_certificate_for_another_name_is_refused(
    authority: Authority,
    trusting: ssl.SSLContext,
    memcached_factory: Callable[..., MemcachedProcess],
) -> None:
    server = memcached_factory(tls=authority.issue("cache.example.org"))
    refused(server.address, trusting, "IP address mismatch|doesn't match")


def test_an_expired_certificate_is_refused(
    authority: Authority,
    trusting: ssl.SSLContext,
    memcached_factory: Callable[..., MemcachedProcess],
) -> None:
    # memcached itself does not mind.
    server = memcached_factory(tls=authority.issue("127.0.0.1", expired=True))
    refused(server.address, trusting, "expired")


def test_a_client_without_tls_gets_no_answer(address: tuple[str, int]) -> None:
    with Client(address, timeout=2) as client, pytest.raises((OSError, MemcacheError)):
        client.get("k")


def test_tls_over_a_unix_socket_is_refused(trusting: ssl.SSLContext) -> None:
    with pytest.raises(ValueError, match="tls_context"):
        Client("/tmp/socket", tls_context=trusting)


@pytest.fixture
def small_heap() -> Iterator[None]:
    """`gc.collect` looks at the test's own objects only; a whole run has a great many others."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("sockets", "tls", "stops"),
    [
        ("gevent.socket", "ssl", True),
        ("gevent.socket", "gevent.ssl", False),
        ("socket", "ssl", False),
    ],
)
def test_a_context_whose_sockets_would_stop_all_greenlets_is_told(
    sockets: str, tls: str, stops: bool
) -> None:
    options: Any = {"socket_module": importlib.import_module(sockets)}
    options["tls_context"] = importlib.import_module(tls).SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Client("127.0.0.1:11211", **options)
        HashClient(["127.0.0.1:11211"], **options)
    assert ["which stop all greenlets" in str(warning.message) for warning in told] == [True] * (
        2 if stops else 0
    )


@pytest.mark.usefixtures("small_heap")
@pytest.mark.filterwarnings("ignore:tls_context makes sockets of the standard library")
@pytest.mark.parametrize(
    ("sockets", "tls"),
    [("socket", "ssl"), ("gevent.socket", "ssl"), ("gevent.socket", "gevent.ssl")],
)
def test_an_interruption_while_ssl_takes_a_descriptor_over_leaves_it_one_owner(
    address: tuple[str, int], authority: Authority, sockets: str, tls: str
) -> None:
    """A second one would close whatever has the number by then."""
    context = importlib.import_module(tls).SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.certificate)
    file = type(context).wrap_socket.__code__.co_filename
    options: Any = {"tls_context": context, "timeout": PATIENCE}
    options["socket_module"] = importlib.import_module(sockets)
    interruptions = 0
    while True:
        client = Client(address, **options)
        try:
            with interrupted_at(interruptions + 1, file):
                client.get("k")
        except Interrupted:
            strangers = [socket.socket() for _ in range(4)]
        else:
            break
        finally:
            client.close()
        interruptions += 1
        gc.collect()  # now the frames of the interruption are gone, and all that they held
        for stranger in strangers:
            os.fstat(stranger.fileno())
            stranger.close()
    assert interruptions > 20
