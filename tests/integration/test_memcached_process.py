"""The real memcached in the hands of tests: it ends when it is to, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from cymemcache import Client
from cymemcache.testing import EmbeddedServer, MemcachedProcess
from wire import PATIENCE, wait_until


@pytest.mark.parametrize("argument", ["-d", "-vd", "-vvd", "-kMd", "--daemon", "--daem", "--da"])
def test_a_daemon_that_could_not_be_stopped_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="daemon"):
        MemcachedProcess("-m", "64", argument)


@pytest.mark.parametrize("arguments", [["-m64"], ["-o", "slab_reassign"], ["-vv", "--disable-cas"]])
def test_other_arguments_are_memcacheds(arguments: list[str]) -> None:
    with MemcachedProcess(*arguments) as process, Client(process.address) as client:
        assert client.version()


def test_one_that_has_died_has_no_pid_and_can_be_started_again() -> None:
    with MemcachedProcess() as process:
        address = process.address
        assert process.running
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.running)
        with pytest.raises(RuntimeError, match="does not run"):
            _ = process.pid
        process.start()
        with Client(process.address, timeout=PATIENCE) as client:
            assert client.version()
        assert process.address == address


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_its_socket_file_ends_with_it(tmp_path: Path, how: str) -> None:
    path = tmp_path / "socket"
    with MemcachedProcess(unix_path=path) as process:
        assert stat.S_ISSOCK(path.stat().st_mode)
        if how == "killed":
            os.kill(process.pid, signal.SIGKILL)
            wait_until(lambda: not process.running)
    assert not path.exists()


def test_the_socket_of_a_running_server_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with EmbeddedServer(unix_path=path) as server:
        with pytest.raises(OSError, match="running server"):
            MemcachedProcess(unix_path=path).start()
        with Client(server.address) as client:
            assert client.version()


def test_a_socket_file_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with MemcachedProcess(unix_path=path) as process, Client(process.address) as client:
        assert client.version()
