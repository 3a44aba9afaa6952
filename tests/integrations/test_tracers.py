"""Tracers: the spans of the same calls on pymemcache and on this package, each in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cymemcache.testing import MemcachedProcess

PROGRAM = Path(__file__).parent / "programs" / "tracing.py"

Spans = list[dict[str, Any]]
Uses = list[tuple[str, str, Spans]]  # the command, its result, its spans


def traced(package: str, tracer: str, servers: list[str]) -> dict[str, Uses]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), package, tracer, *servers],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Uses] = json.loads(done.stdout)
    return told


def by_server(spans: Spans) -> Spans:
    """Nodes are asked in any order, each for its keys in any order."""
    return sorted(({**span, "keys": sorted(span["keys"])} for span in spans), key=str)


def keys_of(spans: Spans) -> list[str]:
    return sorted(key for span in spans for key in span["keys"])


@pytest.mark.parametrize("tracer", ["opentelemetry", "opentelemetry alone", "ddtrace", "elastic"])
def test_the_spans_are_those_of_pymemcache(tracer: str, location: str) -> None:
    with MemcachedProcess() as second:
        servers = [location, "{}:{}".format(*second.address)]
        # Of pymemcache itself there is always the distribution.
        theirs = traced("pymemcache", tracer.removesuffix(" alone"), servers)
        mine = traced("cymemcache", tracer, servers)
    if tracer == "ddtrace":
        # It replaces the class that the reference's pool makes connections with, where ours has
        # one client for all of them: without use_pooling, which ours has no need of, it is traced.
        assert all(not spans for _, _, spans in mine.pop("pooled HashClient"))
        del theirs["pooled HashClient"]
    for kind, uses in theirs.items():
        for (name, result, spans), (_, our_result, ours) in zip(uses, mine[kind], strict=True):
            assert our_result == result, (kind, name)
            if (
                name in ("delete_many", "delete_multi")
                and kind.endswith("HashClient")
                and tracer != "elastic"
            ):
                # One command for each key there, and for each node here.
                assert {span["name"] for span in ours} <= {"delete_many"}
                keys = [
                    sorted(key for one in all_ for key in one["keys"]) for all_ in (spans, ours)
                ]
                assert keys[0] == keys[1]
            else:
                assert by_server(ours) == by_server(spans), (kind, name)
    if tracer != "elastic":  # where a cluster says no server
        (spans,) = [spans for name, _, spans in mine["HashClient"] if name == "get_many"]
        assert {span["server"] for span in spans} <= set(servers)
        assert sum(len(span["keys"]) for span in spans) == 10
    # Not every tracer knows every name of a command.
    assert {"set", "get", "set_many", "get_many", "delete_many"} <= {
        name for name, _, spans in mine["Client"] if spans
    }
