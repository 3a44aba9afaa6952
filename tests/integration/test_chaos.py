"""A short run of the chaos that `make chaos` makes longer: a network that does what it can to mix
replies up, and threads that are interrupted wherever they are.  See `faults/chaos.py`.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from faults.__main__ import RUNS, chaos
from faults.proxy import STREAMS, FaultProxy, take_replies
from faults.schedule import CONNECT, FORGED, REPLY, REQUEST, Schedule
from wire import PATIENCE, Server, wait_until

SECONDS = 1.5
# What interrupts has to be seen to do so.
STORMS = ("exceptions", "signals", "greenlets", "futures")
# All kinds of runs, and each of the other clients with some; the storms are storms of faults, too.
SHORT = [
    *(("Client", name) for name in RUNS),
    ("PooledClient", "exceptions"),
    ("PooledClient", "greenlets"),
    ("HashClient", "signals"),
    ("HashClient, pooled", "futures"),
    ("HashClient, mortal", "faults"),
    ("HashClient, mortal", "flipped bytes, signed values"),
    ("Client, TLS", "signals"),
    ("Client, TLS", "flipped bytes"),
    ("HashClient, TLS", "exceptions"),
]


@pytest.mark.parametrize(("client", "name"), SHORT)
def test_every_result_is_one_that_can_be(client: str, name: str) -> None:
    done = chaos("--client", client, *RUNS[name], seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["commands"] > 0
    assert sum(report["faults"].values()) > 0
    if name in STORMS:
        assert report["landed"] > 0


@pytest.mark.parametrize(
    ("client", "storm"), [("Careless", "exceptions"), ("Hasty", "calm"), ("Fickle", "calm")]
)
def test_the_model_notices_a_client_that_is_wrong(client: str, storm: str) -> None:
    done = chaos("--client", client, "--storm", storm, seconds=120)
    assert done.returncode == 1
    assert json.loads(done.stdout)["wrong"] != []
    assert "--seed" in done.stderr


def test_one_seed_gives_one_schedule() -> None:
    def drawn(seed: str, number: int) -> list[Any]:
        schedule = Schedule("forged", seed, number)
        return [
            (
                schedule.on_connect(),
                schedule.on_request(),
                schedule.on_reply(),
                schedule.pieces(b"reply"),
            )
            for _ in range(1000)
        ]

    assert drawn("seed", 1) == drawn("seed", 1)
    assert drawn("seed", 1) != drawn("seed", 2)
    assert drawn("seed", 1) != drawn("other", 1)


def test_every_fault_is_drawn() -> None:
    schedule = Schedule("forged", "seed", 0)
    drawn: Counter[str] = Counter()
    for _ in range(20_000):
        drawn.update([schedule.on_connect(), schedule.on_request(), schedule.on_reply()])
    assert drawn.keys() == {"", *CONNECT, *REQUEST, *REPLY, *FORGED}


def test_the_proxy_finds_where_replies_end() -> None:
    stored = b"STORED\r\n"
    value = b"VALUE k 0 7\r\nEND\r\n##\r\nVALUE l 0 0\r\n\r\nEND\r\n"
    stats = b"STAT pid 1\r\nSTAT uptime 2\r\nEND\r\n"
    stream = stored + value + stats + stored
    for cut in range(len(stream)):
        received = bytearray(stream[:cut])
        found = list(take_replies(received))
        received += stream[cut:]
        found += take_replies(received)
        assert found == [stored, value, stats, stored]
        assert received == b""


@pytest.mark.parametrize("stream", STREAMS)
def test_a_calm_proxy_is_not_noticed(running_memcached: Server, stream: str) -> None:
    running_memcached.flush()
    with FaultProxy(running_memcached.address, "forged", "seed", 1.0, stream) as proxy:
        proxy.calm()
        with socket.create_connection(proxy.address, timeout=PATIENCE) as sock:
            for number in range(300):
                value = b"%d" % number * (number * 10)
                sock.sendall(b"set k 0 0 %d\r\n%b\r\nget k\r\n" % (len(value), value))
                right = b"STORED\r\nVALUE k 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)
                found = b""
                while len(found) < len(right):
                    found += sock.recv(1 << 16)
                assert found == right


def test_a_proxy_that_was_calmed_refuses_nobody(running_memcached: Server) -> None:
    with FaultProxy(running_memcached.address, "exact", "seed", 1.0) as proxy:
        connect = partial(socket.create_connection, proxy.address, timeout=PATIENCE)
        wait_until(lambda: is_refused(connect))
        proxy.calm()
        with connect() as sock:
            sock.sendall(b"version\r\n")
            assert sock.recv(1 << 16).startswith(b"VERSION ")


def is_refused(connect: Callable[[], socket.socket]) -> bool:
    try:
        connect().close()
    except ConnectionRefusedError:
        return True
    return False
