"""One client in a process of its own, which times its commands when it is told to.

Reads a JSON object per line, answers each with one: ``{"workload", "setup"}`` makes the client for
it and checks a result, ``{"workload", "count"}`` answers with seconds per command.  ``{"absent"}``
tells that the client has no such command, ``{"error"}`` that it cannot do it or does it wrong.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .clients import CLIENTS, Client, Commands, Unsupported
from .timing import Figures, alone, together
from .workloads import COMMANDS, WORKLOADS, Items, Setup, Workload


def main() -> None:
    name, namespace = sys.argv[1:]
    client = CLIENTS[name]
    maker = import_module(f"{__package__}.clients.{client.maker}")
    _answer(versions(client))
    prepared: dict[str, Prepared] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "count" in asked:
                _answer(prepared[asked["workload"]].timed(asked["count"]))
                continue
            prepared.clear()  # closes the connections of the workload before
            workload = WORKLOADS[asked["workload"]]
            make = getattr(maker, workload.shape, None)
            commands = make(setup_from(asked["setup"])) if make else {}
            if workload.command in commands:
                prepared[asked["workload"]] = Prepared(workload, commands, namespace)
                _answer({})
            else:
                _answer({"absent": True})
        except ImportError as error:
            _answer({"error": error.msg.partition(" (/")[0]})  # without where that is
        except Unsupported as error:
            _answer({"error": str(error)})
        except Exception as error:
            _answer({"error": f"{type(error).__name__}: {error}"})


def setup_from(plain: dict[str, Any]) -> Setup:
    """The `Setup` that went through JSON, which knows no tuples."""
    servers = [s if isinstance(s, str) else tuple(s) for s in plain["servers"]]
    return Setup(**{**plain, "servers": tuple(servers)})


def versions(client: Client) -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    if client.package is not None:
        found["version"] = version(client.package)
    if client.module == "cymemcache":
        found["implementation"] = import_module("cymemcache").__impl__
    return found


class Prepared:
    """A workload whose result has been checked, ready to be timed."""

    def __init__(self, workload: Workload, commands: Commands, namespace: str) -> None:
        items = workload.items(namespace)
        about = COMMANDS[workload.command]
        self._workload = workload
        self._command = commands[workload.command]
        self._arguments = about.arguments(items)
        self._commands = commands
        bare = hasattr(self._command, "prepare")
        # A bare loop expects the same reply from the first time on, also of what deletes.
        if about.stored and not (bare and about.leaves is False):
            _store(commands, items)
        if bare:
            self._command, expected = self._command.prepare(items)
            result = self._command()
            if bytes(result) != expected:
                raise ValueError(f"{workload.command} gives {result!r:.200}")
            return
        result = self._command(*self._arguments)
        if not about.is_right(result, items):
            raise ValueError(f"{workload.command} gives {result!r:.200}")
        if about.leaves is not None:
            get = commands["get"]
            for key, value in items.items():
                found = get(key)
                if found != (value if about.leaves else None):
                    raise ValueError(f"{workload.command} leaves {key}: {found!r:.200}")

    def timed(self, count: int) -> Figures:
        """Seconds per command."""
        if hasattr(self._command, "timed"):
            seconds = self._command.timed(count)
            return {what: value / count for what, value in seconds.items()}
        if self._workload.shape == "shared":
            leave = self._commands.get("leave")
            threads = self._workload.threads
            return together(self._command, self._arguments[0], count, threads, leave)
        settle = None
        if self._workload.command == "set_noreply":
            get, key = self._commands["get"], self._arguments[0]
            settle = lambda: get(key)  # noqa: E731
        return alone(self._command, self._arguments, count, settle)


def _store(commands: Commands, items: Items) -> None:
    command = commands["set"]
    if hasattr(command, "prepare"):
        command, _ = commands["set_many"].prepare(items)
        command()
        return
    for key, value in items.items():
        command(key, value)


def _answer(result: Any) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
