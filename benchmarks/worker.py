"""One client in a process of its own, which times its commands when it is told to.

Reads a JSON object per line, answers each with one.  ``{"workload", "count"}`` is answered with the
seconds of user CPU, system CPU and wall time that so many commands took, by getrusage around the
loop alone; a workload that the client does not have is answered with null.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from .clients import CLIENTS
from .workloads import WORKLOADS, Workload


def main() -> None:
    name, host, port = sys.argv[1:]
    make, _ = CLIENTS[name]
    commands = make((host, int(port)))
    answer({"client": name, **versions(name)})
    for line in sys.stdin:
        asked = json.loads(line)
        workload = WORKLOADS[asked["workload"]]
        command = commands.get(workload.command)
        if command is None:
            answer(None)
        elif "count" in asked:
            answer(timed(command, workload.arguments, asked["count"]))
        else:
            check(command, workload)
            answer({})


def versions(name: str) -> dict[str, str]:
    from importlib.metadata import version

    module = name.split()[0]
    found = {"python": sys.version.split()[0]}
    if module == "cymemcache":
        import cymemcache

        found |= {"version": cymemcache.__version__, "implementation": cymemcache.__impl__}
    elif module != "bare":
        found["version"] = version(module)
    return found


def check(command: Callable[..., Any], workload: Workload) -> None:
    result = command(*workload.arguments)
    if not workload.is_right(result):
        raise SystemExit(f"{workload.command} gives {result!r:.200}")


def timed(command: Callable[..., Any], arguments: tuple[Any, ...], count: int) -> dict[str, float]:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if len(arguments) == 1:
        (argument,) = arguments
        for _ in repeat(None, count):
            command(argument)
    else:
        first, second = arguments
        for _ in repeat(None, count):
            command(first, second)
    after, ended = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    return {
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "wall": ended - began,
    }


def answer(result: Any) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
