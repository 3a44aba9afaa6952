"""The embedded server leaves nothing behind: thread, descriptor, socket file, or a child's copy.

These tests look into /proc, fork and use UNIX sockets: they are not for every platform.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cymemcache import Client
from cymemcache.testing import Delay, EmbeddedServer
from cymemcache.testing.process import accepts
from wire import PATIENCE


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


def test_a_forked_child_does_not_keep_its_connections_open(server: EmbeddedServer) -> None:
    with socket.create_connection(server.address, timeout=PATIENCE) as sock:
        sock.sendall(b"mn\r\n")
        assert sock.recv(100) == b"MN\r\n"
        pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        try:
            server.stop()
            assert sock.recv(100) == b""
            deadline = time.monotonic() + PATIENCE
            while accepts(server.address):  # until the child has closed what it was born with
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
