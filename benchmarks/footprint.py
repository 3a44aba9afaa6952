"""What a client costs a process as a whole: the time of its import, its memory.

Each figure comes from a process of its own: ``python -m benchmarks.footprint WHAT CLIENT SETUP``,
which prints it as JSON.  The import is timed in an interpreter that has loaded nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from .clients import CLIENTS
from .worker import setup_from
from .workloads import IDLE_CONNECTIONS, Setup

# For ``python -P -c``: prints how long the import of argv[1] takes.
IMPORT = """
import resource, sys, time
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
__import__(sys.argv[1])
ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
print('{"user": %r, "system": %r, "wall": %r}' % (
    after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, ended - began))
"""


def main() -> None:
    what, name, plain = sys.argv[1:]
    maker = import_module(f"{__package__}.clients.{CLIENTS[name].maker}")
    setup = setup_from(json.loads(plain))
    measured = {"peak": peak, "idle": idle}[what](maker, setup)
    print(json.dumps({"bytes": measured}))


def peak(maker: Any, setup: Setup) -> int:
    """The most memory that the process ever held: values of 1 MB stored and fetched, batches."""
    commands = maker.single(setup)
    value = b"x" * setup.largest
    items = {f"peak:key:{number:03}": b"x" * 100 for number in range(1000)}
    if hasattr(commands["set"], "prepare"):  # the bare loop
        for command, content in (("set", {"peak:large": value}), ("get", {"peak:large": value})):
            for _ in range(20):
                commands[command].prepare(content)[0]()
        commands["set_many"].prepare(items)[0]()
        commands["get_many"].prepare(items)[0]()
    else:
        for _ in range(20):
            commands["set"]("peak:large", value)
            commands["get"]("peak:large")
        commands["set_many"](items)
        commands["get_many"](list(items))
    return _status("VmHWM")


def idle(maker: Any, setup: Setup) -> float:
    """Bytes per idle connection, each of which has fetched a value of `setup.largest`."""
    key = "idle:large"
    value = b"x" * setup.largest
    commands = maker.single(setup)
    if hasattr(commands["set"], "prepare"):
        commands["set"].prepare({key: value})[0]()
    else:
        commands["set"](key, value)
    hold = getattr(maker, "hold", None) or partial(_hold_clients, maker)
    hold(setup, 2, key)  # what is loaded and kept once is not a connection's
    gc.collect()
    before = _allocated()
    held = hold(setup, IDLE_CONNECTIONS, key)
    gc.collect()
    grown = _allocated() - before
    del held
    return grown / IDLE_CONNECTIONS


def _hold_clients(maker: Any, setup: Setup, count: int, key: str) -> Any:
    """Clients with one connection each, where one client cannot be made to hold many."""
    held = []
    for _ in range(count):
        commands = maker.single(setup)
        commands["get"](key)
        held.append(commands)
    return held


class _Allocated(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


def _allocated() -> int:
    """Bytes in use of all that was allocated, by C and, with PYTHONMALLOC=malloc, by Python."""
    if os.environ.get("PYTHONMALLOC") != "malloc":
        raise RuntimeError("to be run with PYTHONMALLOC=malloc")
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Allocated
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def _status(field: str) -> int:
    """A figure in bytes of this process's own status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
