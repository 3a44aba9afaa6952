"""The benchmarks run: a blink of each, so that none of them is dead when somebody wants figures.

Of the peers only pymemcache is sure to be installed here: the others are measured, or reported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from benchmarks.clients import BARE, BARE_C, CLIENTS, OURS, PURE, PYMEMCACHE
from benchmarks.figures import Results
from benchmarks.guard.script import BENCHMARKS
from benchmarks.workloads import WORKLOADS

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(600)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a smoke run of everything has written."""
    path = tmp_path_factory.mktemp("benchmarks")
    ended = run("benchmarks", "--smoke", "--output", path)
    assert ended.returncode == 0, ended.stderr
    return path


@pytest.fixture(scope="module")
def results(directory: Path) -> Results:
    return Results.load(directory / "figures.json")


def test_every_workload_is_measured_with_pymemcache(results: Results) -> None:
    assert results.rounds.keys() == WORKLOADS.keys()
    for workload, clients in results.rounds.items():
        assert PYMEMCACHE in clients, workload
        for rounds in clients.values():
            assert {len(values) for values in rounds.values()} == {1}


def test_ours_is_measured_at_everything_that_it_can_do(results: Results) -> None:
    reasons = {reason for client, _, reason in results.missing if client.startswith("cymemcache")}
    assert all(reason.startswith("cannot import name") for reason in reasons), reasons
    unavailable = {workload for client, workload, _ in results.missing if client == OURS}
    for workload, clients in results.rounds.items():
        if workload not in unavailable:
            assert clients.keys() >= {OURS, PURE}, workload


def test_each_worker_runs_the_implementation_that_its_name_says(results: Results) -> None:
    assert results.versions[OURS]["implementation"] == "c"
    assert results.versions[PURE]["implementation"] == "python"


def test_a_peer_is_measured_or_reported_missing(results: Results, directory: Path) -> None:
    report = (directory / "report.md").read_text()
    for name, client in CLIENTS.items():
        if client.package is None:
            continue
        try:
            installed = version(client.package)
        except PackageNotFoundError:
            assert (name, "") in {(entry[0], entry[1]) for entry in results.missing}
            assert f"| {name} | everything |" in report
        else:
            assert results.versions[name]["version"] == installed


def test_the_bare_loop_stands_beside_them_over_tls_too(results: Results) -> None:
    for workload in ("get 100 B", "get 1 MB", "get, UNIX socket", "get, TLS"):
        assert BARE in results.rounds[workload]


def test_workloads_and_clients_can_be_chosen(tmp_path: Path) -> None:
    ended = run(
        *("benchmarks", "--smoke", "--only", "get 100 B", "--clients", "pymemcache"),
        *("--output", tmp_path),
    )
    assert ended.returncode == 0, ended.stderr
    found = Results.load(tmp_path / "figures.json").rounds
    assert {workload: list(clients) for workload, clients in found.items()} == {
        "get 100 B": [PYMEMCACHE]
    }


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ended = run(
        *("benchmarks", "--smoke", "--only", "get 100 B", "--clients", BARE_C),
        *("--output", tmp_path / "output"),
        TMPDIR=str(temporary),
    )
    assert ended.returncode == 0, ended.stderr
    assert BARE_C in Results.load(tmp_path / "output" / "figures.json").rounds["get 100 B"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_the_guard_counts_runs(name: str) -> None:
    ended = run("benchmarks.guard.script", name, "1")
    assert ended.returncode == 0, ended.stderr
