"""A cluster that follows its configuration: options, the names of nodes, what a change changes,
what is logged.  The answers of the endpoint are made up here; nothing connects to anything.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymemcache.client.hash import HashClient as ReferenceHashClient

import cymemcache
from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    HashClient,
    MemcacheUnknownError,
    discovery,
)
from cymemcache.configuration import Configuration, parse_configuration
from interrupting import Interrupted, interrupted_at

ENDPOINT = "cluster.abcxyz.cfg.use1.cache.example.com:11211"


class Told(AWSElastiCacheHashClient):
    """A client that is told its configuration by the test: `answer`, or an error."""

    answer: Any = b"1\na|10.0.0.1|11211 b|10.0.0.2|11211\n"

    def _told(self) -> Configuration:
        if isinstance(self.answer, Exception):
            raise self.answer
        return parse_configuration(self.answer)

    def tell(self, answer: Any) -> None:
        self.answer = answer
        self.reconfigure_nodes()


@pytest.fixture
def client() -> Iterator[Told]:
    with Told(ENDPOINT) as client:
        yield client


def names(client: HashClient) -> set[str]:
    """The names of the nodes, which must be the same everywhere."""
    assert set(client.clients) == set(client.hasher.nodes)
    return set(client.clients)


# -- options ---------------------------------------------------------------------------------------


def test_parameters_come_in_the_known_order_and_ours_after_them() -> None:
    parameters = inspect.signature(AWSElastiCacheHashClient).parameters
    of_a_cluster = list(inspect.signature(ReferenceHashClient).parameters)[1:]
    known = ["cfg_node", *of_a_cluster, "use_vpc"]
    assert list(parameters)[: len(known)] == known
    assert parameters["use_vpc"].default is True
    assert parameters["discovery_interval"].default == 60
    ours = inspect.signature(HashClient).parameters
    for name in of_a_cluster:
        assert parameters[name].default == ours[name].default


def test_every_option_is_documented() -> None:
    text = AWSElastiCacheHashClient.__doc__ or ""
    for name in list(inspect.signature(AWSElastiCacheHashClient).parameters)[1:]:
        assert f"    {name}: " in text


@pytest.mark.parametrize("interval", [None, 0])
def test_without_an_interval_there_is_no_thread(interval: Any) -> None:
    with Told(ENDPOINT, discovery_interval=interval, timeout=0.01, ignore_exc=True) as client:
        before = threading.active_count()
        client._client_of("key")
        assert threading.active_count() == before
        assert client._on_failure is None


@pytest.mark.parametrize(
    "given",
    [{"discovery_interval": -1}, {"use_vpn": True}, {"timeout": 0}, {"discovery_interval": "60"}],
    ids=str,
)
def test_bad_options_are_refused(given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(given))):
        Told(ENDPOINT, **given)


@pytest.mark.parametrize("address", ["", "host:abc", "host:123123", "a:1:2", None, 11211])
def test_a_bad_endpoint_is_refused(address: Any) -> None:
    with pytest.raises(ValueError, match="server"):
        Told(address)


def test_the_endpoint_is_reached_as_the_nodes_are() -> None:
    def wrap_socket() -> None: ...

    given: dict[str, Any] = {
        "connect_timeout": 2,
        "timeout": 3,
        "no_delay": False,
        "socket_keepalive": cymemcache.KeepaliveOpts(),
        "tls_context": type("Context", (), {"wrap_socket": wrap_socket}),
    }
    client = Told(ENDPOINT, key_prefix="p:", ignore_exc=True, serde=None, **given)
    for name, value in given.items():
        assert getattr(client._endpoint, name) == value
        assert getattr(client.clients["10.0.0.1:11211"], name) == value
    # What is about items is not for it.
    assert client._endpoint.key_prefix == b""
    assert client._endpoint.ignore_exc is False


def test_an_endpoint_is_not_waited_for_without_end() -> None:
    client = Told(ENDPOINT)
    assert client._endpoint.timeout == client._endpoint.connect_timeout == 5
    assert client.clients["10.0.0.1:11211"].timeout is None


def test_a_repr_shows_nodes_and_no_password() -> None:
    client = Told(ENDPOINT, username="ada", password="s3cret")
    assert repr(client) == "<Told 10.0.0.1:11211, 10.0.0.2:11211>"


@pytest.mark.parametrize("pooling", [False, True])
def test_nodes_have_the_clients_of_any_cluster(pooling: bool) -> None:
    client = Told(ENDPOINT, use_pooling=pooling, max_pool_size=3)
    kinds = {type(node) for node in client.clients.values()}
    assert kinds == {cymemcache.PooledClient if pooling else Client}


# -- names -----------------------------------------------------------------------------------------

NAMED = b"1\na.example|10.0.0.1|11211 b.example||11212 |2001:db8::1|11213\n"


@pytest.mark.parametrize(
    ("use_vpc", "expected"),
    [
        (True, {"10.0.0.1:11211", "b.example:11212", "2001:db8::1:11213"}),
        (False, {"a.example:11211", "b.example:11212", "2001:db8::1:11213"}),
    ],
)
def test_nodes_have_the_names_that_pymemcache_gives_them(
    use_vpc: bool, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "answer", NAMED)
    client = Told(ENDPOINT, use_vpc=use_vpc)
    assert names(client) == expected
    reference = ReferenceHashClient([node.server for node in client.clients.values()])
    assert set(reference.clients) == expected
    for key in [f"key-{number}" for number in range(200)]:
        assert client.hasher.get_node(key) == reference.hasher.get_node(key)


# -- changes ---------------------------------------------------------------------------------------


def test_nodes_come_and_go_and_the_others_stay_as_they_are(client: Told) -> None:
    kept = client.clients["10.0.0.2:11211"]
    client.tell(b"2\nb|10.0.0.2|11211 c|10.0.0.3|11211\n")
    assert names(client) == {"10.0.0.2:11211", "10.0.0.3:11211"}
    assert client.clients["10.0.0.2:11211"] is kept
    assert client.configuration_version == 2


def test_the_order_of_the_nodes_does_not_matter(client: Told) -> None:
    before = dict(client.clients)
    client.tell(b"2\nb|10.0.0.2|11211 a|10.0.0.1|11211\n")
    assert client.clients == before


def test_a_node_that_moves_is_another_node(client: Told) -> None:
    client.tell(b"1\na|10.0.0.9|11211 b|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.9:11211", "10.0.0.2:11211"}


def test_an_older_configuration_changes_nothing(client: Told) -> None:
    client.tell(b"5\na|10.0.0.1|11211\n")
    client.tell(b"4\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.1:11211"}
    assert client.configuration_version == 5


@pytest.mark.parametrize(
    "answer",
    [b"2\n\n", b"2\nb|10.0.0.2|11211 c|\n", b"garbage", OSError("down")],
    ids=["empty", "half", "garbage", "down"],
)
def test_what_is_no_configuration_is_raised_and_changes_nothing(client: Told, answer: Any) -> None:
    before = dict(client.clients)
    with pytest.raises((MemcacheUnknownError, OSError)):
        client.tell(answer)
    assert client.clients == before
    assert names(client) == set(before)
    assert client.configuration_version == 1


@pytest.mark.parametrize("ignore_exc", [False, True])
def test_a_client_is_not_made_without_a_configuration(
    ignore_exc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "answer", b"garbage")
    with pytest.raises(MemcacheUnknownError, match="not a cluster configuration"):
        Told(ENDPOINT, ignore_exc=ignore_exc)


def test_nodes_that_were_added_by_hand_stay(client: Told) -> None:
    client.add_server("10.0.0.7:11211")
    client.tell(b"2\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.2:11211", "10.0.0.7:11211"}


@pytest.mark.parametrize("how", [("10.0.0.1:11211",), ("10.0.0.1", 11211), (("10.0.0.1", 11211),)])
def test_nodes_that_were_added_by_hand_too_stay_when_the_configuration_drops_them(
    client: Told, how: Any
) -> None:
    client.add_server("10.0.0.7:11211")
    client.tell(b"2\na|10.0.0.1|11211 b|10.0.0.2|11211 g|10.0.0.7|11211\n")
    client.add_server(*how)
    client.tell(b"3\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.7:11211"}
    client.remove_server("10.0.0.7:11211")
    client.tell(b"4\ng|10.0.0.7|11211\n")
    client.tell(b"5\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.1:11211", "10.0.0.2:11211"}


def test_nodes_that_come_and_go_are_seen_by_methods_that_override_ours() -> None:
    seen: list[Any] = []

    class Watching(Told):
        def add_server(self, server: Any, port: Any = None) -> None:
            seen.append(server)
            super().add_server("{}:{}".format(*server))

    client = Watching(ENDPOINT)
    client.tell(b"2\nb|10.0.0.2|11211 c|10.0.0.3|11211\n")
    assert seen == [("10.0.0.1", 11211), ("10.0.0.2", 11211), ("10.0.0.3", 11211)]
    client.tell(b"3\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.2:11211"}


def test_interrupted_at_any_line_the_next_answer_makes_the_nodes_right() -> None:
    interruptions = 0
    while True:
        client = Told(ENDPOINT)
        client.answer = b"2\nb|10.0.0.2|11211 c|10.0.0.3|11211\n"
        try:
            with interrupted_at(interruptions + 1, discovery.__file__):
                client.reconfigure_nodes()
        except Interrupted:
            client._configuring = threading.RLock()  # a tracer, unlike a signal, can keep it locked
        else:
            break
        client.tell(b"3\nb|10.0.0.2|11211\n")
        assert names(client) == {"10.0.0.2:11211"}
        interruptions += 1
    assert interruptions > 20


def test_nodes_that_were_removed_by_hand_come_back_with_the_next_answer(client: Told) -> None:
    client.remove_server("10.0.0.1:11211")
    client.remove_server("10.0.0.2:11211")
    client.tell(b"1\na|10.0.0.1|11211 b|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.1:11211", "10.0.0.2:11211"}
    client.remove_server("10.0.0.1:11211")
    client.tell(b"2\nb|10.0.0.2|11211\n")
    assert names(client) == {"10.0.0.2:11211"}


def test_what_was_cut_short_is_done_the_next_time(
    client: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(client, "remove_server", fail)
        with pytest.raises(RuntimeError, match="interrupted"):
            client.tell(b"2\nb|10.0.0.2|11211 c|10.0.0.3|11211\n")
    assert names(client) == {"10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"}
    client.reconfigure_nodes()
    assert names(client) == {"10.0.0.2:11211", "10.0.0.3:11211"}


def test_a_ring_is_never_empty_in_between(client: Told) -> None:
    seen = []
    remove = client.remove_server

    def watched(server: Any, port: Any = None) -> None:
        seen.append(len(client.clients))
        remove(server, port)

    client.remove_server = watched  # type: ignore[method-assign]
    client.tell(b"2\nc|10.0.0.3|11211\n")
    assert seen == [3, 2]


def test_a_dead_node_that_leaves_is_forgotten(client: Told) -> None:
    for name, _, node in client._members():
        if name == "10.0.0.1:11211":
            for _ in range(client.retry_attempts + 1):
                node._health._next = 0.0
                node.admits()
                node.failed(ConnectionRefusedError())
    client._client_of("key")
    assert client.hasher.nodes == ["10.0.0.2:11211"]
    client.tell(b"2\nb|10.0.0.2|11211\n")
    assert client.hasher.nodes == ["10.0.0.2:11211"]
    assert names(client) == {"10.0.0.2:11211"}


# -- logging ---------------------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_what_goes_wrong_is_logged_once_per_kind(
    client: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cymemcache")
    client.answer = ConnectionRefusedError("refused")
    for _ in range(3):
        client.poll()
    (line,) = lines(caplog)
    assert ENDPOINT in line
    assert "ConnectionRefusedError: refused" in line
    client.answer = b"garbage"
    for _ in range(3):
        client.poll()
    (line,) = lines(caplog)
    assert "not a cluster configuration" in line
    client.answer = b"1\na|10.0.0.1|11211 b|10.0.0.2|11211\n"
    for _ in range(3):
        client.poll()
    (line,) = lines(caplog)
    assert "answers again" in line


def test_each_change_is_logged_with_its_nodes(
    client: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cymemcache")
    for _ in range(3):
        client.tell(b"2\nb|10.0.0.2|11211 c|10.0.0.3|11211\n")
    assert lines(caplog) == [
        "the cluster's configuration 2: 10.0.0.3:11211 is new, 10.0.0.1:11211 is gone"
    ]


# -- its thread ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "quit", "__exit__"])
def test_the_end_of_a_client_is_its_end(client: Told, end: str) -> None:
    assert client._poller is not None
    client._client_of("key")
    assert not client._poller.is_idle
    getattr(client, end)(*([None] * 3 if end == "__exit__" else []))
    assert client._poller.is_idle


def test_disconnecting_leaves_it_alone(client: Told) -> None:
    assert client._poller is not None
    client._client_of("key")
    client.disconnect_all()
    assert not client._poller.is_idle


def test_no_command_fails_where_no_thread_can_be_had(
    client: Told, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            client._client_of("key")
    assert len([line for line in lines(caplog) if "can't start new thread" in line]) == 1
    client._client_of("key")
    assert client._poller is not None
    assert not client._poller.is_idle


def test_a_node_that_fails_wakes_it(client: Told) -> None:
    polled = threading.Event()
    client.poll = polled.set  # type: ignore[method-assign]
    client._client_of("key")
    assert not polled.wait(0.05)
    client._members()[0][2].failed(ConnectionRefusedError())
    assert polled.wait(20)
