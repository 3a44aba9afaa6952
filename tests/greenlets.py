"""Many greenlets on one client, in a process of its own: what tests/integration/test_greenlets.py
runs, as ``python greenlets.py LIBRARY SOCKETS CLIENT PID ADDRESS [ADDRESS]``.

LIBRARY is gevent or eventlet.  SOCKETS is ``module`` (its sockets as `socket_module`), ``before``
or ``after`` (everything is patched before or after the package is imported).  PID is the memcached
at the last ADDRESS, which is stopped and goes on.  It prints what happened, as a dict: how many
values were right and wrong, how many timeouts came, and for how long at most, in seconds, nobody
else ran while the greenlets worked, while the server was stopped, and while a connection was not
accepted.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

LIBRARY, SOCKETS, KIND, PID, *ADDRESSES = sys.argv[1:]


def patch() -> None:
    if LIBRARY == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        import eventlet

        eventlet.monkey_patch()


if SOCKETS == "before":
    patch()

import cymemcache  # noqa: E402

if SOCKETS == "after":
    patch()

if LIBRARY == "gevent":
    import gevent as library
    from gevent import socket
else:
    import eventlet as library
    from eventlet.green import socket

Timeout = library.Timeout
GREENLETS = 200
ROUNDS = 10
STOPPED = 2.0  # seconds


class Ticker:
    """Measures for how long at most other greenlets did not get to run."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._ends = False
        self._greenlet = library.spawn(self._run)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ends:
            library.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now

    def end(self) -> float:
        self._ends = True
        library.sleep(0.01)
        return self.longest


def client(addresses: list[Any], **options: Any) -> Any:
    options = {"timeout": 60, "default_noreply": False, **options}
    if SOCKETS == "module":
        options["socket_module"] = socket
    if KIND == "HashClient":
        return cymemcache.HashClient(addresses, **options)
    return getattr(cymemcache, KIND)(addresses[-1], **options)


def everybody(work: Any) -> None:
    greenlets = [library.spawn(work, number) for number in range(GREENLETS)]
    for greenlet in greenlets:
        greenlet.get() if LIBRARY == "gevent" else greenlet.wait()


def working(shared: Any, counts: dict[str, int]) -> None:
    """Every greenlet reads what it has written, while timeouts interrupt it."""

    def work(number: int) -> None:
        chance = random.Random(number)
        life = 0
        for turn in range(ROUNDS):
            keys = [f"{number}-{life}-{part}" for part in range(4)]
            values = {key: f"{key} {turn}".encode() for key in keys}
            interrupted = chance.random() < 0.3
            timeout = Timeout(chance.random() * 0.02) if interrupted else None
            if timeout is not None and LIBRARY == "gevent":
                timeout.start()
            try:
                shared.set_many(values)
                check(shared.get(keys[0]), values[keys[0]])
                check(shared.get_many(keys), values)
                last = f"{keys[1]} last".encode()
                shared.set(keys[1], last, noreply=True)
                check(shared.get(keys[1]), last)
            except Timeout as error:
                if error is not timeout:
                    raise
                counts["timeouts"] += 1
                life += 1  # the server may still do, at any time, what it was told before
            finally:
                if timeout is not None:
                    timeout.cancel()

    def check(found: Any, written: Any) -> None:
        if found == written:
            counts["right"] += 1
        else:
            counts["wrong"] += 1
            print(f"{found!r} instead of {written!r}", file=sys.stderr)

    everybody(work)


def stopped(shared: Any, counts: dict[str, int]) -> None:
    """The server does not answer for a while, and everybody waits for it."""

    def work(number: int) -> None:
        keys = [f"stop-{number}-{part}" for part in range(4)]
        shared.set_many(dict.fromkeys(keys, b"value"))
        started.append(number)
        while not held:
            library.sleep(0.005)
        counts["right"] += shared.get_many(keys) == dict.fromkeys(keys, b"value")
        counts["right"] += shared.get(keys[0]) == b"value"

    def hold() -> None:
        while len(started) < GREENLETS:
            library.sleep(0.005)
        os.kill(int(PID), signal.SIGSTOP)
        held.append(True)
        try:
            library.sleep(STOPPED)
        finally:
            os.kill(int(PID), signal.SIGCONT)

    started: list[int] = []
    held: list[bool] = []
    holder = library.spawn(hold)
    everybody(work)
    holder.get() if LIBRARY == "gevent" else holder.wait()


def unaccepted() -> None:
    """A connection that nobody accepts ends by its timeout."""
    import socket as plain

    listener = plain.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):  # until the line is full
        waiting.append(plain.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(listener.getsockname())
    library.sleep(0.1)
    began = time.monotonic()
    try:
        client([listener.getsockname()], connect_timeout=STOPPED).get("key")
    except OSError:
        pass
    assert time.monotonic() - began > STOPPED / 2, "the connection was accepted"
    for sock in [listener, *waiting]:
        sock.close()


def main() -> None:
    addresses = [(host, int(port)) for host, _, port in (one.rpartition(":") for one in ADDRESSES)]
    counts = {"right": 0, "wrong": 0, "timeouts": 0}
    shared = client(addresses)
    gaps = {}
    for name, phase in (("working", working), ("stopped", stopped)):
        ticker = Ticker()
        phase(shared, counts)
        gaps[name] = ticker.end()
    ticker = Ticker()
    unaccepted()
    gaps["unaccepted"] = ticker.end()
    shared.close()
    print({**counts, **gaps})


main()
