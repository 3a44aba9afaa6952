"""Whatever interrupts a command, and wherever: no later one is answered with what belongs to it, no
descriptor is leaked and no connection lost.  Each test has a thousand interruptions land at random
moments within one command, in a process of its own (`interrupting.py`), and looks after each.  The
embedded server is the slower one, so that there is a middle for signals and timeouts to land in.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer
from wire import PATIENCE, Server

TIMES = 1000


def interrupted(servers: list[Any], how: str, exchange: str, command: str) -> None:
    seed = str(random.randrange(1 << 32))
    print(f"seed {seed}")
    address = ",".join("{}:{}".format(*server.address) for server in servers)
    run = subprocess.run(
        [sys.executable, "-m", "interrupting", address, how, exchange, command, str(TIMES), seed],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["wrong"] == "", run.stderr
    assert outcome["landed"] >= TIMES


@pytest.mark.parametrize("command", ["get", "get_many", "set_many", "incr"])
@pytest.mark.parametrize("exchange", ["plain", "any", "pooled"])
def test_keyboard_interrupts(running_embedded: Server, exchange: str, command: str) -> None:
    interrupted([running_embedded], "signal", exchange, command)


@pytest.mark.parametrize("command", ["get", "get_many", "set_many", "incr"])
@pytest.mark.parametrize("exchange", ["plain", "any", "pooled"])
def test_exceptions_raised_by_another_thread(
    running_embedded: Server, exchange: str, command: str
) -> None:
    interrupted([running_embedded], "exception", exchange, command)


@pytest.mark.parametrize("command", ["get", "get_many", "set_many", "incr"])
@pytest.mark.parametrize("sockets", ["gevent", "patched"])
def test_gevent_timeouts(running_embedded: Server, sockets: str, command: str) -> None:
    interrupted([running_embedded], "gevent", sockets, command)


@pytest.mark.parametrize("command", ["get", "get_many", "set_many"])
@pytest.mark.parametrize("exchange", ["plain", "any", "pooled"])
@pytest.mark.parametrize("how", ["signal", "exception"])
def test_interruptions_of_a_cluster(how: str, exchange: str, command: str) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer()) for _ in range(4)]
        interrupted(servers, how, exchange, command)
