"""KetamaHash places keys where libmemcached does: a small program around libmemcached itself is
asked about each of thousands of keys.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cymemcache import Client, KetamaHash
from cymemcache.testing import MemcachedProcess

Server = tuple[str, int, int]  # host (or the path of a UNIX socket), port, weight

# usage: libmemcached ketama|weighted place|store [HOST PORT WEIGHT]...
#
# Reads keys from stdin, each a line of hexadecimal digits, and prints for each the index of the
# server that it belongs to; with `store` it also stores the key there as its own value.  A HOST
# that starts with a slash is a UNIX socket.
PROGRAM = r"""
#include <libmemcached/memcached.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(memcached_return_t result, const char *what) {
    if (result != MEMCACHED_SUCCESS) {
        fprintf(stderr, "%s: %s\n", what, memcached_strerror(NULL, result));
        exit(1);
    }
}

int main(int argc, char **argv) {
    char line[4096], key[2048];
    memcached_st *client = memcached_create(NULL);
    int weighted = !strcmp(argv[1], "weighted");
    int store = !strcmp(argv[2], "store");
    check(memcached_behavior_set(client,
                                 weighted ? MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED
                                          : MEMCACHED_BEHAVIOR_KETAMA,
                                 1),
          argv[1]);
    for (int i = 3; i + 2 < argc; i += 3) {
        uint32_t weight = (uint32_t)strtoul(argv[i + 2], NULL, 10);
        check(argv[i][0] == '/'
                  ? memcached_server_add_unix_socket_with_weight(client, argv[i], weight)
                  : memcached_server_add_with_weight(client, argv[i],
                                                     (in_port_t)atoi(argv[i + 1]), weight),
              argv[i]);
    }
    while (fgets(line, sizeof line, stdin)) {
        size_t size = strcspn(line, "\n") / 2;
        for (size_t i = 0; i < size; i++) {
            unsigned byte;
            sscanf(line + 2 * i, "%2x", &byte);
            key[i] = (char)byte;
        }
        printf("%u\n", memcached_generate_hash(client, key, size));
        if (store)
            check(memcached_set(client, key, size, key, size, 0, 0), "set");
    }
    memcached_free(client);
    return 0;
}
"""

# Keys of all kinds; bytes above 127 count as negative numbers to libmemcached.
FORMS: list[Callable[[int], str | bytes]] = [
    lambda i: f"user:{i}:profile",
    lambda i: f"session/{i:x}".encode(),
    lambda i: f"größe-{i}",
    lambda i: f"ключ:{i}",
    lambda i: f"😀{i}",
    lambda i: str(i) * 40,
    lambda i: bytes([128 + i % 128, 1 + i % 32, i % 251]),
]
KEYS = ["", "a", "x" * 250, *(FORMS[i % len(FORMS)](i) for i in range(10_000))]

BOTH = pytest.mark.parametrize("behaviour", ["ketama", "weighted"])


@pytest.fixture(scope="session")
def libmemcached(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[int]]:
    """``libmemcached(behaviour, servers, keys, store=False)``: the index of each key's server."""
    program = tmp_path_factory.mktemp("libmemcached") / "libmemcached"
    command = [os.environ.get("CC", "cc"), "-o", str(program), "-x", "c", "-", "-lmemcached"]
    built = subprocess.run(command, input=PROGRAM, capture_output=True, text=True)
    if built.returncode:
        pytest.fail(f"needs libmemcached (Debian: libmemcached-dev); {command}: {built.stderr}")

    def ask(
        behaviour: str,
        servers: Sequence[Server],
        keys: Sequence[str | bytes],
        store: bool = False,
    ) -> list[int]:
        arguments = [str(part) for server in servers for part in server]
        done = subprocess.run(
            [program, behaviour, "store" if store else "place", *arguments],
            input="".join(f"{wire(key).hex()}\n" for key in keys),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()]

    return ask


def wire(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def node(server: Server) -> str:
    """The server as a cluster of ours names it."""
    host, port, _ = server
    return host if host.startswith("/") else f"{host}:{port}"


def make_servers(count: int, weight: Callable[[int], int] = lambda i: 1) -> list[Server]:
    """Servers of all kinds; the port 11211 is left out of a point's name."""
    kinds: list[Callable[[int], tuple[str, int]]] = [
        lambda i: (f"10.0.0.{i}", 11211),
        lambda i: (f"cache-{i}.Example.NET", 11211),
        lambda i: ("127.0.0.1", 20000 + i),
        lambda i: (f"/run/memcached/{i}.sock", 0),
        lambda i: (f"fd00::{i:x}", 11211 + i % 2),
    ]
    return [(*kinds[i % len(kinds)](i), weight(i)) for i in range(count)]


def hasher_for(behaviour: str, servers: Sequence[Server]) -> KetamaHash:
    weights = {node(server): server[2] for server in servers}
    return KetamaHash([node(server) for server in servers], behaviour == "weighted", weights)


def compare(
    libmemcached: Callable[..., list[int]],
    behaviour: str,
    servers: Sequence[Server],
    keys: Sequence[str | bytes],
) -> None:
    expected = [node(servers[index]) for index in libmemcached(behaviour, servers, keys)]
    hasher = hasher_for(behaviour, servers)
    assert len(expected) == len(keys)
    assert [hasher.get_node(key) for key in keys] == expected


@BOTH
@pytest.mark.parametrize("count", range(1, 65))
def test_one_to_sixty_four_servers(
    libmemcached: Callable[..., list[int]], behaviour: str, count: int
) -> None:
    compare(libmemcached, behaviour, make_servers(count), KEYS[:700])


@BOTH
def test_ten_thousand_keys(libmemcached: Callable[..., list[int]], behaviour: str) -> None:
    compare(libmemcached, behaviour, make_servers(10), KEYS)


@BOTH
@pytest.mark.parametrize("largest", [2, 3, 10, 1000, (1 << 32) - 1])
@pytest.mark.parametrize("count", [1, 2, 5, 9, 25, 50, 64])
def test_servers_with_weights(
    libmemcached: Callable[..., list[int]], behaviour: str, count: int, largest: int
) -> None:
    choose = random.Random(f"{count} {largest}")
    servers = make_servers(count, lambda i: choose.randint(0, largest))
    compare(libmemcached, behaviour, servers, KEYS[:700])


@BOTH
def test_the_same_weight_for_all(libmemcached: Callable[..., list[int]], behaviour: str) -> None:
    for weight in (0, 1, 2, 100):
        compare(libmemcached, behaviour, make_servers(7, lambda i, w=weight: w), KEYS[:700])


def test_an_ipv6_address_may_stand_in_brackets(libmemcached: Callable[..., list[int]]) -> None:
    servers = [("::1", 11211, 1), ("::1", 11212, 1), ("fd00::7", 11211, 1)]
    names = ["[::1]:11211", "[::1]:11212", "[fd00::7]:11211"]
    expected = [names[index] for index in libmemcached("weighted", servers, KEYS[:700])]
    hasher = KetamaHash(names)
    assert [hasher.get_node(key) for key in KEYS[:700]] == expected


@BOTH
def test_what_libmemcached_stores_is_found_where_it_is_predicted(
    libmemcached: Callable[..., list[int]],
    memcached_factory: Callable[..., MemcachedProcess],
    patience: float,
    tmp_path: Path,
    behaviour: str,
) -> None:
    processes = [memcached_factory() for _ in range(3)]
    processes.append(memcached_factory(unix=tmp_path / "socket"))
    servers: list[Server] = [(*process.address, 2) for process in processes[:3]]
    servers.append((processes[3].address, 0, 1))
    keys = [f"user:{i}" for i in range(300)] + [f"ключ:{i}" for i in range(300)]
    libmemcached(behaviour, servers, keys, store=True)

    hasher = hasher_for(behaviour, servers)
    clients = {
        node(server): Client(process.address, timeout=patience, allow_unicode_keys=True)
        for server, process in zip(servers, processes, strict=True)
    }
    for name, part in hasher.table().partition(keys).items():
        with clients[name] as client:
            assert client.get_many(part) == {key: key.encode() for key in part}
