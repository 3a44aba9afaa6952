"""gevent and eventlet: many greenlets share a client, and none of them holds up the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cymemcache.testing import MemcachedProcess

PROGRAM = Path(__file__).parents[1] / "greenlets.py"


@pytest.mark.parametrize("kind", ["Client", "HashClient"])
@pytest.mark.parametrize("sockets", ["module", "before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_share_a_client(library: str, sockets: str, kind: str) -> None:
    with MemcachedProcess() as one, MemcachedProcess() as other:
        addresses = ["{}:{}".format(*process.address) for process in (one, other)]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), library, sockets, kind, str(other.pid), *addresses],
            capture_output=True,
            text=True,
            timeout=110,
        )
    assert done.returncode == 0, done.stderr
    told = eval(done.stdout)
    assert told["wrong"] == 0
    assert told["timeouts"] > 0
    assert told["right"] > 1000
    # Had they been held up, it would have been for two seconds at least.
    assert told["stopped"] < 1.5
    assert told["unaccepted"] < 1.5
    assert told["working"] < 1.5
