"""Sending is bounded, and in step with reading, where a system does not mind MSG_DONTWAIT, as macOS
does not: a preloaded library takes the flag out of every call.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cymemcache.testing import MemcachedProcess
from wire import PATIENCE

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/socket.h>
ssize_t send(int fd, const void *data, size_t size, int flags) {
    ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");
    return real(fd, data, size, flags & ~MSG_DONTWAIT);
}
ssize_t sendto(int fd, const void *data, size_t size, int flags,
               const struct sockaddr *to, socklen_t length) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
        dlsym(RTLD_NEXT, "sendto");
    return real(fd, data, size, flags & ~MSG_DONTWAIT, to, length);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    ssize_t (*real)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
    return real(fd, message, flags & ~MSG_DONTWAIT);
}
"""

PROGRAM = """
import sys
from cymemcache import Client, HashClient

stuck, other = int(sys.argv[1]), int(sys.argv[2])
addresses = [("127.0.0.1", stuck), ("127.0.0.1", other)]
items = {f"k{number}": b"x" * 900_000 for number in range(40)}
small = dict.fromkeys([f"s{number}" for number in range(20000)], b"v")
with Client(addresses[1]) as client:  # no timeout: nothing but reading ends this
    keys = [f"{number:0200}" for number in range(500)]
    client.set_many(dict.fromkeys(keys, b"v" * 200), noreply=False)
    print(len(client.get_many(keys * 120)), flush=True)
with Client(addresses[0], timeout=0.3) as client, HashClient(addresses, timeout=0.3) as cluster:
    client.version(), cluster.version()
    print("ready", flush=True)
    sys.stdin.readline()
    for send in (
        lambda: client.set("k", b"x" * 20_000_000, noreply=False),
        lambda: client.set_many(items, noreply=False),
        lambda: client.set_many(items, noreply=True),
        lambda: cluster.set_many(items, noreply=False),
        lambda: [client.set_many(small, noreply=True) for _ in range(40)],
    ):
        try:
            send()
        except OSError as error:
            print(type(error).__name__)
    with Client(addresses[1]) as look:
        print(sum(key in look.get_many(items) for key in items) > 0)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shim")
    source, library = directory / "shim.c", directory / "shim.so"
    source.write_text(SHIM)
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "there is no C compiler"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@contextmanager
def stopped(process: MemcachedProcess) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_batches_are_read_while_they_are_sent_and_a_stopped_server_holds_none(
    memcached_factory: Callable[..., MemcachedProcess], shim: Path
) -> None:
    stuck, other = memcached_factory(), memcached_factory()
    arguments = [str(stuck.address[1]), str(other.address[1])]
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == ["500\n", "ready\n"]
        with stopped(stuck):
            output, _ = program.communicate("go\n", timeout=PATIENCE)
    finally:
        program.kill()
        program.wait()
    assert output.splitlines() == [*["TimeoutError"] * 5, "True"]
