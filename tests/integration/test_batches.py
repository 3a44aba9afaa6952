"""Batches far beyond every buffer are sent and read in step: they neither deadlock nor pile up in
memory, and where a server refuses some of their commands, the rest is done and the connection goes
on in step.  Each test runs over the compiled exchange and over the generic one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from cymemcache import Client, MemcacheServerError, MemcacheUnexpectedCloseError
from cymemcache.testing import Answer, Close, EmbeddedServer, MemcachedProcess
from exchanges import MODULES
from wire import MEBIBYTE, PATIENCE, Server

MANY = 300_000
LONG = 100.0  # seconds for a batch of that size, on whatever machine


@pytest.fixture
def patience() -> float:
    return LONG


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


def numbered(count: int) -> dict[str, bytes]:
    return {f"k{number}": b"%d" % number for number in range(count)}


@pytest.mark.parametrize("connect", sorted(MODULES), indirect=True)
def test_hundreds_of_thousands_of_items_are_stored_read_and_deleted(
    memcached_factory: Callable[..., MemcachedProcess], connect: Callable[..., Client]
) -> None:
    client = connect(memcached_factory("-m", "256").address)
    items = numbered(MANY)
    assert client.set_many(items, noreply=False) == []
    assert client.stats()[b"curr_items"] == MANY
    some = list(items)[:100_000]
    assert client.get_many(some) == {key: items[key] for key in some}
    assert client.delete_many(items, noreply=False) is True
    assert client.stats()[b"curr_items"] == 0
    assert client.get_many(some) == {}


@pytest.mark.parametrize("connect", sorted(MODULES), indirect=True)
def test_hundreds_of_thousands_of_noreply_commands_to_a_server_that_answers_them_all_the_same(
    connect: Callable[..., Client],
) -> None:
    with EmbeddedServer(answer_noreply=True, memory_limit=256 * MEBIBYTE) as server:
        client = connect(server.address)
        items = numbered(MANY)
        assert client.set_many(items, noreply=True) == []
        assert client.get("k1") == b"1"
        assert client.get(f"k{MANY - 1}") == b"%d" % (MANY - 1)
        assert client.stats()[b"curr_items"] == MANY
        assert client.delete_many(items, noreply=True) is True
        assert client.get("k1") is None
        assert client.stats()[b"curr_items"] == 0
        assert client.noreply_errors == client.noreply_lost == 0


def test_single_noreply_commands_beyond_every_buffer_to_a_server_that_answers_them(
    connect: Callable[..., Client],
) -> None:
    # The answers alone fill the socket buffers of both sides several times.
    reply = b"SERVER_ERROR " + b"x" * 1000 + b"\r\n"
    with EmbeddedServer() as server:
        client = connect(server.address)
        count = 12_000
        with server.inject(Answer(reply), verb="set", times=None):
            for number in range(count):
                client.set(f"k{number}", b"v", noreply=True)
            assert client.get("k1") is None
        assert client.noreply_errors == count


@pytest.mark.parametrize("noreply", [False, True], ids=["replies", "noreply"])
@pytest.mark.parametrize("exchange", sorted(MODULES))
def test_a_batch_that_fails_as_a_whole_takes_no_more_memory_than_one_that_succeeds(
    exchange: str, noreply: bool
) -> None:
    # In a process of its own, whose peak is that of the batches.
    program = f"""
        import logging, sys
        from resource import RUSAGE_SELF, getrusage
        from cymemcache import Client, MemcacheServerError
        from exchanges import MODULES

        logging.disable()
        items = {{"k%d" % number: b"v" for number in range({MANY // 2})}}
        peaks = []
        for server in sys.argv[1:]:
            client = Client(server, timeout={LONG}, socket_module=MODULES[{exchange!r}])
            try:
                client.set_many(items, noreply={noreply})
            except MemcacheServerError:
                print("failed")
            client.get("k1")
            print(client.noreply_errors)
            client.close()
            peaks.append(getrusage(RUSAGE_SELF).ru_maxrss)
        print(peaks[1] - peaks[0])
    """
    with EmbeddedServer() as good, EmbeddedServer() as bad:
        reply = b"SERVER_ERROR out of memory storing object\r\n"
        with bad.inject(Answer(reply), verb="set", times=None):
            addresses = [f"{host}:{port}" for host, port in (good.address, bad.address)]
            run = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program), *addresses],
                capture_output=True,
                text=True,
                timeout=LONG,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
    assert run.returncode == 0, run.stderr
    *said, grown = run.stdout.split()
    assert said == (["0", str(MANY // 2)] if noreply else ["0", "failed", "0"])
    # An error object for each command would be more than 15 MB.
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 8 * MEBIBYTE


def test_keys_of_a_fetch_are_split_over_requests_of_max_request_size(
    connect: Callable[..., Client],
) -> None:
    with EmbeddedServer(recording=True) as server:
        client = connect(server.address, max_request_size=2000)
        items = numbered(3000)
        client.set_many(items, noreply=False)
        server.clear()
        client.set_many({key: items[key] for key in list(items)[::3]}, noreply=False)
        assert client.get_many(items) == {key: items[key] for key in list(items)[::3]}
        requests = [line for _, line in server.requests if line.startswith(b"get ")]
        assert len(requests) > 5
        assert all(len(line) + 2 <= 2000 for line in requests)
        assert b" ".join(line[4:] for line in requests).decode().split() == list(items)


# -- partial failures ------------------------------------------------------------------------------


def test_items_that_are_refused_are_reported_and_the_rest_is_stored(
    server: Server, connect: Callable[..., Client]
) -> None:
    items = numbered(1000)
    refused = ["k17", "k500", "k999"]
    items.update(dict.fromkeys(refused, b"x" * (2 * MEBIBYTE)))
    stored = {key: value for key, value in items.items() if key not in refused}

    client = connect(server.address)
    for _ in range(3):
        with pytest.raises(MemcacheServerError, match="too large"):
            client.set_many(items, noreply=False)
        assert client.get("k16") == b"16"
        assert client.incr("k1", 0) == 1
        assert client.get_many(items) == stored

    forgiving = connect(server.address, ignore_exc=True)
    for _ in range(3):
        assert forgiving.set_many(items, noreply=False) == refused
        assert forgiving.get_many(items) == stored


def test_the_first_error_is_raised_and_the_connection_is_kept(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.version()
    for verb, call in [
        ("set", lambda: client.set_many(numbered(5000), noreply=False)),
        ("delete", lambda: client.delete_many(numbered(5000), noreply=False)),
    ]:
        first = embedded.inject(Answer(b"SERVER_ERROR one\r\n"), verb=verb, key="k1234")
        embedded.inject(Answer(b"SERVER_ERROR two\r\n"), verb=verb, key="k4999")
        with pytest.raises(MemcacheServerError, match=r"^one$"):
            call()
        assert first.hits == 1
        assert client.get("k1234") is None
        kept = b"4998" if verb == "set" else None
        assert client.get("k4998") == kept
    assert embedded.open_connections == 1


def test_a_batch_that_is_cut_off_costs_its_connection_alone(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    items = numbered(20_000)
    for skip in (0, 1, 9_999, 19_999):
        embedded.inject(Close(), verb="set", skip=skip)
        with pytest.raises((MemcacheUnexpectedCloseError, ConnectionError)):
            client.set_many(items, noreply=False)
        assert client.get("absent") is None
        assert client.set_many(items, noreply=False) == []
        assert client.get_many(items) == items
        assert client.delete_many(items, noreply=False) is True


def test_a_batch_with_large_values_goes_both_ways(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address, timeout=PATIENCE)
    items = {f"k{number}": bytes([number]) * 700_000 for number in range(40)}
    for noreply in (False, True):
        assert client.set_many(items, noreply=noreply) == []
        assert client.get_many(reversed(items)) == items
