"""Whether anything grows: mixed commands on one client, errors and reconnections among them.

    python -m faults.memory [COMMANDS]

It prints as JSON by how much, from after the warm-up to the end: bytes of memory of the process,
blocks that the interpreter has allocated, references to the objects that were handed in, and all
references where the interpreter counts them (a debug build does).  It ends with 1 where that is
more than chance.  To be run in a process of its own, where nobody else allocates.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from cymemcache import Client, MemcacheError
from cymemcache.serde import JSONSerde, SignedSerde
from cymemcache.testing import Close, Cut, EmbeddedServer, MemcachedProcess
from wire import PATIENCE

# What may be more at the end, by chance: a dict that was resized, a cache that was filled.
GROWTH_MOST = {"resident": 3 << 20, "blocks": 200, "held": 0, "references": 400}


class Key(str):
    """A key that can be told from any other."""


def resident() -> int:
    """Bytes of memory that the process has in use."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
    raise RuntimeError("no VmRSS")


def references() -> int:
    """All references there are, 0 where the interpreter does not count them."""
    total: Callable[[], int] = getattr(sys, "gettotalrefcount", int)
    return total()


def command_list(client: Client, keys: list[Key], values: list[Any]) -> list[Callable[[], Any]]:
    key, other = keys[0], keys[1]
    small, large = values
    items = dict(zip(keys, [small] * len(keys), strict=True))
    return [
        lambda: client.set(key, small),
        lambda: client.get(key),
        lambda: client.set(other, large, noreply=False),
        lambda: client.get(other),
        lambda: client.gets(key),
        lambda: client.cas(key, small, b"1"),
        lambda: client.set_many(items),
        lambda: client.get_many(keys),
        lambda: client.set_many(items, noreply=False),
        lambda: client.gets_many([*keys, "absent"]),
        lambda: client.add(key, small, noreply=False),
        lambda: client.append("text", "more"),
        lambda: client.set("text", ""),
        lambda: client.set("number", 1),
        lambda: client.incr("number", 2),
        lambda: client.delete("absent", noreply=False),
        lambda: client.delete_many(["absent", "missing"]),
        lambda: client.touch(key, 100),
        lambda: client.gat(key, 100),
        # errors, of the client's and of the server's
        lambda: client.get("a b"),
        lambda: client.set(key, small, expire=1 << 40),
        lambda: client.incr(key, 1),
        lambda: client.stats("nonsense"),
        lambda: client.get_many([*keys, "a b"]),
        lambda: client.get("absent"),
    ]


def reconnections(client: Client, unreliable: Client, key: Key) -> list[Callable[[], Any]]:
    return [
        client.close,
        lambda: client.get(key),
        lambda: client.raw_command(b"mn", b"MN\r\n"),
        lambda: unreliable.set(key, "v", noreply=False),
        lambda: unreliable.get(key),
        lambda: unreliable.get_many([key, "k"]),
        lambda: unreliable.set(key, "v", noreply=True),
    ]


def measure(commands: int) -> dict[str, Any]:
    logging.getLogger("cymemcache").disabled = True
    keys = [Key(f"key-{number}") for number in range(10)]
    values = ["v" * 100, ["w" * 10] * 3000]
    with MemcachedProcess() as server, EmbeddedServer() as faulty:
        faulty.inject(Cut(3), verb="get", times=None)
        faulty.inject(Close(when="before"), verb="set", times=None)
        clients = [
            Client(server.address, timeout=PATIENCE, serde=serde, key_prefix=prefix)
            for serde, prefix in (
                (JSONSerde(), b""),
                (SignedSerde(b"secret" * 4, JSONSerde()), b"signed:"),
            )
        ]
        unreliable = Client(faulty.address, timeout=PATIENCE, ignore_exc=False)
        usual = [call for client in clients for call in command_list(client, keys, values)]
        rare = [call for one in clients for call in reconnections(one, unreliable, keys[0])]
        given = errors = 0

        def run(most: int) -> None:
            nonlocal given, errors
            until = given + most
            turn = 0
            while given < until:
                calls = usual if turn % 40 else rare
                turn += 1
                for call in calls:
                    given += 1
                    try:
                        call()
                    except (MemcacheError, OSError):
                        errors += 1

        def counted() -> dict[str, Any]:
            gc.collect()
            return {
                "resident": resident(),
                "blocks": sys.getallocatedblocks(),
                "held": sum(map(sys.getrefcount, [*keys, *values])),
                "references": references(),
            }

        run(max(commands // 5, 5000))
        counted()
        before = counted()
        errors = 0
        start = given
        run(commands)
        after = counted()
        growth = {name: after[name] - before[name] for name in GROWTH_MOST}
        return {**growth, "commands": given - start, "errors": errors}


def main() -> int:
    report = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
    print(json.dumps(report))
    return any(report[name] > most for name, most in GROWTH_MOST.items())


if __name__ == "__main__":
    sys.exit(main())
