"""gevent and eventlet: many greenlets share a client, and none of them holds up the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cymemcache.testing import MemcachedProcess

PROGRAM = Path(__file__).parents[1] / "greenlets.py"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, list[MemcachedProcess]]]:
    """Two for each way to have the library's sockets: the second one is stopped now and then."""
    with ExitStack() as stack:
        yield {
            sockets: [stack.enter_context(MemcachedProcess()) for _ in range(2)]
            for sockets in ("module", "before", "after")
        }


@pytest.mark.parametrize("kind", ["Client", "HashClient"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_share_a_client(
    library: str, kind: str, servers: dict[str, list[MemcachedProcess]]
) -> None:
    with ExitStack() as stack:
        programs = []
        for sockets, nodes in servers.items():  # at the same time: most of it is waiting
            addresses = ["{}:{}".format(*node.address) for node in nodes]
            pid = str(nodes[1].pid)
            command = [sys.executable, PROGRAM, library, sockets, kind, pid, *addresses]
            pipe = subprocess.PIPE
            program = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
            stack.enter_context(program)
            stack.callback(program.kill)
            programs.append(program)
        for program in programs:
            output, errors = program.communicate(timeout=100)
            assert program.returncode == 0, errors
            told = eval(output)
            assert told["wrong"] == 0, errors
            assert told["timeouts"] > 0
            assert told["right"] > 1000
            # Had they been held up, it would have been for two seconds at least.
            assert told["stopped"] < 1.5
            assert told["unaccepted"] < 1.5
            assert told["working"] < 1.5
