"""Through twemproxy (nutcracker) over two servers everything means what it means without it:
fetches that are split over both, batches, noreply commands and the barrier behind them.  The order
in which a proxy gives the values of a fetch is its own affair: a scripted one shuffles them.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cymemcache import Client, MemcacheUnknownError
from cymemcache.testing import MemcachedProcess
from wire import PATIENCE


@pytest.fixture
def backends(memcached_factory: Callable[..., MemcachedProcess]) -> list[MemcachedProcess]:
    return [memcached_factory(), memcached_factory()]


@pytest.fixture
def proxy(
    backends: list[MemcachedProcess], nutcracker_factory: Callable[..., tuple[str, int]]
) -> tuple[str, int]:
    return nutcracker_factory([backend.address for backend in backends])


def items(count: int) -> dict[str, bytes]:
    return {f"k{n}": b"%d:" % n + b"x" * (n * 37 % 3000) for n in range(count)}


def test_batches_and_fetches_over_both_servers(
    proxy: tuple[str, int], backends: list[MemcachedProcess], connect: Callable[..., Client]
) -> None:
    client = connect(proxy)
    stored = items(500)
    assert client.set_many(stored, noreply=False) == []
    for backend in backends:
        with Client(backend.address) as direct:
            assert direct.stats()[b"curr_items"] > 0
    choice = random.Random(1)
    for _ in range(30):
        keys = [f"k{n}" for n in choice.sample(range(600), 200)]
        expected = {key: stored[key] for key in keys if key in stored}
        assert client.get_many(keys) == expected
        found = client.gets_many(keys)
        assert {key: value for key, (value, _) in found.items()} == expected
    assert client.delete_many(list(stored)[:250], noreply=False) is True
    assert client.get_many(stored) == dict(list(stored.items())[250:])


def test_a_thread_reads_its_own_noreply_writes_through_the_proxy(
    proxy: tuple[str, int], connect: Callable[..., Client]
) -> None:
    client = connect(proxy)
    for number in range(200):
        stored = {f"n{n}": b"%d-%d" % (number, n) for n in range(10)}
        assert client.set_many(stored, noreply=True) == []
        client.delete("n3", noreply=True)
        del stored["n3"]
        assert client.get_many([f"n{n}" for n in range(10)]) == stored
        client.set("count", b"%d" % number, noreply=True)
        client.incr("count", 1, noreply=True)
        assert client.get("count") == b"%d" % (number + 1)
    assert client.noreply_errors == client.noreply_lost == 0


def test_the_proxy_answers_the_barrier_and_keeps_the_connection(
    proxy: tuple[str, int], connect: Callable[..., Client]
) -> None:
    client = connect(proxy)
    client.set("k", b"v", noreply=True)
    assert client.get("k") == b"v"
    first = client.sock
    for _ in range(50):
        client.touch("k", 100, noreply=True)
        assert client.get("k") == b"v"
        assert client.version()[:1].isdigit()
    assert client.sock is first


def test_a_write_that_a_server_refuses_disturbs_nothing_behind_the_proxy(
    proxy: tuple[str, int], connect: Callable[..., Client]
) -> None:
    client = connect(proxy)
    client.set("k", b"text", noreply=False)
    for _ in range(20):
        client.incr("k", 1, noreply=True)
        assert client.get("k") == b"text"
        client.set("large", b"x" * (2 << 20), noreply=True)
        assert client.get_many(["k", "large"]) == {"k": b"text"}


class Shuffler:
    """A proxy in front of nothing: answers each fetch with all its keys, in a random order."""

    def __init__(self) -> None:
        self.shuffled = 0
        self.spoil: Callable[[list[bytes]], list[bytes]] = lambda keys: keys
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._choice = random.Random(2)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            with sock, sock.makefile("rb") as requests:
                for line in requests:
                    if line == b"stop\r\n":
                        return
                    keys = line.split()[1:]
                    order = self._choice.sample(keys, len(keys))
                    self.shuffled += order != keys
                    cas = b" 7" if line.startswith(b"gets") else b""
                    reply = b"".join(
                        b"VALUE %b 0 %d%b\r\n%b!\r\n" % (key, len(key) + 1, cas, key)
                        for key in self.spoil(order)
                    )
                    sock.sendall(reply + b"END\r\n")

    def stop(self) -> None:
        with socket.create_connection(self.address) as sock:
            sock.sendall(b"stop\r\n")
            self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def shuffler() -> Iterator[Shuffler]:
    server = Shuffler()
    yield server
    server.stop()


def test_values_that_come_out_of_order_come_under_their_own_keys(
    shuffler: Shuffler, connect: Callable[..., Client]
) -> None:
    client = connect(shuffler.address)
    for count in (2, 3, 10, 100, 1000):
        for _ in range(10):
            keys = [f"k{n}" for n in range(count)]
            assert client.get_many(keys) == {key: f"{key}!".encode() for key in keys}
            expected = {key: (f"{key}!".encode(), b"7") for key in keys}
            assert client.gets_many(keys) == expected
    assert shuffler.shuffled > 50
    client.close()


@pytest.mark.parametrize(
    "spoil",
    [lambda keys: [*keys, keys[0]], lambda keys: [*keys[1:], b"k77"], lambda keys: keys[:1] * 2],
    ids=["one-twice", "one-not-asked-for", "one-in-place-of-another"],
)
def test_a_value_with_no_key_left_to_answer_closes_the_connection(
    shuffler: Shuffler,
    connect: Callable[..., Client],
    spoil: Callable[[list[bytes]], list[bytes]],
) -> None:
    client = connect(shuffler.address)
    keys = [f"k{n}" for n in range(5)]
    for _ in range(20):
        shuffler.spoil = spoil
        with pytest.raises(MemcacheUnknownError):
            client.get_many(keys)
        assert client.sock is None
        shuffler.spoil = lambda keys: keys
        assert client.get_many(keys) == {key: f"{key}!".encode() for key in keys}
        client.close()
