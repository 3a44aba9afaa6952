"""The embedded server leaves nothing behind: thread, descriptor, socket file, or a child's copy.

These tests look into /proc, fork and use UNIX sockets: they are not for every platform.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cymemcache import Client
from cymemcache.testing import Delay, EmbeddedServer, endpoint, loop, socketfile
from cymemcache.testing import server as server_module
from interrupting import Interrupted, interrupted_at
from wire import PATIENCE, wait_until


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


def descriptors() -> set[str]:
    """What this process's descriptors lead to."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(name + os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass  # the one that the directory was read through
    return found


def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "memcached.sock"
    with EmbeddedServer(unix_path=path) as server:
        assert server.address == str(path)
        assert stat.S_ISSOCK(path.stat().st_mode)
        with Client(server.address) as client:
            client.set("k", "v", noreply=False)
            assert client.get("k") == b"v"
    assert not path.exists()


def test_a_socket_file_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "memcached.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with EmbeddedServer(unix_path=path) as server, Client(server.address) as client:
        assert client.version().endswith(b"embedded")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("text")
    with pytest.raises(OSError, match="in use"):
        EmbeddedServer(unix_path=path).start()
    assert path.read_text() == "text"


def test_a_unix_socket_that_a_running_server_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memcached.sock"
    with EmbeddedServer(unix_path=path) as server, Client(server.address) as client:
        client.set("k", "v", noreply=False)
        with pytest.raises(OSError, match="running server"):
            EmbeddedServer(unix_path=path).start()
        client.close()
        assert client.get("k") == b"v"


def test_the_socket_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "memcached.sock"
    server = EmbeddedServer(unix_path=path).start()
    os.unlink(path)
    with EmbeddedServer(unix_path=path) as other:
        server.stop()
        with Client(other.address) as client:
            assert client.version()
    assert not path.exists()


def test_a_forked_child_leaves_the_socket_file_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "memcached.sock"
    with EmbeddedServer(unix_path=path) as server:
        pid = os.fork()
        if not pid:
            server.stop()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        with Client(server.address) as client:
            assert client.version()


# What is interrupted before anything refers to it, Python closes with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("module", [server_module, loop, endpoint, socketfile])
def test_interrupted_at_any_line_of_its_start_it_leaves_nothing_behind(
    module: Any, tmp_path: Path
) -> None:
    # What a tracer raises in an except clause stays the thread's handled exception.
    with ThreadPoolExecutor(1) as thread:
        interruptions = thread.submit(interrupt_each_line, module, tmp_path / "s").result()
    assert interruptions > 5


def interrupt_each_line(module: Any, path: Path) -> int:
    threads, before = set(threading.enumerate()), descriptors()
    interruptions = 0
    while True:
        server = EmbeddedServer(unix_path=path)
        try:
            with interrupted_at(interruptions + 1, module.__file__):
                server.start()
        except Interrupted:
            pass
        else:
            break
        wait_until(lambda: set(threading.enumerate()) == threads)
        assert descriptors() == before
        assert not path.exists()
        assert not server.running
        interruptions += 1
    server.stop()
    return interruptions


@pytest.mark.parametrize("unix", [False, True])
def test_nothing_is_left_behind(unix: bool, tmp_path: Path) -> None:
    before = descriptors()
    threads = set(threading.enumerate())
    for _ in range(100):
        path = tmp_path / "s" if unix else None
        with EmbeddedServer(unix_path=path) as server:
            open_client = Client(server.address)
            open_client.set("k", "v")
            idle = Client(server.address)
            idle.version()
            server.inject(Delay(1000))
        open_client.close()
        idle.close()
    assert set(threading.enumerate()) == threads
    assert descriptors() == before
    assert not list(tmp_path.iterdir())


def test_a_start_that_fails_leaves_nothing_behind(server: EmbeddedServer) -> None:
    before = descriptors()
    for _ in range(10):
        with pytest.raises(OSError, match="in use"):
            EmbeddedServer(*server.address).start()
    assert descriptors() == before


def test_a_forked_child_has_nothing_of_it() -> None:
    before = descriptors()
    with EmbeddedServer() as server:
        sock = socket.create_connection(server.address, timeout=PATIENCE)
        with sock:
            sock.sendall(b"mn\r\n")
            assert sock.recv(100) == b"MN\r\n"
            pid = os.fork()
            if not pid:
                sock.close()
                # The child closes what other tests' clients have left open.
                os._exit(0 if descriptors() <= before and not server.running else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            sock.sendall(b"mn\r\n")
            assert sock.recv(100) == b"MN\r\n"
