"""The demo from beginning to end: which server, the walk, the timing."""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import Client, MemcacheError, __impl__, __version__
from . import PATIENCE, DemoError, timing
from .screen import Screen
from .servers import Server, find_server
from .walk import walk
from .worker import VALUE_SIZE

_RECORDS = 300
_QUICK_RECORDS = 30


def show(address: Any = None, *, quick: bool = False) -> None:
    """Show the package at work on the server at `address`, or on one that is found or embedded.

    With `quick` it works on fewer records, and does not take the time for numbers worth reading.
    Raises `DemoError` where the server cannot be reached or answers what it must not.
    """
    screen = Screen(sys.stdout)
    started = time.perf_counter()
    screen.say(f"cymemcache {__version__}", "bold")
    with find_server(address) as server, _errors_of(server):
        with Client(server.address, connect_timeout=PATIENCE, timeout=PATIENCE) as client:
            version = client.version().decode("ascii", "backslashreplace")
        screen.say(f"  server          {server.name}, version {version}")
        screen.say(f"                  {server.origin}")
        screen.say(
            f"  implementation  {__impl__} (the {timing.NAMES[__impl__]} core), "
            f"{platform.python_implementation()} {platform.python_version()}"
        )
        prefix = f"cymemcache-demo:{os.getpid()}-{secrets.token_hex(4)}:"
        _walk(screen, server, prefix, quick)
        _time(screen, server, prefix, quick)
        screen.say()
        screen.say(
            f"Done in {time.perf_counter() - started:.1f} s; the demo's keys are deleted.", "bold"
        )


def _walk(screen: Screen, server: Server, prefix: str, quick: bool) -> None:
    screen.say()
    screen.say("The main job, every reply checked", "bold")
    count = _QUICK_RECORDS if quick else _RECORDS
    walk(server.address, prefix, count, screen.step, wait=not quick)


def _time(screen: Screen, server: Server, prefix: str, quick: bool) -> None:
    screen.say()
    screen.say("The compiled core against its pure twin", "bold")
    with timing.workers(screen) as found:
        effort = timing.QUICK if quick else timing.THOROUGH
        result = timing.measure(found, server.address, prefix, effort)
    rounds = "1 round" if result.rounds == 1 else f"medians of {result.rounds} rounds in turn"
    screen.say(f"  {VALUE_SIZE}-byte values, one connection, {rounds}")
    screen.say()
    timing.show(screen, result)
    screen.say()
    screen.say(
        f"  {screen.micro}s: {result.counted} time of the client process, in microseconds. "
        "commands/s: by the clock,"
    )
    screen.say("  with the server's time in it. The shorter the bar, the better.")


@contextmanager
def _errors_of(server: Server) -> Iterator[None]:
    try:
        yield
    except (MemcacheError, OSError) as error:
        what = str(error) or type(error).__name__
        raise DemoError(f"the server {server.name}: {what}") from error
