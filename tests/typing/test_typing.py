"""The package's types as a strict type checker sees them from outside: `usage.py`, read by mypy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_types_are_what_usage_says(pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache
    assert cache is not None
    command = [sys.executable, "-m", "mypy", "--strict", "--enable-error-code", "unused-ignore"]
    command += ["--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(cache.mkdir("mypy")), str(HERE / "usage.py")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
