"""One client may be used from any number of threads at once, and closed while they use it: every
value belongs to the key that was asked for, nothing is raised that is not documented, and nothing
is left open.  Each test runs over the compiled exchange and over the generic one.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import Client
from cymemcache.testing import EmbeddedServer
from wire import PATIENCE, Server

THREADS = 16
SECONDS = 1.0


@pytest.fixture(params=[0.005, 1e-6], ids=["usual-switches", "many-switches"])
def switch_interval(request: pytest.FixtureRequest) -> Iterator[None]:
    """How often the interpreter changes threads: as ever, or whenever it can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(usual)


class User:
    """What one thread does with the client, and knows of its own keys."""

    def __init__(self, client: Client, number: int, seed: int) -> None:
        self.client = client
        self.name = f"t{number}"
        self.choice = random.Random(seed + number)
        self.written: dict[str, bytes] = {}
        self.count = 0
        self.commands = 0
        self.failure = ""

    def value(self, key: str) -> bytes:
        size = self.choice.choice((1, 10, 100, 3000))
        return f"{key}={self.commands}:".encode() + b"x" * self.choice.randrange(size)

    def step(self) -> None:
        self.commands += 1
        client, choice = self.client, self.choice
        key = f"{self.name}-{choice.randrange(20)}"
        noreply = choice.random() < 0.5
        command = choice.randrange(8)
        if command == 0:
            value = self.value(key)
            expect(client.set(key, value, noreply=noreply), True)
            self.written[key] = value
        elif command == 1:
            expect(client.get(key), self.written.get(key))
        elif command == 2:
            expect(client.delete(key, noreply=noreply), noreply or key in self.written)
            self.written.pop(key, None)
        elif command == 3:
            keys = [f"{self.name}-{n}" for n in choice.sample(range(20), 8)]
            expect(client.get_many(keys), {k: v for k, v in self.written.items() if k in keys})
        elif command == 4:
            items = {f"{self.name}-{n}": self.value("many") for n in choice.sample(range(20), 5)}
            expect(client.set_many(items, noreply=noreply), [])
            self.written.update(items)
        elif command == 5:
            self.count += 1
            expect(client.incr(f"{self.name}-n", 1), self.count)
        elif command == 6:
            shared = choice.randrange(50)
            found = client.get(f"shared-{shared}")
            if not found.startswith(b"shared-%d:" % shared):
                raise AssertionError(f"shared-{shared} holds {found[:30]!r}")
            client.set(f"shared-{shared}", b"shared-%d:%d" % (shared, self.commands), noreply=True)
        else:
            value, token = client.gets(key, "miss")
            expect(value, self.written.get(key, "miss"))
            if token is not None:
                expect(client.cas(key, b"cas", token), True)
                self.written[key] = b"cas"

    def work(self, until: float, start: threading.Barrier) -> None:
        try:
            self.client.set(f"{self.name}-n", b"0", noreply=False)
            start.wait(PATIENCE)
            while time.monotonic() < until:
                self.step()
        except BaseException as error:
            self.failure = f"{self.name} after {self.commands} commands: {error!r}"


def expect(found: Any, right: Any) -> None:
    if found != right:
        raise AssertionError(f"{str(found)[:100]} instead of {str(right)[:100]}")


def run(client: Client, until: float, meanwhile: Callable[[], None] = lambda: None) -> list[User]:
    """Sixteen threads on one client; the users afterwards."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    client.set_many({f"shared-{n}": f"shared-{n}:0" for n in range(50)}, noreply=False)
    users = [User(client, number, seed) for number in range(THREADS)]
    start = threading.Barrier(THREADS + 1)
    threads = [threading.Thread(target=user.work, args=(until, start)) for user in users]
    for thread in threads:
        thread.start()
    start.wait(PATIENCE)
    while time.monotonic() < until and not any(user.failure for user in users):
        meanwhile()
        time.sleep(0.002)
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive()
    return users


@pytest.mark.usefixtures("switch_interval")
def test_sixteen_threads_each_get_their_own_values(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address)
    users = run(client, time.monotonic() + SECONDS)
    assert [user.failure for user in users if user.failure] == []
    assert all(user.commands > 10 for user in users)
    assert len(client._pool._idle) + len(client._pool._held) <= THREADS + 1
    assert client.noreply_errors == client.noreply_lost == 0


@pytest.mark.usefixtures("switch_interval")
def test_closing_while_others_are_in_the_middle_of_commands_disturbs_none_of_them(
    running_memcached: Server, connect: Callable[..., Client]
) -> None:
    running_memcached.flush()
    client = connect(running_memcached.address)
    closed = 0

    def close() -> None:
        nonlocal closed
        closed += 1
        client.close()

    # Without noreply: what closes behind such a command can promise no order to the next one.
    users = run(_WithReplies(client), time.monotonic() + SECONDS, close)  # type: ignore[arg-type]
    assert [user.failure for user in users if user.failure] == []
    assert closed > 10
    client.close()
    assert not client._pool._idle
    assert not client._pool._held


class _WithReplies:
    """A client whose every command waits for its reply."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            asked = options.pop("noreply", None)
            if asked is None:
                return method(*args, **options)
            result = method(*args, noreply=False, **options)
            return True if asked and result is False else result

        return call


def test_closing_from_several_threads_leaves_no_connection_open(
    connect: Callable[..., Client],
) -> None:
    with EmbeddedServer() as server:
        client = connect(server.address)
        failures: list[BaseException] = []
        until = time.monotonic() + 0.5

        def work(number: int) -> None:
            try:
                while time.monotonic() < until:
                    client.set(f"k{number}", b"%d" % number, noreply=bool(number % 2))
                    found = client.get(f"k{number}")
                    assert found in (b"%d" % number, None)
                    client.close()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []
        client.close()
        deadline = time.monotonic() + PATIENCE
        while server.open_connections:
            assert time.monotonic() < deadline, "connections are left open"
            time.sleep(0.001)


def test_each_thread_authenticates_its_own_connection(connect: Callable[..., Client]) -> None:
    with EmbeddedServer(users={"user": "secret"}) as server:
        client = connect(server.address, username="user", password="secret")
        users = run(client, time.monotonic() + 0.3)
        assert [user.failure for user in users if user.failure] == []
        assert all(user.commands for user in users)


COLLECTING = """
import gc, socket, sys, threading, time
from cymemcache import Client

class Cycle:
    def __init__(self):
        self.me, self.sock = self, socket.socket()
    def __del__(self):
        self.sock.close()  # lets other threads run

def work(number):
    while time.monotonic() < end:
        client.set(f"k{number}", 1)  # by default nobody waits for it: its connection is held
        Cycle()
        client.get("k")

client = Client(sys.argv[1], timeout=20)
end = time.monotonic() + 1
gc.set_threshold(5)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_garbage_may_be_collected_at_any_time(running_memcached: Server) -> None:
    """Whatever finalizers do meanwhile, no thread waits for another that waits for it."""
    address = "{}:{}".format(*running_memcached.address)
    command = [sys.executable, "-c", COLLECTING, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
