"""What the figures depend on besides the clients: the machine, its memcached, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The machine in a few words each."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "system": platform.platform(),
        "processor": model or platform.processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "memcached": _said("memcached", "-V").removeprefix("memcached "),
    }


def commit() -> str:
    """The commit that is measured, with ``-dirty`` where the tree differs from it."""
    return _said("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _said(*command: str) -> str:
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
