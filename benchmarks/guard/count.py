"""Counts instructions: callgrind on the script, in a surrounding that is the same every time.

A count is the difference of two runs, one with twice the repeats of the other, so that the start of
the interpreter is in neither.  Hashes are seeded, the environment is empty but for what is named
here, and valgrind's own loader puts everything at the same addresses.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cymemcache

from .script import BENCHMARKS

_REPOSITORY = Path(__file__).resolve().parents[2]
_COLLECTED = re.compile(r"Collected : (\d+)")
_PATIENCE = 120.0  # seconds for one run
_TRIES = 3  # a machine that stands still for a second makes a connection look stale


class CannotCount(Exception):
    """valgrind is not there, or a run of the script failed; the message says what happened."""


def build() -> dict[str, str]:
    """What counts depend on besides our code: other builds of Python need other instructions."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "optimized": "yes" if optimized else "no",
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
    }


def instructions(names: Iterable[str]) -> dict[str, int]:
    """Instructions per command of these benchmarks."""
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)")
    names = list(names)
    runs = [(name, times * BENCHMARKS[name][1]) for name in names for times in (1, 2)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(runs, pool.map(lambda run: _collected(*run), runs), strict=True))
    return {
        name: round((counts[name, 2 * repeats] - counts[name, repeats]) / repeats)
        for name in names
        for repeats in (BENCHMARKS[name][1],)
    }


def _collected(name: str, repeats: int) -> int:
    """All the instructions of a run of the script."""
    package = Path(cymemcache.__file__).resolve().parents[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(_REPOSITORY), str(package)]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CYMEMCACHE_IMPL": "c",
    }
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    # Without `site` (-S) the environment's other packages play no part.
    command += [sys.executable, "-S", "-m", "benchmarks.guard.script", name, str(repeats)]
    said = ""
    for _ in range(_TRIES):
        done = subprocess.run(
            command,
            cwd=_REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        said = done.stderr
        found = _COLLECTED.search(said)
        if done.returncode == 0 and found is not None:
            return int(found[1])
    raise CannotCount(f"{name}: {said.strip()[-1000:]}")
