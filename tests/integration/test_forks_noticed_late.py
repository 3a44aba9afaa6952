"""A fork that Python has not told us of: since a handler that was registered before our import runs
first, or since the fork was made in C.  Whoever uses a client first in the child notices, and there
is nothing of the parent's by then: no connection, no lock, no place in a pool.  Nor does a child
need a free descriptor to be cut off.

Each in a process of its own, in which the handler can come first.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

import cymemcache
from cymemcache.testing import EmbeddedServer, Hang
from exchanges import MODULES
from wire import MEBIBYTE, PATIENCE

# Every program defines `work`, which its child does; with "python" and "c" before anything of ours
# is told of the fork.
PRELUDE = f"""
import ctypes, os, resource, signal, socket, sys, threading

address, way, exchange = sys.argv[1:4]

def run():
    status = 1
    signal.alarm({PATIENCE:.0f})
    try:
        work()
        status = 0
    except BaseException as error:
        print("in the child:", repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(status)

def fork():
    if way == "python":
        pid = os.fork()
    else:
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            run()
    status = os.waitpid(pid, 0)[1]
    assert status == 0, status

if way == "python":
    os.register_at_fork(after_in_child=run)

from cymemcache import Client, HashClient, PooledClient
from exchanges import MODULES

options = {{"timeout": {PATIENCE}, "socket_module": MODULES[exchange]}}

def inode(number):
    try:
        return os.fstat(number).st_ino
    except OSError:
        return None
"""


@pytest.fixture(params=sorted(MODULES))
def exchange(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["python", "c"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(recording=True) as server:
        yield server


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CYMEMCACHE_IMPL": cymemcache.__impl__,
        },
    )


def run(program: str, server: EmbeddedServer, *arguments: str) -> None:
    host, port = server.address
    process = started(program, f"{host}:{port}", *arguments)
    _, errors = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 0, errors


def connections(server: EmbeddedServer, key: bytes) -> set[int]:
    """The connections over which there were commands on `key`."""
    return {number for number, line in server.requests if key in line.split()}


CLIENTS = {
    "Client": "Client(address, **options)",
    "PooledClient": "PooledClient(address, max_pool_size=1, **options)",
    "HashClient": "HashClient([address], **options)",
    "HashClient with pools": "HashClient([address], use_pooling=True, max_pool_size=1, **options)",
}


@pytest.mark.parametrize("client", CLIENTS)
def test_parent_and_child_share_no_connection(
    client: str, way: str, exchange: str, embedded: EmbeddedServer
) -> None:
    program = f"""
        client = {CLIENTS[client]}
        client.set("parent", b"0", noreply=False)
        client.set("parent", b"1", noreply=True)
        sock = (client.clients[address] if hasattr(client, "clients") else client).sock
        number = sock.fileno()
        before = inode(number)

        def work():
            assert client.incr("child", 1) is None
            assert inode(number) != before
            client.set("child", b"c", noreply=True)
            assert client.get_many(["child"]) == {{"child": b"c"}}
            assert client.counters.noreply_lost == 0

        fork()
        assert client.incr("parent", 1) == 2
        assert client.counters.noreply_lost == client.counters.reconnects == 0
        assert inode(number) == before
    """
    run(program, embedded, way, exchange)
    parents = connections(embedded, b"parent")
    childs = connections(embedded, b"child")
    assert parents.isdisjoint(childs)
    assert (len(parents), len(childs)) == (1, 1)


def test_places_that_the_parents_threads_have_in_a_pool_are_free(
    way: str, exchange: str, embedded: EmbeddedServer
) -> None:
    embedded.inject(Hang(), key="hangs")
    program = """
        client = PooledClient(address, max_pool_size=1, **options)
        client.get("parent")

        def get_what_hangs():
            client.get("hangs")

        def work():
            assert client.get("child", "miss") == "miss"

        using = threading.Thread(target=get_what_hangs, daemon=True)
        using.start()
        while not client.client_pool.used:
            pass
        waiting = threading.Thread(target=get_what_hangs, daemon=True)
        waiting.start()
        fork()
    """
    run(program, embedded, way, exchange)


@pytest.mark.parametrize("pooling", ["use_pooling=False", "use_pooling=True"])
def test_a_lock_that_a_thread_of_the_parent_holds_is_free(
    pooling: str, way: str, embedded: EmbeddedServer
) -> None:
    # A hasher of one's own, without a table, is asked under the lock of the cluster.
    program = f"""
        from cymemcache.hashing import RendezvousHash

        class Hasher:
            def __init__(self):
                self.inner = RendezvousHash()
                self.add_node, self.remove_node = self.inner.add_node, self.inner.remove_node

            def get_node(self, key):
                if key == "held":
                    entered.set()
                    go_on.wait()
                return self.inner.get_node(key)

        entered, go_on = threading.Event(), threading.Event()
        client = HashClient([address], hasher=Hasher, {pooling}, **options)
        thread = threading.Thread(target=client.get, args=("held",))
        thread.start()
        entered.wait()

        def work():
            assert client.get("child", "miss") == "miss"
            client["child"] = b"c"
            assert client.get_many(["child"]) == {{"child": b"c"}}

        fork()
        go_on.set()
        thread.join()
    """
    run(program, embedded, way, "plain")


def test_a_lock_that_the_forking_thread_holds_stays_its_own(embedded: EmbeddedServer) -> None:
    # A signal handler can fork while its thread holds a lock, which it releases later.
    program = """
        from cymemcache.hashing import RendezvousHash

        pids = []

        class Hasher:
            def __init__(self):
                self.inner = RendezvousHash()
                self.add_node, self.remove_node = self.inner.add_node, self.inner.remove_node

            def get_node(self, key):
                if key == "forks":
                    pids.append(os.fork())
                return self.inner.get_node(key)

        client = HashClient([address], hasher=Hasher, **options)

        def work():
            assert client.get("child", "miss") == "miss"

        assert client.get("forks", "miss") == "miss"
        if pids == [0]:
            run()
        assert os.waitpid(pids[0], 0)[1] == 0
    """
    run(program, embedded, "", "plain")


def test_a_child_can_have_the_process_id_of_its_parent(
    exchange: str, embedded: EmbeddedServer
) -> None:
    # Each is number 1 in a namespace of its own.
    program = """
        for name in [name for name in sys.modules if name.startswith("cymemcache")]:
            del sys.modules[name]
        os.getpid = lambda: 1
        from cymemcache import Client

        client = Client(address, **options)
        client.set("parent", b"p", noreply=False)
        number = client.sock.fileno()
        before = inode(number)

        def work():
            assert inode(number) != before
            assert client.get("child", "miss") == "miss"

        pid = os.fork()
        if pid == 0:
            run()
        assert os.waitpid(pid, 0)[1] == 0
        assert inode(number) == before
    """
    run(program, embedded, "", exchange)
    assert connections(embedded, b"parent").isdisjoint(connections(embedded, b"child"))


def test_a_daemon_that_has_closed_all_descriptors_is_cut_off_and_no_strangers_are(
    exchange: str, embedded: EmbeddedServer
) -> None:
    program = """
        client = Client(address, **options)
        client.set("parent", b"p", noreply=False)

        def work():
            os.closerange(3, 100)
            strangers = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            inodes = [inode(number) for number in strangers]
            assert client.get("parent") == b"p"
            number = client.sock.fileno()
            before = inode(number)
            pid = os.fork()
            if pid == 0:
                cut_off = inode(number) != before
                same = [inode(number) for number in strangers] == inodes
                os._exit(0 if cut_off and same else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert client.get("parent") == b"p"

        pid = os.fork()
        if pid == 0:
            run()
        assert os.waitpid(pid, 0)[1] == 0
    """
    run(program, embedded, "", exchange)


# -- without a free descriptor ---------------------------------------------------------------------

USE_UP = """
def use_up():
    try:
        while True:
            os.dup(0)
    except OSError:
        pass

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
"""


def test_a_set_in_the_middle_of_which_a_handler_forks_is_sent_once(exchange: str) -> None:
    program = """
        pids = []

        def fork_without_descriptors(number, frame):
            if not pids:
                use_up()
                pids.append(os.fork())
                if pids[0]:
                    print("forked", flush=True)
                    # By now the child has sent what it is going to send.
                    assert os.waitpid(pids[0], 0)[1] == 0

        def work():
            assert "forked in the middle" in str(error)

        signal.signal(signal.SIGUSR1, fork_without_descriptors)
        client = Client(address, **options)
        error = None
        try:
            assert client.set("k", bytes(32 << 20), noreply=False) is True
        except Exception as raised:
            error = raised
        if pids == [0]:
            run()
        assert error is None, error
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        process = started(USE_UP + textwrap.dedent(program), f"{host}:{port}", "", exchange)
        assert process.stdout is not None
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            head = sock.recv(20)  # it has begun, and cannot end before somebody reads on
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == "forked\n"
            received = len(head)
            expected = len(b"set k 0 0 \r\n\r\n") + len(str(32 * MEBIBYTE)) + 32 * MEBIBYTE
            while received < expected:
                received += len(sock.recv(MEBIBYTE))
            sock.sendall(b"STORED\r\n")
            while data := sock.recv(MEBIBYTE):
                received += len(data)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert received == expected
