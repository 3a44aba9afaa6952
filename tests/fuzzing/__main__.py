"""Fuzzes one target with atheris, guided by the coverage of both twins:

    python -m fuzzing TARGET [options of libFuzzer] [CORPUS ...]

The compiled twin must have been compiled for it (`make fuzz`).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["cymemcache.core"]):
    from fuzzing.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
