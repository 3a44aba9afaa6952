"""The floor in C: the program bare.c, compiled when it is first wanted, does the whole loop."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from .. import wire
from ..workloads import Items, Setup
from . import Commands, Unsupported

_SOURCE = Path(__file__).parent.parent / "bare.c"


class Loop:
    """A command of which the program does any number."""

    def __init__(self, program: Path, setup: Setup, command: str) -> None:
        (server,) = setup.servers
        address = [server, "0"] if isinstance(server, str) else [server[0], str(server[1])]
        self._command = command
        self._request = program.with_name(command)
        seconds = 0 if setup.timeout is None else setup.timeout
        self._start = [str(program), *address, str(seconds), str(self._request)]

    def prepare(self, items: Items) -> tuple[Any, bytes]:
        """Itself, and what the request is answered with."""
        request = wire.request(self._command, items)
        assert request is not None
        self._request.write_bytes(request)
        reply = wire.reply(self._command, items)
        self._size = len(reply)
        return self, reply

    def __call__(self, *_: Any) -> bytes:
        return self._output(0)

    def timed(self, count: int) -> dict[str, float]:
        """The seconds that `count` commands took."""
        found: dict[str, float] = json.loads(self._output(count))
        return found

    def _output(self, count: int) -> bytes:
        command = [*self._start, str(self._size), str(count)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode().strip())
        return done.stdout


@cache
def _compiled() -> Path:
    """The program, in a directory that goes with this process's own (`processes.Worker`)."""
    program = Path(tempfile.mkdtemp()) / "bare"
    done = subprocess.run(
        ["cc", "-O2", "-o", program, _SOURCE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unsupported(f"cannot be compiled: {done.stderr.strip()[:200]}")
    return program


def single(setup: Setup) -> Commands:
    if setup.pickled:  # nothing is encoded here
        return {}
    if setup.certificate is not None:
        raise Unsupported("no TLS")
    program = _compiled()
    names = ("get", "get_miss", "set", "get_many", "set_many", "delete_many")
    return {name: Loop(program, setup, name) for name in names}  # type: ignore[misc]
