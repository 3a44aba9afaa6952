"""noreply commands that have to ask for replies: behind servers that do not know the barrier, and
where a value may be refused for its size.  Their callers notice nothing but that nothing is lost:
what they wrote is read, what a server refuses is logged and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clusters import in_threads, keys_of
from cymemcache import Client, HashClient, MemcacheUnexpectedCloseError, PooledClient
from cymemcache.core.replies import DOUBTFUL_SIZE
from cymemcache.testing import Answer, Close, EmbeddedServer
from wire import MEBIBYTE, Server

GONE = (ConnectionError, MemcacheUnexpectedCloseError)

REFUSALS = {
    "closes": Close(),
    "resets": Close(reset=True),
    "ERROR": Answer(b"ERROR\r\n"),
    "CLIENT_ERROR": Answer(b"CLIENT_ERROR unknown command\r\n"),
    "SERVER_ERROR": Answer(b"SERVER_ERROR command not supported\r\n"),
    "nonsense": Answer(b"what?\r\n"),
}


@pytest.fixture(params=list(REFUSALS))
def odd(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server that does not know `version`."""
    with EmbeddedServer(recording=True) as server:
        server.inject(REFUSALS[request.param], verb="version", times=None)
        yield server


def lines(server: EmbeddedServer) -> list[bytes]:
    return [line for _, line in server.requests]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def write_and_read(client: Any) -> None:
    """Every noreply command, each followed by what a thread must find then."""
    client.set("k", b"1", noreply=True)
    assert client.get("k") == b"1"
    client.incr("k", 4, noreply=True)
    assert client.incr("k", 1) == 6
    client.decr("k", 1, noreply=True)
    client.append("k", b"0", noreply=True)
    client.prepend("k", b"1", noreply=True)
    assert client.get_many(["k"]) == {"k": b"150"}
    client.add("k", b"other", noreply=True)
    client.replace("k", b"2", noreply=True)
    value, token = client.gets("k")
    assert value == b"2"
    client.cas("k", b"3", token, noreply=True)
    client.cas("k", b"4", token, noreply=True)
    client.touch("k", 100, noreply=True)
    assert client.set("k", b"5", noreply=False) is True
    assert client.set_many({"a": b"x", "b": b"y" * 70_000}, noreply=True) == []
    assert client.get_many(["a", "b", "k"]) == {"a": b"x", "b": b"y" * 70_000, "k": b"5"}
    assert client.delete_many(["a", "absent"], noreply=True) is True
    client.delete("b", noreply=True)
    assert client.get_many(["a", "b", "k"]) == {"k": b"5"}
    client["k"] = b"6"
    assert client["k"] == b"6"
    del client["k"]
    client.flush_all(noreply=True)
    assert client.get("k", "miss") == "miss"


# -- a server that does not know the barrier -------------------------------------------------------


def test_a_thread_reads_what_it_wrote_and_the_log_says_once_how(
    odd: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(odd.address)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            write_and_read(client)
        client.close()
        write_and_read(client)
    (message,) = messages(caplog)
    assert "does not know the command 'version'" in message
    assert "{}:{}".format(*odd.address) in message
    assert client.noreply_errors == client.noreply_lost == 0
    assert lines(odd).count(b"version") <= 2
    assert not any(line.endswith(b" noreply") for line in lines(odd))


def test_without_a_timeout_nothing_waits_for_ever(
    odd: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    write_and_read(connect(odd.address, timeout=None))


def test_threads_that_share_few_connections_read_what_they_wrote(odd: EmbeddedServer) -> None:
    with PooledClient(odd.address, max_pool_size=1, pool_wait_timeout=20) as client:

        def work(number: int) -> None:
            for value in range(20):
                client.set(f"k{number}", b"%d" % value, noreply=True)
                assert client.get(f"k{number}") == b"%d" % value

        assert in_threads(4, work) == [None] * 4
    assert client.noreply_errors == client.noreply_lost == 0


@pytest.mark.parametrize("pooling", [False, True], ids=["plain", "pooled"])
def test_each_server_of_a_cluster_is_known_for_itself(
    odd: EmbeddedServer,
    embedded: EmbeddedServer,
    connect_all: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    pooling: bool,
) -> None:
    cluster = connect_all([odd.address, embedded.address], use_pooling=pooling)
    mine = [*keys_of(cluster, odd.address, 3), *keys_of(cluster, embedded.address, 3)]
    with caplog.at_level(logging.INFO):
        for number in range(3):
            values = dict.fromkeys(mine, b"%d" % number)
            assert cluster.set_many(values, noreply=True) == []
            assert cluster.get_many(mine) == values
            cluster.delete(mine[0], noreply=True)
            assert cluster.delete_many(mine[-1:], noreply=True) is True
            assert cluster.get_many(mine) == {key: values[key] for key in mine[1:-1]}
            assert set(cluster.flush_all(noreply=True).values()) == {True}
            assert cluster.get_many(mine) == {}
    # No node began to fail, or came back.
    (message,) = messages(caplog)
    assert "does not know the command 'version'" in message
    assert not any(line.endswith(b" noreply") for line in lines(odd))
    assert (
        sum(line.endswith(b" noreply") for line in lines(embedded)) == 12
    )  # the first three were not
    assert cluster.counters.noreply_errors == cluster.counters.noreply_lost == 0


def test_a_key_of_a_cluster_is_read_by_who_wrote_it(
    odd: EmbeddedServer, connect_all: Callable[..., Any]
) -> None:
    write_and_read(connect_all([odd.address]))


def test_what_such_a_server_refuses_is_counted_and_logged(
    odd: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(odd.address)
    client.set("k", b"v", noreply=True)
    caplog.clear()
    with (
        odd.inject(Answer(b"SERVER_ERROR out of memory\r\n"), verb="set", skip=1, times=2),
        caplog.at_level(logging.WARNING),
    ):
        assert client.set_many({"a": b"1", "b": b"2", "c": b"3"}, noreply=True) == []
    assert client.noreply_errors == 2
    (message,) = messages(caplog)
    assert "2 of 3 noreply commands failed" in message
    assert "out of memory" in message
    assert client.get_many(["a", "b", "c"]) == {"a": b"1"}


@pytest.mark.parametrize("kind", [Client, HashClient])
def test_a_refusal_after_which_the_stream_cannot_be_trusted_ends_the_connection_only(
    odd: EmbeddedServer, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with kind(odd.address if kind is Client else [odd.address], timeout=20) as client:
        client.set_many({"k": b"v"}, noreply=True)
        with odd.inject(Answer(b"CLIENT_ERROR bad data chunk\r\n"), verb="set"):
            assert client.set_many({"k": b"get k\r\n"}, noreply=True) == []
        assert client.counters.noreply_errors == 1
        assert client.get("k") == b"v"
        assert client.set("k", b"w", noreply=False) is True
    assert "bad data chunk" in messages(caplog)[-1]


def test_a_server_that_goes_down_is_not_taken_for_one_without_the_barrier(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    with embedded.inject(Close(), times=None), pytest.raises(GONE):
        client.set("k", b"v", noreply=True)
    caplog.clear()
    client.set("k", b"w", noreply=True)
    assert client.get("k") == b"w"
    assert lines(embedded)[-3:] == [b"set k 0 0 1 noreply", b"version", b"get k"]
    assert messages(caplog) == []


def test_a_server_that_takes_the_place_of_another_is_asked_again(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"v", noreply=True)
    with embedded.inject(Close(), verb="version", times=None):
        with pytest.raises(GONE):
            client.get("k")
        write_and_read(client)


def test_a_server_that_is_assigned_is_asked_for_itself(
    odd: EmbeddedServer, embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"v", noreply=True)
    client.server = odd.address
    write_and_read(client)
    client.server = embedded.address
    client.set("k", b"w", noreply=True)
    assert client.get("k") == b"w"
    assert lines(embedded)[-3:] == [b"set k 0 0 1 noreply", b"version", b"get k"]


# -- values that may be refused for their size -----------------------------------------------------


@pytest.mark.parametrize("verb", ["set", "add", "replace", "cas"])
def test_a_value_too_large_is_counted_and_logged_at_once(
    server: Server,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    verb: str,
) -> None:
    client = connect(server.address)
    token: tuple[int, ...] = ()
    if verb != "add":
        client.set("k", b"v", noreply=False)
    if verb == "cas":
        token = (client.gets("k")[1],)
    with caplog.at_level(logging.WARNING):
        assert getattr(client, verb)("k", b"x" * (2 * MEBIBYTE), *token, noreply=True) is True
    assert client.noreply_errors == 1
    (message,) = messages(caplog)
    assert "1 of 1 noreply commands failed" in message
    assert "too large" in message
    assert client.get("k") == (None if verb in ("set", "add") else b"v")


def test_items_too_large_in_a_batch_are_counted_and_the_others_stored(
    server: Server, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(server.address)
    client.set("before", b"v", noreply=True)
    values = {f"k{number}": b"%d" % number for number in range(2000)}
    with caplog.at_level(logging.WARNING):
        large = dict.fromkeys(["k7", "k1999"], b"x" * (2 * MEBIBYTE))
        assert client.set_many({**values, **large}, noreply=True) == []
    assert client.noreply_errors == 2
    (message,) = messages(caplog)
    assert "2 of 2000 noreply commands failed" in message
    del values["k7"], values["k1999"]
    assert client.get_many([*values, "k7", "before"]) == {**values, "before": b"v"}


def test_a_value_too_large_for_a_node_is_counted_for_it(
    server: Server, embedded: EmbeddedServer, connect_all: Callable[..., Any]
) -> None:
    cluster = connect_all([server.address, embedded.address])
    key, other = keys_of(cluster, server.address, 1)[0], keys_of(cluster, embedded.address, 1)[0]
    values = {key: b"x" * (2 * MEBIBYTE), other: b"v"}
    assert cluster.set_many(values, noreply=True) == []
    nodes = cluster.counters.nodes
    assert nodes["{}:{}".format(*server.address)].noreply_errors == 1
    assert nodes["{}:{}".format(*embedded.address)].noreply_errors == 0
    assert cluster.get_many([key, other]) == {other: b"v"}


def test_only_values_that_may_be_refused_are_waited_for(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"x" * (DOUBTFUL_SIZE - 1), noreply=True)
    client.set_many({"a": b"x" * 300_000, "b": b"x" * 300_000}, noreply=True)
    client.set("k", b"x" * DOUBTFUL_SIZE, noreply=True)
    assert lines(embedded) == [
        b"version",
        b"set k 0 0 524287 noreply",
        b"set a 0 0 300000 noreply",
        b"set b 0 0 300000 noreply",
        b"version",
        b"set k 0 0 524288",
    ]


def test_such_a_value_is_there_for_other_threads_at_once(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    with ThreadPoolExecutor(1) as other:
        for number in range(20):
            value = b"%d" % number + b"x" * DOUBTFUL_SIZE
            client.set("k", value, noreply=True)
            assert other.submit(client.get, "k").result() == value
