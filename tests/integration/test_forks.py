"""A client survives a fork: parent and child both go on, the child on connections of its own.  What
the parent dialled is closed in the child and never written to or read from there, whether the fork
came between two commands or in the middle of one, from Python or from C.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cymemcache import Client, HashClient, MemcacheUnexpectedCloseError
from cymemcache.testing import Answer, Close, Delay, EmbeddedServer, Fault
from cymemcache.testing.faults import Entry
from exchanges import MODULES, WrappedSocket, module_with, open_sockets
from wire import MEBIBYTE, PATIENCE, Server

SOCKET_CLASSES = {"plain": socket.socket, "any": WrappedSocket}


@pytest.fixture(params=sorted(MODULES))
def exchange(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def connect(exchange: str) -> Iterator[Callable[..., Client]]:
    """Makes clients over one of the two exchanges, closed with the test."""
    clients = []

    def make(address: Any, **options: Any) -> Client:
        options = {"timeout": PATIENCE, "socket_module": MODULES[exchange], **options}
        clients.append(Client(address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(recording=True, max_item_size=32 * MEBIBYTE) as server:
        yield server


class Child:
    """A forked process, and what it tells its parent."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self.pid = os.fork()
        os.close(self._reader if self.pid == 0 else self._writer)

    def __bool__(self) -> bool:
        """Whether this process is the child."""
        return self.pid == 0

    def run(self, function: Callable[[], Any]) -> None:
        """In the child: do that, tell the parent what came of it, and end."""
        try:
            try:
                told = ("returned", function())
            except BaseException as error:
                told = ("raised", f"{type(error).__name__}: {error}")
            data = pickle.dumps(told)
            while data:
                data = data[os.write(self._writer, data) :]
        finally:
            os._exit(0)

    def result(self) -> Any:
        """In the parent: what the child's function returned."""
        with open(self._reader, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0
        how, what = pickle.loads(data)
        assert how == "returned", what
        return what


def forked(function: Callable[[], Any]) -> Child:
    """Run `function` in a child process."""
    child = Child()
    if child:
        child.run(function)
    return child


def identity(client: Client) -> str:
    """The kernel's name of the client's idle socket."""
    return os.readlink(f"/proc/self/fd/{client.sock.fileno()}")


def mixed_commands(client: Client, name: str, rounds: int) -> int:
    """Commands on keys of one's own, each with the reply that only its sender can expect."""
    client.set(name, b"0", noreply=False)
    for number in range(1, rounds + 1):
        assert client.incr(name, 1) == number
        client.set(f"{name}-text", f"{name}-{number}".encode(), noreply=True)
        assert client.get_many([name, f"{name}-text"]) == {
            name: b"%d" % number,
            f"{name}-text": f"{name}-{number}".encode(),
        }
    return rounds


# -- between two commands --------------------------------------------------------------------------


def test_parent_and_child_both_go_on(server: Server, connect: Callable[..., Client]) -> None:
    client = connect(server.address)
    client.set("k", b"v", noreply=False)
    before = identity(client)

    def in_child() -> tuple[int, bool]:
        closed = before not in open_sockets().values()
        return mixed_commands(client, "child", 300), closed

    child = forked(in_child)
    assert mixed_commands(client, "parent", 300) == 300
    assert child.result() == (300, True)
    assert client.get("k") == b"v"
    assert identity(client) == before


def test_a_child_forks_again(server: Server, connect: Callable[..., Client]) -> None:
    client = connect(server.address)
    client.set("k", b"v", noreply=False)

    def in_child() -> list[int]:
        client.get("k")
        grandchild = forked(lambda: [mixed_commands(client, "grandchild", 50)])
        return [mixed_commands(client, "child", 50), *grandchild.result()]

    child = forked(in_child)
    assert mixed_commands(client, "parent", 50) == 50
    assert child.result() == [50, 50]


def test_processes_of_multiprocessing_share_a_client(
    server: Server, connect: Callable[..., Client]
) -> None:
    client = connect(server.address)
    client.set("k", b"v", noreply=True)
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def work(name: str) -> None:
        results.put(mixed_commands(client, name, 100))

    processes = [context.Process(target=work, args=(f"p{number}",)) for number in range(4)]
    for process in processes:
        process.start()
    assert mixed_commands(client, "parent", 100) == 100
    assert [results.get(timeout=PATIENCE) for _ in processes] == [100] * 4
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    results.close()
    results.join_thread()


def test_noreply_commands_pending_at_the_fork_stay_the_parents(
    embedded: EmbeddedServer, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(embedded.address)
    for number in range(3):
        client.set("k", b"%d" % number, noreply=True)

    def in_child() -> tuple[Any, int, int]:
        client.set("child", b"c", noreply=True)
        return client.get("child"), client.noreply_lost, client.noreply_errors

    child = forked(in_child)
    assert client.get("k") == b"2"
    assert child.result() == (b"c", 0, 0)
    assert client.noreply_lost == client.noreply_errors == 0
    assert not caplog.records
    by_connection: dict[int, list[bytes]] = {}
    for number, line in embedded.requests:
        by_connection.setdefault(number, []).append(line)
    assert sorted(by_connection.values()) == [
        [b"set child 0 0 1 noreply", b"version", b"get child"],
        [b"version"] + [b"set k 0 0 1 noreply"] * 3 + [b"version", b"get k"],
    ]


def test_a_child_holds_no_socket_of_the_parents_not_even_one_that_a_thread_was_using(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    embedded.inject(Delay(0.3), key="slow")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(client.get("slow", "miss")))
    ours = set(open_sockets().values())
    thread.start()
    while (0, b"get slow") not in [(0, line) for _, line in embedded.requests]:
        time.sleep(0.001)
    # The client's end and the server's: both are in this process.
    (in_use,) = {
        name
        for number, name in open_sockets().items()
        if name not in ours and _peer(number) == embedded.address
    }
    child = forked(lambda: (in_use in open_sockets().values(), client.get("other", "miss")))
    assert child.result() == (False, "miss")
    thread.join(PATIENCE)
    assert found == ["miss"]


def test_a_child_holds_no_socket_that_passes_to_tls_while_it_is_forked(
    embedded: EmbeddedServer,
) -> None:
    passing: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    class Context:
        def wrap_socket(self, sock: Any, **options: Any) -> Any:
            own = socket.socket(fileno=sock.detach())
            passing.append(open_sockets()[own.fileno()])
            entered.set()
            go_on.wait(PATIENCE)
            return own

    found: list[Any] = []
    with Client(embedded.address, tls_context=Context(), timeout=PATIENCE) as client:
        thread = threading.Thread(target=lambda: found.append(client.get("k", "miss")))
        thread.start()
        assert entered.wait(PATIENCE)
        child = forked(lambda: passing[0] in open_sockets().values())
        assert child.result() is False
        go_on.set()
        thread.join(PATIENCE)
    assert found == ["miss"]


def test_a_fork_while_a_socket_is_made_leaves_it_to_the_parent(embedded: EmbeddedServer) -> None:
    children: list[int] = []

    class Forking(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if not children:
                children.append(os.fork())

    client = Client(embedded.address, socket_module=module_with(Forking), timeout=PATIENCE)
    found: Any = None
    status = 1
    try:
        found = client.get("k", "miss")
    except MemcacheUnexpectedCloseError:
        if children == [0] and client.get("k", "miss") == "miss":
            status = 0
    finally:
        if children == [0]:
            os._exit(status)
    assert found == "miss"
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    client.close()


def _peer(number: int) -> Any:
    with socket.socket(fileno=os.dup(number)) as sock:
        return sock.getpeername()


def test_a_fork_between_dialling_again_and_the_command(
    embedded: EmbeddedServer, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(embedded.address)
    client.set("k", b"v", noreply=False)
    embedded.inject(Close(), verb="get")
    children: list[Child] = []
    renew = client._pool.renew

    def renew_and_fork(ended: Any) -> Any:
        connection = renew(ended)
        children.append(Child())
        return connection

    monkeypatch.setattr(client._pool, "renew", renew_and_fork)
    found = client.get("k")
    if children[0]:
        children[0].run(lambda: found)
    assert (found, children[0].result()) == (b"v", b"v")


def test_a_fork_between_dialling_and_the_command_says_nothing_about_a_node(
    embedded: EmbeddedServer, exchange: str
) -> None:
    children: list[Child] = []
    with HashClient(
        [embedded.address], socket_module=MODULES[exchange], timeout=PATIENCE, retry_attempts=0
    ) as cluster:
        pool = next(iter(cluster.clients.values()))._pool
        admitted = pool.admitted

        def admitted_and_forked(*arguments: Any) -> Any:
            connection = admitted(*arguments)
            if not children:
                children.append(Child())
            return connection

        pool.admitted = admitted_and_forked
        found: Any = None
        try:
            found = cluster.get_many(["k"])
        except MemcacheUnexpectedCloseError as error:
            found = str(error)
        if children[0]:
            children[0].run(lambda: (found, cluster._members()[0][2].is_up))
        text, is_up = children[0].result()
        assert "forked in the middle of this command" in text
        assert is_up
        assert found == {}


# -- in the middle of one --------------------------------------------------------------------------


class Held(Fault):
    """The server stands still at the command, and serves nobody, until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()

    def entries(self, reply: bytes) -> list[Entry]:
        self.reached.set()
        assert self.released.wait(60)
        return [reply]


def interrupted_by_a_fork(
    command: Callable[[], Any], held: Held, in_child: Callable[[], Any], after: float = 0
) -> tuple[Any, Child]:
    """Run `command`, and fork in a signal handler `after` seconds at which the server is held.

    Gives what the command came to in the parent; the child goes on with `in_child`, and tells both
    the error that the command ended with there and what that returned.
    """
    has_begun = threading.Event()
    is_forking: list[bool] = []  # a second signal may come before the fork has been made
    children: list[Child] = []

    def fork(number: int, frame: object) -> None:
        if not is_forking:
            is_forking.append(True)
            children.append(Child())
            # Not in the child, where a thread of the parent may have the lock of the event.
            if not children[0]:
                held.released.set()

    def ring() -> None:
        assert has_begun.wait(60)
        assert held.reached.wait(60)
        time.sleep(after)
        # More than once: one that comes just before a system call does not end it.
        while not held.released.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            held.released.wait(0.1)

    previous = signal.signal(signal.SIGUSR1, fork)
    main = threading.get_ident()
    ringer = threading.Thread(target=ring)
    ringer.start()
    error: BaseException | None = None
    result = None
    try:
        has_begun.set()
        result = command()
    except BaseException as raised:
        error = raised
    if children and children[0]:

        def tell() -> tuple[str, str, Any]:
            return type(error).__name__, str(error), in_child()

        children[0].run(tell)
    ringer.join()
    signal.signal(signal.SIGUSR1, previous)
    assert error is None, error
    return result, children[0]


def test_a_fork_while_a_reply_is_awaited_leaves_the_reply_to_the_parent(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    client.set("k", b"parent's", noreply=False)
    client.set("other", b"both's", noreply=False)
    # Several times: which process a reply goes to where both read may be chance.
    for _ in range(5):
        held = Held()
        embedded.inject(held, key="k")
        result, child = interrupted_by_a_fork(
            lambda: client.get("k"), held, lambda: client.get("other")
        )
        assert result == b"parent's"
        kind, text, other = child.result()
        assert kind == MemcacheUnexpectedCloseError.__name__
        assert "forked in the middle of this command" in text
        assert other == b"both's"
    assert client.get("other") == b"both's"


def test_a_fork_while_a_request_is_sent_leaves_the_rest_to_the_parent(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    value = bytes(range(256)) * 65_536  # more than the socket buffers of both sides take
    for noreply in (False, True):
        client.set("k", b"old", noreply=False)
        held = Held()
        embedded.inject(held, verb="delete")
        client.delete("absent", noreply=True)
        result, child = interrupted_by_a_fork(
            lambda noreply=noreply: client.set("k", value, noreply=noreply),
            held,
            lambda: client.get("absent", "miss"),
            after=0.5,  # by when the set is stuck
        )
        assert result is True
        kind, text, miss = child.result()
        assert kind == MemcacheUnexpectedCloseError.__name__
        assert "forked in the middle of this command" in text
        assert miss == "miss"
        assert client.get("k") == value
    assert client.noreply_lost == client.noreply_errors == 0


def test_a_fork_in_the_middle_of_a_batch(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    client = connect(embedded.address)
    items = {f"k{number}": b"%d" % number for number in range(5000)}
    for skip in (0, 2500, 4999):
        held = Held()
        embedded.inject(held, verb="set", skip=skip)
        result, child = interrupted_by_a_fork(
            lambda: client.set_many(items, noreply=False), held, lambda: client.get("no", "miss")
        )
        assert result == []
        kind, _, found = child.result()
        assert (kind, found) == (MemcacheUnexpectedCloseError.__name__, "miss")
        assert client.get_many(items) == items


def test_a_fork_while_the_errors_of_noreply_commands_are_logged(
    embedded: EmbeddedServer, connect: Callable[..., Client]
) -> None:
    children: list[Child] = []

    def fork(record: logging.LogRecord) -> bool:
        children.append(Child())
        return True

    client = connect(embedded.address)
    client.set("k", b"parent's", noreply=False)
    embedded.inject(Answer(b"SERVER_ERROR out of memory\r\n"), verb="set")
    embedded.inject(Delay(0.1), verb="get")
    logger = logging.getLogger("cymemcache")
    logger.addFilter(fork)
    result, error = None, None
    try:
        client.set("x", b"y", noreply=True)
        result = client.get("k")
    except BaseException as raised:
        error = raised
    logger.removeFilter(fork)
    (child,) = children
    if child:
        child.run(lambda: (str(error), client.get("k")))
    assert error is None
    assert result == b"parent's"
    text, found = child.result()
    assert "forked in the middle of this command" in text
    assert found == b"parent's"


def test_a_connection_that_is_being_dialled_at_the_fork_is_the_parents(
    embedded: EmbeddedServer, exchange: str
) -> None:
    children: list[Child] = []

    class ForkingSocket(SOCKET_CLASSES[exchange]):  # type: ignore[misc]
        def connect(self, address: Any) -> None:
            super().connect(address)
            if not children:
                children.append(Child())

    module = module_with(ForkingSocket)
    with Client(embedded.address, timeout=PATIENCE, socket_module=module) as client:
        result, error = None, None
        try:
            result = client.incr("n", 1)
        except BaseException as raised:
            error = raised
        (child,) = children
        if child:
            child.run(lambda: (type(error).__name__, client.get("absent", "miss")))
        assert error is None
        assert result is None
        assert child.result() == (MemcacheUnexpectedCloseError.__name__, "miss")
        assert client.get("absent", "miss") == "miss"
    by_connection = [line for number, line in embedded.requests if line.startswith(b"incr")]
    assert by_connection == [b"incr n 1"]
