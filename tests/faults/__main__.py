"""Chaos for a while: every kind of faults and every storm on every client and both implementations.

    python -m faults [SECONDS]

Ends with what was committed and found, summed up, and with 1 where anything was wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product

from wire import PATIENCE

#: The options of `chaos` for each kind of run.
RUNS = {
    "faults": ["--faults", "exact"],
    "forged replies": ["--faults", "forged"],
    "flipped bytes": ["--faults", "flips"],
    "flipped bytes, signed values": ["--faults", "flips", "--signed"],
    "exceptions": ["--storm", "exceptions"],
    "signals": ["--storm", "signals"],
    "greenlets": ["--storm", "greenlets"],
    "futures": ["--storm", "futures"],
}
SHARED_BY = (
    "Client",
    "PooledClient",
    "HashClient",
    "HashClient, pooled",
    "HashClient, mortal",
    "Client, TLS",
    "HashClient, TLS",
)


def chaos(*options: str, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """One run, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "faults.chaos", "--seconds", str(seconds), *options],
        capture_output=True,
        text=True,
        timeout=seconds + 4 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    runs = list(product(("c", "python"), SHARED_BY, RUNS))
    failures = 0
    sums: dict[str, Counter[str]] = {"faults": Counter(), "errors": Counter()}
    commands = landed = 0
    for impl, client, name in runs:
        options = ("--client", client, *RUNS[name])
        done = chaos(*options, seconds=seconds / len(runs), CYMEMCACHE_IMPL=impl)
        failures += done.returncode != 0
        sys.stderr.write(done.stderr)
        report = json.loads(done.stdout or "{}")
        commands += report.get("commands", 0)
        landed += report.get("landed", 0)
        for kind, counter in sums.items():
            counter.update(report.get(kind, {}))
        print(
            f"{client}, {impl}, {name}: {'WRONG' if done.returncode else 'right'}, "
            f"{report.get('commands')} commands, {sum(report.get('faults', {}).values())} faults, "
            f"{report.get('landed')} interruptions",
            flush=True,
        )
    print(f"{commands} commands, {landed} interruptions landed within the client")
    for kind, counter in sums.items():
        print(f"{kind}:", ", ".join(f"{name} {count}" for name, count in counter.most_common()))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
