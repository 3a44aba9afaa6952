"""The processes that clients run in; whoever starts one here ends it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from .clients import CLIENTS
from .footprint import IMPORT
from .workloads import Setup

_REPOSITORY = Path(__file__).resolve().parents[1]
_PATIENCE = 60.0  # seconds for any one answer: a client that hangs must not stop the others


class WorkerFailed(Exception):
    """A process ended without an answer; the message is the last thing it said."""


class Worker:
    """A process with one client in it (`benchmarks.worker`)."""

    def __init__(self, name: str, namespace: str) -> None:
        # It is killed in the end, and has no chance to remove what it has made.
        self._directory = tempfile.TemporaryDirectory(prefix="cymemcache-worker-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, namespace],
            cwd=_REPOSITORY,
            env={**_environment(name), "TMPDIR": self._directory.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def place(self, processors: set[int]) -> None:
        """Let it run on these processors only."""
        os.sched_setaffinity(self._process.pid, processors)

    def ask(self, question: dict[str, Any]) -> Any:
        """The answer to `question`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words are read below
        return self.answer()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        # Answers come one at a time, so that nothing of one can stand in the buffer already.
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise WorkerFailed(f"no answer within {_PATIENCE:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(_last_line(self._process.stderr.read()))
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()


def import_time(name: str) -> dict[str, float]:
    """What importing the client costs a new interpreter, in seconds."""
    module = CLIENTS[name].module
    assert module is not None
    return _figures(name, ["-P", "-c", IMPORT, module])


def footprint(what: str, name: str, setup: Setup) -> dict[str, float]:
    """A figure of `benchmarks.footprint`."""
    plain = json.dumps(asdict(setup))
    # For the count of what is allocated, Python leaves it all to the C library.
    exact = {"PYTHONMALLOC": "malloc"} if what == "idle" else {}
    return _figures(name, ["-m", "benchmarks.footprint", what, name, plain], exact)


def _figures(
    name: str, arguments: list[str], environment: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=_REPOSITORY,
            env={**_environment(name), **environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerFailed(f"no answer within {_PATIENCE:g} s") from error
    if done.returncode:
        raise WorkerFailed(_last_line(done.stderr))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _environment(name: str) -> dict[str, str]:
    return {**os.environ, **CLIENTS[name].environment}


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "its process ended without a word"
