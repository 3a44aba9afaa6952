"""Real servers for the integration tests; a server that is missing is an error, never a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import memcached_arguments
from cymemcache import Client, HashClient, PooledClient
from cymemcache.testing import EmbeddedServer, MemcachedProcess
from cymemcache.testing.process import accepts, free_port
from exchanges import MODULES
from wire import PATIENCE, Server

KINDS = ["memcached", "embedded"]


@pytest.fixture(scope="session")
def running_memcached() -> Iterator[Server]:
    """A memcached without options that runs for the whole session."""
    with MemcachedProcess(program=_need("memcached")) as process:
        yield Server("memcached", process.address)


@pytest.fixture(scope="session")
def memcached_version(running_memcached: Server) -> str:
    """The version of the real memcached, such as "1.6.18"."""
    return running_memcached.raw(b"version\r\n").split()[1].decode()


@pytest.fixture(scope="session")
def running_embedded(memcached_version: str) -> Iterator[Server]:
    """An embedded server that plays the real one's version and runs for the whole session."""
    with EmbeddedServer(version=memcached_version) as server:
        yield Server("embedded", server.address)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    """The real memcached and the embedded server in turn, empty."""
    found: Server = request.getfixturevalue(f"running_{request.param}")
    found.flush()
    return found


@pytest.fixture
def both(running_memcached: Server, running_embedded: Server) -> tuple[Server, Server]:
    """The real memcached and the embedded server side by side, empty."""
    running_memcached.flush()
    running_embedded.flush()
    return running_memcached, running_embedded


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    """An embedded server of a test's own, which records what it is asked."""
    with EmbeddedServer(recording=True) as server:
        yield server


@pytest.fixture
def patience() -> float:
    """The timeout of clients in tests that are not about timeouts."""
    return PATIENCE


@pytest.fixture(params=[*sorted(MODULES), "pooled"])
def connect(request: pytest.FixtureRequest, patience: float) -> Iterator[Callable[..., Client]]:
    """Makes clients over one of the two exchanges, or with limits, closed with the test."""
    clients: list[Client] = []

    def make(address: Any, **options: Any) -> Client:
        if request.param == "pooled":
            options = {"timeout": patience, "max_pool_size": 4, **options}
            clients.append(PooledClient(address, **options))
        else:
            options = {"timeout": patience, "socket_module": MODULES[request.param], **options}
            clients.append(Client(address, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def memcached_factory() -> Iterator[Callable[..., MemcachedProcess]]:
    """Starts memcacheds of a test's own, which end with it.

    ``memcached_factory(*arguments, port=None, unix=None, tls=None)``: `arguments` as on memcached's
    command line, `tls` is the files of a certificate (with its chain) and of its key.
    """
    program = _need("memcached")
    with ExitStack() as stack:

        def start(
            *arguments: str,
            port: int | None = None,
            unix: Path | None = None,
            tls: tuple[Path, Path] | None = None,
        ) -> MemcachedProcess:
            if tls is not None:
                arguments += memcached_arguments(*tls)
            process = MemcachedProcess(*arguments, port=port, unix_path=unix, program=program)
            return stack.enter_context(process)

        yield start


@pytest.fixture
def nutcracker_factory(tmp_path: Path) -> Iterator[Callable[..., tuple[str, int]]]:
    """Starts twemproxies, which end with the test.

    ``nutcracker_factory(addresses, **options)`` gives the address of one in front of the servers at
    `addresses`; `options` go into its configuration.
    """
    program = _need("nutcracker")
    with ExitStack() as stack:

        def start(addresses: Sequence[tuple[str, int]], **options: Any) -> tuple[str, int]:
            address = ("127.0.0.1", free_port())
            settings = {
                "listen": f"{address[0]}:{address[1]}",
                "hash": "md5",  # others give similar keys to one server
                "distribution": "ketama",
                **options,
            }
            lines = [f"  {name}: {value}\n" for name, value in settings.items()]
            servers = [f"   - {host}:{port}:1\n" for host, port in addresses]
            directory = tmp_path / f"nutcracker-{address[1]}"
            directory.mkdir()
            configuration = directory / "nutcracker.yml"
            configuration.write_text("".join(["pool:\n", *lines, "  servers:\n", *servers]))
            command = [program, "-c", configuration, "-o", directory / "log"]
            command += ["-p", directory / "pid", "-a", "127.0.0.1", "-s", str(free_port())]
            process = stack.enter_context(_running(command))
            deadline = time.monotonic() + PATIENCE
            while not accepts(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"nutcracker does not start: {(directory / 'log').read_text()}")
                time.sleep(0.01)
            return address

        yield start


@contextmanager
def _running(command: list[Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _need(program: str) -> str:
    """The path of `program`; the test fails where it is not installed."""
    # Debian has nutcracker where a user's PATH does not look.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        pytest.fail(f"{program} is not installed (Debian, Ubuntu: apt-get install {program})")
    return found


@pytest.fixture(scope="session")
def running_memcacheds() -> Iterator[list[Server]]:
    """Four memcacheds that run for the whole session."""
    with ExitStack() as stack:
        program = _need("memcached")
        processes = [stack.enter_context(MemcachedProcess(program=program)) for _ in range(4)]
        yield [Server("memcached", process.address) for process in processes]


@pytest.fixture
def nodes(running_memcacheds: list[Server]) -> list[tuple[str, int]]:
    """The addresses of four memcacheds, which are empty."""
    for server in running_memcacheds:
        server.flush()
    return [server.address for server in running_memcacheds]


@pytest.fixture(params=sorted(MODULES))
def connect_all(request: pytest.FixtureRequest, patience: float) -> Iterator[Callable[..., Any]]:
    """Makes clients of many servers over one of the two exchanges, closed with the test."""
    clients = []

    def make(addresses: Any, kind: Any = HashClient, **options: Any) -> Any:
        options = {
            "timeout": patience,
            "connect_timeout": patience,
            "socket_module": MODULES[request.param],
            **options,
        }
        clients.append(kind(addresses, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
