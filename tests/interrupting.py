"""A program that interrupts commands at random moments, and looks whether any later one is answered
with what belongs to another.  `test_interruptions.py` runs it in processes of their own:

    python -m interrupting ADDRESS HOW EXCHANGE COMMAND TIMES SEED

HOW is ``signal`` (KeyboardInterrupt from a real signal), ``exception`` (raised by another thread)
or ``gevent`` (a gevent.Timeout, in many greenlets); EXCHANGE is one of `exchanges.MODULES`, or
``gevent`` or ``patched`` for gevent's sockets as `socket_module` or after ``monkey.patch_all()``,
or ``pooled`` for a client of one connection.  Where ADDRESS is several with commas between them,
they are the nodes of a HashClient.
It prints, as JSON, how many interruptions landed within the command, and what went wrong.
"""

from __future__ import annotations

import sys

if "patched" in sys.argv:  # before anything else is imported
    from gevent import monkey

    monkey.patch_all()

import contextlib
import ctypes
import gc
import itertools
import json
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from cymemcache import Client, HashClient, PooledClient
from cymemcache.limited import LimitedPool
from exchanges import MODULES, open_sockets
from wire import PATIENCE

STEP = 10**9  # between the counters: each has numbers of its own
BATCH = 10
GREENLETS = 24
ROUNDS_MOST = 50  # per interruption that is to land


class Interrupted(BaseException):
    """What another thread raises in ours."""


class Wrong(Exception):
    """A command was answered with what is not its own."""


class Subject:
    """One user of the client, with keys of its own and the knowledge of what they can hold."""

    def __init__(self, client: Any, name: str, number: int, choice: random.Random) -> None:
        self.client = client
        self.choice = choice
        self.keys = [f"{name}-{index}" for index in range(BATCH)]
        self.written = [f"{name}-written-{index}" for index in range(BATCH)]
        self.counter = f"{name}-counter"
        self.at_least = self.at_most = number * STEP
        self.generation = 0
        client.set(self.counter, b"%d" % self.at_least, noreply=False)
        client.set_many({key: self.value(key, 0) for key in self.keys}, noreply=False)
        self.set_many()

    def value(self, key: str, generation: int) -> bytes:
        return f"{key}:{generation}:".encode() + b"." * (generation % 7 * 300)

    # -- the commands that are interrupted ---------------------------------------------------------

    def get(self) -> None:
        key = self.choice.choice(self.keys)
        self.expect(self.client.get(key), self.value(key, 0))

    def get_many(self) -> None:
        keys = self.choice.sample(self.keys, self.choice.randrange(2, BATCH + 1))
        self.expect(self.client.get_many(keys), {key: self.value(key, 0) for key in keys})

    def set_many(self) -> None:
        self.generation += 1
        items = {key: self.value(key, self.generation) for key in self.written}
        self.expect(self.client.set_many(items, noreply=False), [])

    def incr(self) -> None:
        self.at_most += 1  # executed or not, where it is interrupted
        number = self.client.incr(self.counter, 1)
        if not isinstance(number, int) or not self.at_least < number <= self.at_most:
            raise Wrong(f"incr: {number} is not in {self.at_least} .. {self.at_most}")
        self.at_least = number  # what was interrupted may still be executed

    # -- what is looked at after each interruption -------------------------------------------------

    def look(self) -> None:
        self.get()
        self.incr()
        absent = self.choice.choice(self.keys) + "-absent"
        self.expect(self.client.get(absent, "miss"), "miss")
        if self.choice.random() < 0.25:
            self.get_many()
            for key, value in self.client.get_many(self.written).items():
                found, generation, _ = value.split(b":")
                if found != key.encode() or not 0 < int(generation) <= self.generation:
                    raise Wrong(f"{key} holds {value[:40]!r}, last written {self.generation}")
                self.expect(value, self.value(key, int(generation)))

    @staticmethod
    def expect(found: Any, right: Any) -> None:
        if found != right:
            raise Wrong(f"{str(found)[:100]} instead of {str(right)[:100]}")


@contextlib.contextmanager
def interrupted_at(number: int, file: str) -> Iterator[None]:
    """Raise `Interrupted` at the line that is that number of those run in `file`."""
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != file:
            return None
        if event == "line" and next(lines) == number:
            raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def within_the_client(traceback: TracebackType | None) -> bool:
    """Whether it was raised below a method of the client."""
    while traceback is not None:
        if "cymemcache" in traceback.tb_frame.f_code.co_filename:
            return True
        traceback = traceback.tb_next
    return False


def by_signals(subject: Subject, command: Callable[[], None], times: int) -> int:
    """KeyboardInterrupt, from a timer of the kernel's."""
    rung = done = False

    def ring(number: int, frame: object) -> None:
        nonlocal rung
        rung = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, ring)
    span = 1e-3  # seconds within which it comes; finds by itself how long a command takes
    landed = 0

    # A function of its own: what is raised at a loop's jump back can miss a handler around it.
    def attempt() -> None:
        nonlocal rung, done
        rung = done = False
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + subject.choice.random() * span)
        command()
        done = True
        # None may come later.  (One can be lost: a finalizer's exceptions are ignored.)
        while not rung:
            time.sleep(0)  # the interpreter can overlook a signal until it takes the GIL again

    for _ in range(times * ROUNDS_MOST):
        if landed == times:
            break
        try:
            attempt()
        except KeyboardInterrupt as error:
            landed += within_the_client(error.__traceback__)
        span = span * 0.9 if done else min(span * 1.1, 0.01)
        subject.look()
    return landed


def by_another_thread(subject: Subject, command: Callable[[], None], times: int) -> int:
    """An exception that another thread raises in this one."""
    sys.setswitchinterval(1e-5)
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    main = ctypes.c_ulong(threading.get_ident())
    go = threading.Semaphore(0)
    going = True
    raised = done = False
    steps = 0
    span = 1000.0  # of steps within which it comes; finds by itself how long a command takes

    def work() -> None:
        nonlocal raised
        while True:
            go.acquire()
            if not going:
                return
            for _ in range(steps):
                pass
            raise_in(main, ctypes.py_object(Interrupted))
            raised = True

    thread = threading.Thread(target=work)
    thread.start()
    landed = 0

    def attempt() -> None:  # a function of its own, as above
        nonlocal raised, done
        raised = done = False
        go.release()
        command()
        done = True
        while not raised:
            time.sleep(0)
        time.sleep(0)

    try:
        for _ in range(times * ROUNDS_MOST):
            if landed == times:
                break
            steps = int(subject.choice.random() * span)
            try:
                attempt()
            except Interrupted as error:
                landed += within_the_client(error.__traceback__)
            span = max(span * 0.9, 1.0) if done else min(span * 1.2, 3000.0)
            subject.look()
    finally:
        going = False
        go.release()
        thread.join()
    return landed


def by_gevent(subjects: list[Subject], name: str, times: int) -> int:
    """A gevent.Timeout, with many greenlets on one client so that it lands in the middle."""
    import gevent

    landed = rounds = 0

    def interrupt(victim: Any, turns: int, timeout: BaseException) -> None:
        for _ in range(turns):
            gevent.sleep(0)
        victim.throw(timeout)

    def work(subject: Subject) -> None:
        nonlocal landed, rounds
        command = getattr(subject, name)
        while landed < times and rounds < times * ROUNDS_MOST:
            rounds += 1
            # Its own timer counts whole milliseconds: too coarse to land within a command.
            timeout = gevent.Timeout(None)
            turns = subject.choice.randrange(6)
            try:
                gevent.spawn(interrupt, gevent.getcurrent(), turns, timeout)
                command()
                gevent.sleep(PATIENCE)  # it comes in any case, so that none comes later
            except gevent.Timeout as error:
                if error is not timeout:
                    raise
                landed += within_the_client(error.__traceback__)
            subject.look()

    greenlets = [gevent.spawn(work, subject) for subject in subjects]
    gevent.joinall(greenlets, raise_error=True)
    return landed


@contextlib.contextmanager
def no_descriptor_leaked(client: Any, most: int) -> Iterator[None]:
    """Every socket to a server is one that its client's pool knows of, and none is left."""
    yield
    gc.collect()
    clients = list(client.clients.values()) if isinstance(client, HashClient) else [client]
    for one in clients:
        pool = one._pool
        known = {connection.sock.fileno() for connection in [*pool._idle, *pool._held.values()]}
        peers = peers_of_sockets()
        found = {number for number, peer in peers.items() if peer == one.server}
        # One that the server has reset meanwhile has no peer any more.
        strange = {
            number for number in known if peers.get(number, "closed") not in (one.server, None)
        }
        if found - known or strange:
            raise Wrong(f"connections {found} are open, the pool knows of {known}")
        if isinstance(pool, LimitedPool) and pool.used:
            raise Wrong(f"of the slots {pool.used} nobody has the connections")
        # A node of several may have been interrupted last.
        if not (1 if client is one else 0) <= len(known) <= most:
            raise Wrong(f"{len(known)} connections for {most} users")
    client.close()
    if any(connected_to(one.server) for one in clients):
        raise Wrong("connections are open after close()")


def connected_to(address: tuple[str, int]) -> set[int]:
    return {number for number, peer in peers_of_sockets().items() if peer == address}


def peers_of_sockets() -> dict[int, Any]:
    """By its descriptor, to whom each socket is connected; None where to nobody."""
    peers: dict[int, Any] = {}
    for number in open_sockets():
        sock = socket.socket(fileno=number)
        try:
            peers[number] = sock.getpeername()
        except OSError:
            peers[number] = None
        finally:
            sock.detach()
    return peers


def main() -> None:
    server, how, exchange, name, times, seed = sys.argv[1:]
    choice = random.Random(int(seed))
    if exchange == "gevent":
        from gevent import socket as module
    else:
        module = socket if exchange in ("patched", "pooled") else MODULES[exchange]
    options: dict[str, Any] = {"timeout": PATIENCE, "socket_module": module}
    if exchange == "pooled":  # a slot that is lost is missed at once
        options |= {"max_pool_size": 1, "pool_wait_timeout": 0}
    client: Any
    if "," in server:
        client = HashClient(server.split(","), use_pooling=exchange == "pooled", **options)
    else:
        client = (PooledClient if exchange == "pooled" else Client)(server, **options)
    users = GREENLETS if how == "gevent" else 1
    subjects = [Subject(client, f"{name}{n}", n + 1, choice) for n in range(users)]
    landed, wrong = 0, ""
    try:
        with no_descriptor_leaked(client, users):
            if how == "gevent":
                landed = by_gevent(subjects, name, int(times))
            else:
                interrupt = by_signals if how == "signal" else by_another_thread
                landed = interrupt(subjects[0], getattr(subjects[0], name), int(times))
            for subject in subjects:
                subject.look()
    except Wrong as error:
        wrong = str(error)
    print(json.dumps({"landed": landed, "wrong": wrong}))


if __name__ == "__main__":
    main()
