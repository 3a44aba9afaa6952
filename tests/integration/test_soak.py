"""A short run of what `make soak` makes longer: many threads on one cluster while its servers are
killed, stopped and restarted (see `faults/soak.py`); and that it notices what it is there for.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from cymemcache import HashClient
from cymemcache.counters import ClusterCounters
from faults import soak
from faults.crowd import Latencies
from wire import PATIENCE

SECONDS = 40.0  # of the whole run
LONG = 30.0  # seconds within which something must have been noticed
SHORT = 1.5  # seconds, where it is noticed in the end


def test_whatever_happens_to_servers_the_cluster_is_sound() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "faults.soak", "--minutes", str(SECONDS / 60)],
        capture_output=True,
        text=True,
        timeout=SECONDS + 4 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "sound"
    for kind in soak.KINDS:
        assert f"{kind}, 0:" in run.stdout  # a line while it runs
        assert f"{kind}: " in run.stdout  # and a report
    assert "servers: none; all used again" not in run.stdout


class Mixing(HashClient):
    """Answers with the value of another key, now and then."""

    def get(self, key: Any, *args: Any) -> Any:
        return super().get(key.replace("8", "7"), *args)


class Raising(HashClient):
    """Raises what is not documented."""

    def touch(self, key: Any, *args: Any, **options: Any) -> Any:
        raise AttributeError("closed")


class Hanging(HashClient):
    """Holds a caller."""

    def touch(self, key: Any, *args: Any, **options: Any) -> Any:
        time.sleep(10)
        return False


class Forgetting(HashClient):
    """Does not take all nodes back."""

    def add_server(self, server: Any, port: int | None = None) -> None:
        if len(self.clients) < soak.NODES - 1:
            super().add_server(server, port)


class Miscounting(HashClient):
    """Counts nothing."""

    @property
    def counters(self) -> ClusterCounters:
        return ClusterCounters([], {})


class Losing(HashClient):
    """Takes a slot of each node's pool, and does not give it back."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.taken = [client._pool.admit() for client in self.clients.values()]


class Leaking(HashClient):
    """Leaves a descriptor open."""

    left: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).left = os.dup(0)


def wrong(make: type[HashClient], kind: str, seconds: float) -> str:
    return "\n".join(soak.soak(kind, seconds, "seed", make=make).wrong)


def test_a_value_of_another_key_is_noticed() -> None:
    assert re.search(
        r"Wrong: (key-\d*8\d* holds b'key-\d*7|score-\d*8 is )", wrong(Mixing, "plain", LONG)
    )


def test_an_undocumented_exception_is_noticed() -> None:
    assert "AttributeError: closed" in wrong(Raising, "plain", LONG)


def test_a_caller_who_is_held_is_noticed() -> None:
    assert "a call is held for" in wrong(Hanging, "plain", LONG)


def test_a_node_that_is_not_used_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.PATIENCE", 1.0)
    assert "not all nodes are used again" in wrong(Forgetting, "plain", SHORT)


@pytest.mark.parametrize("kind", soak.KINDS)
def test_what_was_not_counted_is_noticed(kind: str) -> None:
    assert "hits: 0, should be" in wrong(Miscounting, kind, SHORT)


def test_a_slot_that_was_lost_is_noticed() -> None:
    assert "slots (" in wrong(Losing, "pooled", SHORT)


def test_a_descriptor_that_was_lost_is_noticed() -> None:
    try:
        assert "descriptors and threads:" in wrong(Leaking, "plain", SHORT)
    finally:
        os.close(Leaking.left)


def test_growing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = itertools.count(100 << 20, soak.GROWTH_MOST)
    monkeypatch.setattr(soak, "resident", lambda: next(sizes))
    monkeypatch.setattr(soak, "GROWTH_SECONDS", 0.0)
    assert "the process has grown by" in wrong(HashClient, "plain", SHORT)


def test_latencies_are_known_to_a_tenth() -> None:
    latencies = Latencies()
    for number in range(1, 1001):
        latencies.add(number / 1000)
    both = Latencies()
    both.add_all(latencies)
    both.add_all(latencies)
    assert both.count == 2000
    assert both.most == 1.0
    assert both.within(0.5) == pytest.approx(0.5, rel=0.11)
    assert both.within(0.99) == pytest.approx(0.99, rel=0.11)
