"""A cluster with nodes that nobody can reach, with options that are at their limits."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from cymemcache import HashClient, MemcacheNodeDownError
from cymemcache.testing import EmbeddedServer

AT_ONCE: dict[str, Any] = {"retry_attempts": 0, "retry_timeout": 0, "dead_timeout": 0}


@pytest.fixture
def lost() -> list[Any]:
    """Two addresses at which nobody listens."""
    with EmbeddedServer() as one, EmbeddedServer() as other:
        return [one.address, other.address]


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("pooling", [False, True])
def test_a_dead_node_that_may_be_probed_at_any_time_is_probed_once_by_a_command(
    lost: list[Any], nodes: int, pooling: bool, patience: float
) -> None:
    cluster = HashClient(lost[:nodes], use_pooling=pooling, timeout=patience, **AT_ONCE)
    for _ in range(3):
        for call in (
            lambda: cluster.get("a"),
            lambda: cluster.set("a", 1, noreply=False),
            lambda: cluster["a"],
            lambda: cluster.get_many(["a", "b"]),
            lambda: cluster.set_many({"a": 1}, noreply=False),
        ):
            with pytest.raises((ConnectionRefusedError, MemcacheNodeDownError)):
                call()
    cluster.ignore_exc = True
    for _ in range(3):
        assert cluster.get("a", 5) == 5
        assert cluster.get_many(["a", "b"]) == {}
        assert cluster.set_many({"a": 1}, noreply=False) == ["a"]


def test_a_node_of_a_cluster_that_cannot_be_dialled_keeps_no_slots(patience: float) -> None:
    # The collector is off: it would give back what a cycle had kept.
    with EmbeddedServer() as server:
        address = server.address
    options = {"retry_timeout": 0, "dead_timeout": 0, "ignore_exc": True, "timeout": patience}
    cluster = HashClient([address], use_pooling=True, max_pool_size=2, **options)
    (pool,) = [client.client_pool for client in cluster.clients.values()]
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            assert cluster.get_many(["a", "b"]) == {}
            assert cluster.set_many({"a": 1}, noreply=False) == ["a"]
            assert len(pool.used) == 0
    finally:
        gc.enable()
