"""The benchmarks run: a blink of each, so that none of them is dead when somebody wants figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = {"cymemcache", "cymemcache (pure)"}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a smoke run writes."""
    path = tmp_path_factory.mktemp("benchmarks") / "figures.json"
    ended = run("--smoke", "--output", path)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_every_workload_is_measured_on_both_implementations_and_on_pymemcache(
    report: dict[str, Any],
) -> None:
    assert len(report["seconds_per_command"]) == 4
    for workload, clients in report["seconds_per_command"].items():
        assert clients.keys() >= OURS | {"pymemcache"}, workload
        for rounds in clients.values():
            assert len(rounds) == 1
            assert rounds[0]["wall"] > 0


def test_each_worker_runs_the_implementation_that_its_name_says(report: dict[str, Any]) -> None:
    assert report["versions"]["cymemcache"]["implementation"] == "c"
    assert report["versions"]["cymemcache (pure)"]["implementation"] == "python"


def test_a_peer_is_measured_or_reported_missing(report: dict[str, Any]) -> None:
    assert report["versions"].keys() | report["missing"].keys() == OURS | {
        "pymemcache",
        "pylibmc",
        "bare send and recv",
    }


def test_the_targets_come_with_ratios(report: dict[str, Any]) -> None:
    named = {(row["workload"], row["client"], row["peer"]) for row in report["ratios"]}
    assert ("get", "cymemcache", "pymemcache") in named
    assert ("get", "cymemcache (pure)", "pymemcache") in named


def test_workloads_and_clients_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    ended = run("--smoke", "--only", "get", "--clients", "pymemcache", "--output", path)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(path.read_text())["seconds_per_command"]
    assert figures.keys() == {"get"}
    assert figures["get"].keys() == {"pymemcache"}
