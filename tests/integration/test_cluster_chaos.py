"""Many threads on one cluster, while its servers are killed, stopped, restarted, removed and added.

Whatever happens: a value that is read was written under its key; nobody is held for longer than
`timeout` and `connect_timeout` allow; only documented errors are raised; and nothing is left over.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from clusters import name_of
from cymemcache import HashClient, MemcacheUnexpectedCloseError
from cymemcache.testing import MemcachedProcess
from interrupting import connected_to
from wire import PATIENCE, wait_until

THREADS = 32
NODES = 5
TIMEOUT = 0.75  # seconds, and as much for connect_timeout
SLACK = 2.0  # seconds that a loaded machine may add

OPTIONS: dict[str, tuple[float, dict[str, Any]]] = {
    "raising": (20, {}),
    "pooled-ignoring": (20, {"use_pooling": True, "max_pool_size": 8, "ignore_exc": True}),
}


class Monkey:
    """Does things to servers, and to the cluster's list of them, and in the end undoes them."""

    def __init__(
        self, cluster: HashClient, processes: list[MemcachedProcess], choice: random.Random
    ) -> None:
        self._cluster = cluster
        self._processes = processes
        self._choice = choice
        self._killed: set[MemcachedProcess] = set()
        self._stopped: set[MemcachedProcess] = set()
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        process = self._choice.choice(self._processes)
        name = name_of(process.address)
        if process in self._killed:
            self.start(process)
        elif process in self._stopped:
            self.go_on(process)
        else:
            action = self._choice.choice(["kill", "stop", "stop", "remove"])
            self.done[action] += 1
            if action == "kill":
                os.kill(process.pid, signal.SIGKILL)
                self._killed.add(process)
            elif action == "stop":
                os.kill(process.pid, signal.SIGSTOP)
                self._stopped.add(process)
            elif name in self._cluster.clients:
                self._cluster.remove_server(process.address)
        if self._choice.random() < 0.5:
            self.add()

    def add(self) -> None:
        for process in self._processes:
            if name_of(process.address) not in self._cluster.clients:
                self._cluster.add_server(process.address)

    def start(self, process: MemcachedProcess) -> None:
        self.done["start"] += 1
        process.stop()
        process.start()
        self._killed.discard(process)

    def go_on(self, process: MemcachedProcess) -> None:
        os.kill(process.pid, signal.SIGCONT)
        self._stopped.discard(process)

    def undo(self) -> None:
        for process in list(self._stopped):
            self.go_on(process)
        for process in list(self._killed):
            self.start(process)


class User:
    """A thread's commands: on its own keys, and on those that all write to."""

    def __init__(self, cluster: HashClient, choice: random.Random, numbers: Any) -> None:
        self.cluster = cluster
        self.choice = choice
        self.numbers = numbers
        self.longest = 0.0
        self.results: Counter[str] = Counter()
        self.commands: list[Callable[[], Any]] = [
            self.get,
            self.get,
            self.set,
            self.get_many,
            self.get_many,
            self.set_many,
            self.gets_and_cas,
            self.delete,
            self.index,
            self.version,
        ]

    def key(self) -> str:
        return f"key-{self.choice.randrange(200)}"

    def keys(self) -> list[str]:
        return [self.key() for _ in range(self.choice.randrange(1, 40))]

    def value(self, key: str) -> bytes:
        size = self.choice.choice([0, 10, 1000, 40_000 if self.choice.random() < 0.02 else 0])
        return f"{key}:{next(self.numbers)}:".encode() + b"." * size

    def check(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.results["miss"] += 1
            return
        self.results["hit"] += 1
        name, number, dots = value.split(b":")
        assert name == key.encode(), f"{key} holds {value[:40]!r}"
        # It takes the next number to see how many there were.
        assert 0 <= int(number) < next(self.numbers)
        assert dots == b"." * len(dots)

    def noreply(self) -> bool:
        return self.choice.random() < 0.5

    def get(self) -> None:
        key = self.key()
        self.check(key, self.cluster.get(key))

    def set(self) -> None:
        key = self.key()
        assert self.cluster.set(key, self.value(key), noreply=self.noreply()) in (True, False)

    def get_many(self) -> None:
        keys = self.keys()
        found = self.cluster.get_many(keys)
        assert found.keys() <= set(keys)
        for key, value in found.items():
            self.check(key, value)

    def set_many(self) -> None:
        items = {key: self.value(key) for key in self.keys()}
        assert set(self.cluster.set_many(items, noreply=self.noreply())) <= items.keys()

    def gets_and_cas(self) -> None:
        key = self.key()
        value, token = self.cluster.gets(key)
        self.check(key, value)
        if value is not None:
            assert self.cluster.cas(key, self.value(key), token) in (True, False, None)

    def delete(self) -> None:
        if self.choice.random() < 0.5:
            assert self.cluster.delete(self.key(), noreply=self.noreply()) in (True, False)
        else:
            keys = [self.key(), self.key()]
            assert self.cluster.delete_many(keys, noreply=self.noreply()) in (True, False)

    def index(self) -> None:
        key = self.key()
        try:
            self.check(key, self.cluster[key])
        except KeyError:
            self.results["miss"] += 1

    def version(self) -> None:
        if self.choice.random() < 0.1:
            assert len(self.cluster.version()) <= NODES
        elif self.choice.random() < 0.1:
            self.cluster.disconnect_all()

    def use(self) -> None:
        command = self.choice.choice(self.commands)
        began = time.monotonic()
        try:
            command()
            self.results["fine"] += 1
        except (OSError, MemcacheUnexpectedCloseError) as error:
            if self.cluster.ignore_exc:
                raise
            self.results[type(error).__name__] += 1
        except RuntimeError as error:
            if "max_pool_size" not in str(error):
                raise
            self.results["exhausted"] += 1
        # gets_and_cas is two commands.
        took = (time.monotonic() - began) / (2 if command == self.gets_and_cas else 1)
        self.longest = max(self.longest, took)


class Lateness(threading.Thread):
    """How late a thread that sleeps wakes up here: so much the machine adds to anything."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0.0
        self.going = True

    def run(self) -> None:
        while self.going:
            began = time.monotonic()
            time.sleep(0.02)
            self.most = max(self.most, time.monotonic() - began - 0.02)


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_happens_to_servers_nothing_wrong_comes_back(
    memcached_factory: Callable[..., MemcachedProcess], name: str
) -> None:
    seconds, options = OPTIONS[name]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    processes = [memcached_factory() for _ in range(NODES)]
    cluster = HashClient(
        [process.address for process in processes],
        timeout=TIMEOUT,
        connect_timeout=TIMEOUT,
        retry_attempts=1,
        retry_timeout=0.2,
        dead_timeout=0.5,
        **options,
    )
    numbers = itertools.count(1)
    users = [User(cluster, random.Random(seed + n), numbers) for n in range(THREADS)]
    monkey = Monkey(cluster, processes, random.Random(seed))
    ends_at = time.monotonic() + seconds
    failures: list[BaseException] = []

    def work(user: User) -> None:
        try:
            while time.monotonic() < ends_at and not failures:
                user.use()
        except BaseException as error:
            failures.append(error)

    lateness = Lateness()
    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in [lateness, *threads]:
        thread.start()
    try:
        while time.monotonic() < ends_at and not failures:
            monkey.act()
            time.sleep(monkey._choice.random() * 0.4)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"
    finally:
        ends_at = 0.0
        monkey.undo()
        lateness.going = False
        for thread in [lateness, *threads]:
            thread.join(PATIENCE)
    if failures:
        raise failures[0]
    results = sum((user.results for user in users), Counter[str]())
    longest = max(user.longest for user in users)
    print(
        f"{dict(results)}, {dict(monkey.done)}, longest {longest:.2f} s, late {lateness.most:.2f}"
    )
    # With pooling they may have stood in line as well, after the nodes that need no waiting, and
    # before another's turn.
    allowed = 2 * TIMEOUT + (3 * TIMEOUT if "use_pooling" in options else 0)
    assert longest < allowed + SLACK + lateness.most
    assert results["hit"] > 100
    assert results["fine"] > 100

    # All is well again.
    monkey.add()
    keys = [f"after-{number}" for number in range(100)]

    def works() -> bool:
        try:
            return (
                cluster.set_many(dict.fromkeys(keys, b"v"), noreply=False) == []
                and cluster.get_many(keys) == dict.fromkeys(keys, b"v")
                and all(node.state == "up" for _, _, node in cluster._members())
                and len(set(cluster.hasher.nodes)) == NODES
            )
        except (OSError, MemcacheUnexpectedCloseError):
            return False

    wait_until(works)
    if "use_pooling" in options:
        pools = [client.client_pool for client in cluster.clients.values()]
        assert [len(pool.used) for pool in pools] == [0] * NODES
        assert all(len(pool.free) <= 8 for pool in pools)
    cluster.close()
    gc.collect()
    assert [connected_to(process.address) for process in processes] == [set()] * NODES
