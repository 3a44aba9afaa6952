"""Memory: nothing grows however many commands there are, and a value costs what has arrived of it,
not what was promised.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cymemcache import Client, MemcacheUnexpectedCloseError, MemcacheUnknownError
from faults.memory import GROWTH_MOST
from wire import MEBIBYTE, PATIENCE


def test_nothing_grows() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "faults.memory", "20000"],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode in (0, 1), run.stderr
    report = json.loads(run.stdout)
    assert report["commands"] >= 20000
    assert report["errors"] > 1000
    for name, most in GROWTH_MOST.items():
        assert report[name] <= most, name


@contextmanager
def promising(size: int, arrived: int) -> Iterator[tuple[str, int]]:
    """A server that announces a value of `size` bytes, sends `arrived` of them and closes."""
    chunk = b"#" * 4096

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            sock.recv(4096)
            try:
                sock.sendall(b"VALUE k 0 %d\r\n" % size)
                for _ in range(arrived // len(chunk)):
                    sock.sendall(chunk)
            except OSError:
                pass  # the client has had enough

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("size", "arrived", "error"),
    [
        (4 << 30, 8 * MEBIBYTE, MemcacheUnknownError),
        (1 << 30, 8 * MEBIBYTE, MemcacheUnexpectedCloseError),
        (1 << 30, MEBIBYTE // 2, MemcacheUnexpectedCloseError),
    ],
    ids=["4 GB", "1 GB, 8 MB came", "1 GB, half a MB came"],
)
def test_a_value_costs_what_has_arrived_of_it(
    connect: Callable[..., Client], size: int, arrived: int, error: type[Exception]
) -> None:
    with promising(size, arrived) as address:
        client = connect(address)
        tracemalloc.start()
        try:
            with pytest.raises(error):
                client.get("k")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    if error is MemcacheUnknownError:  # refused, before any of it is kept
        assert peak < MEBIBYTE
    else:  # it doubles, and the pure twin copies to do that
        assert peak < 5 * max(arrived, MEBIBYTE)
