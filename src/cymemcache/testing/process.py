"""The real memcached as a child process, on a free loopback port, for tests and demos.

It must never outlive its `MemcachedProcess` where that is stopped, and never be found by its name:
only the process that was started here is signalled.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Self

from .socketfile import SocketFile

_READY_PATIENCE = 10.0  # seconds
_POLL_INTERVAL = 0.01  # seconds
_STOP_PATIENCE = 5.0  # seconds
_LETTERS_ALONE = "ACFLMSVWXZhikrv"  # memcached's options that take no value


class MemcachedProcess:
    """A memcached of its own, found on PATH (or at `program`).

        with MemcachedProcess("-m", "100") as memcached:
            client = Client(memcached.address)

    `arguments` go to memcached as they are; ``-d`` is a `ValueError`, since a daemon is a process
    of its own that could not be stopped.  It listens on `host` and `port` (None: a free one), or on
    the UNIX socket `unix_path`, whose file is there only while it runs, and is started as root
    where this process is root's.
    """

    def __init__(
        self,
        *arguments: str,
        host: str = "127.0.0.1",
        port: int | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        program: str | None = None,
    ) -> None:
        if any(map(_makes_a_daemon, arguments)):
            raise ValueError("-d: a memcached that makes itself a daemon could not be stopped")
        self._arguments = arguments
        self._host = host
        self._port = port
        self._path = None if unix_path is None else os.fspath(unix_path)
        self._file = None if self._path is None else SocketFile(self._path)
        self._program = program
        self._address: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def find() -> str | None:
        """The path of the memcached program, None where there is none on PATH."""
        return shutil.which("memcached")

    def start(self) -> Self:
        """Start it and wait until it accepts connections; returns the object itself.

        Raises `FileNotFoundError` where there is no memcached, `RuntimeError` with what it said
        where it does not start, `OSError` where a running server has the UNIX socket.
        """
        if self.running:
            raise RuntimeError("this memcached has been started already")
        self.stop()  # one that has ended by itself may have left its socket
        program = self._program or self.find()
        if program is None:
            raise FileNotFoundError(
                "memcached is not installed (Debian, Ubuntu: apt-get install memcached)"
            )
        if self._file is not None:
            self._file.claim()
        with tempfile.TemporaryDirectory(prefix="cymemcache-") as directory:
            self._launch(program, os.path.join(directory, "ports"))
        return self

    def stop(self) -> None:
        """End it and wait until it has ended; nothing happens where it does not run."""
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._process = None
        if self._file is not None:  # memcached leaves it
            self._file.remove()

    @property
    def running(self) -> bool:
        """Whether it has been started, and has not ended since, by itself or by `stop`."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def address(self) -> Any:
        """Where it listens: ``(host, port)``, or the path of the UNIX socket.

        Raises `RuntimeError` where it was never started.
        """
        if self._address is None:
            raise RuntimeError("the memcached has no address before it is started")
        return self._address

    @property
    def pid(self) -> int:
        """The process id; raises `RuntimeError` where it does not run, or has ended by itself."""
        if self._process is None or not self.running:
            raise RuntimeError("the memcached does not run")
        return self._process.pid

    def _launch(self, program: str, ports: str) -> None:
        command = [program, *self._arguments]
        if self._path is not None:
            command += ["-s", self._path]
        else:
            # It is memcached that chooses the port: one that we had found free might not stay so.
            command += ["-l", self._host, "-p", str(self._port or -1)]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command += ["-u", "root"]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "MEMCACHED_PORT_FILENAME": ports},
            )
            self._process = process
            try:
                self._wait_until_ready(process, ports)
            except RuntimeError as error:
                self.stop()
                said.seek(0)
                text = said.read().decode("utf-8", "replace").strip()
                raise RuntimeError(f"{' '.join(command)}: {error}: {text}") from None
            except BaseException:
                self.stop()
                raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes], ports: str) -> None:
        deadline = time.monotonic() + _READY_PATIENCE
        while True:
            if process.poll() is not None:
                raise RuntimeError("it has ended")
            if self._file is not None:
                if accepts(self._file.path):
                    self._file.keep()
                    self._address = self._file.path
                    return
            elif os.path.exists(ports):
                # Written once it listens: a line like "TCP INET: 40381" for each socket.
                with open(ports) as file:
                    self._port = int(file.readline().rpartition(":")[2])
                self._address = (self._host, self._port)  # a second start gets the same port
                return
            if time.monotonic() > deadline:
                raise RuntimeError("it accepts no connections")
            time.sleep(_POLL_INTERVAL)


def _makes_a_daemon(argument: str) -> bool:
    """Whether memcached goes into the background for `argument`, as getopt reads it."""
    if argument.startswith("--"):
        return len(argument) > 3 and "--daemon".startswith(argument)
    alone = argument[1:].lstrip(_LETTERS_ALONE)
    return argument.startswith("-") and alone.startswith("d")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that nobody listens on at the moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def accepts(address: Any) -> bool:
    """Whether somebody accepts connections at ``(host, port)`` or on a UNIX socket."""
    try:
        if isinstance(address, str):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(address)
        else:
            socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True
