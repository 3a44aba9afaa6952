"""Random commands on one client, in several threads, through a proxy that commits faults, while
interruptions fall on the threads; every result is held against what can be (`model`).

    python -m faults.chaos [--seconds 10] [--seed SEED] [--client NAME] [--faults MODE]
                           [--storm STORM] [--signed]

It prints a report as JSON.  Where something was wrong it says so, with the command that repeats it,
and ends with 1.  One user alone (``--users 1``) repeats exactly, several as well as threads do.
"""

from __future__ import annotations

import sys

if "greenlets" in sys.argv:  # before anything else is imported
    from gevent import monkey

    monkey.patch_all()

import argparse
import ctypes
import faulthandler
import json
import random
import signal
import ssl
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from certificates import Authority, memcached_arguments
from clusters import name_of
from cymemcache import Client, HashClient, PooledClient, __impl__
from cymemcache.limited import LimitedPool
from cymemcache.log import logger
from cymemcache.serde import SignedSerde
from cymemcache.testing import MemcachedProcess
from faults.model import NODE_RETRY_SECONDS, User, Wrong
from faults.proxy import FaultProxy
from faults.schedule import MODES
from interrupting import Interrupted, no_descriptor_leaked, within_the_client
from interrupting import Wrong as Leaked
from wire import PATIENCE

TIMEOUT = 0.3  # seconds, of the client: many faults cost as much
USERS = 4
NODES = 3  # of a cluster


class Careless(Client):
    """Goes on with a socket on which a command has failed: what the model is there to notice."""

    def _failed(self, connection: Any, error: BaseException, *_: Any) -> Any:
        if connection is not None:
            kept = self._adopt(connection.sock)
            kept.generation = connection.generation
            connection.release()
            self._pool.give(kept)
        raise error


class HastyPool(LimitedPool):
    def _acknowledged(self, connection: Any) -> bool:
        return True


class Hasty(PooledClient):
    """Takes a thread's connection away without waiting for its noreply commands."""

    def _pool_of(self, dial: Any, options: dict[str, Any]) -> Any:
        pool: Any = super()._pool_of(dial, options)
        pool.__class__ = HastyPool
        return pool


class Subject(NamedTuple):
    """A client that can be tried: its class, options of its own, whether keys stay in place, and
    whether its servers speak TLS."""

    kind: type
    options: dict[str, Any]
    exact: bool = True
    tls: bool = False

    @property
    def nodes(self) -> int:
        return NODES if issubclass(self.kind, HashClient) else 1

    def connections(self, users: int) -> int:
        """How many it may have at most to each of its servers."""
        most: int = self.options.get("max_pool_size", 2 * users)
        return most


# Users have to wait for connections.
FEWER = {"max_pool_size": USERS - 1}
# Nodes that fail are never dead, so no key ever moves.
STEADY = {"retry_attempts": 1 << 30, "retry_timeout": NODE_RETRY_SECONDS}
# They die and come back all the time.
MORTAL = {
    "retry_attempts": 1,
    "retry_timeout": NODE_RETRY_SECONDS,
    "dead_timeout": 2 * NODE_RETRY_SECONDS,
}
#: Clients that can be tried.
CLIENTS = {
    "Client": Subject(Client, {}),
    "PooledClient": Subject(PooledClient, FEWER),
    "HashClient": Subject(HashClient, STEADY),
    "HashClient, pooled": Subject(HashClient, {**STEADY, **FEWER, "use_pooling": True}),
    "HashClient, mortal": Subject(HashClient, MORTAL, exact=False),
    "Client, TLS": Subject(Client, {}, tls=True),
    "HashClient, TLS": Subject(HashClient, STEADY, tls=True),
    # What the model must find wrong; the keys of the last one move.
    "Careless": Subject(Careless, {}),
    "Hasty": Subject(Hasty, FEWER),
    "Fickle": Subject(HashClient, MORTAL),
}


class Run:
    """The users of one client, and what becomes of them."""

    def __init__(self, users: list[User], seed: str, seconds: float) -> None:
        self.users = users
        self.random = random.Random(seed)
        self.until = time.monotonic() + seconds
        self.landed = 0
        self.wrong: list[str] = []

    def going(self) -> bool:
        return not self.wrong and time.monotonic() < self.until

    def work(self, user: User, enough: Callable[[], bool] = bool) -> None:
        """Give commands until the time is up, or something is wrong, or an interruption comes."""
        try:
            user.forget()
            while self.going() and not enough():
                user.step()
        except Exception as error:
            self.blame(error)
        except BaseException as error:
            self.landed += within_the_client(error.__traceback__)
            raise

    def blame(self, error: Exception) -> None:
        self.wrong.append("".join(traceback.format_exception(error)[-6:]))

    # -- storms ------------------------------------------------------------------------------------

    def calm(self) -> None:
        """Threads that nobody interrupts."""
        self.join([self.start(user) for user in self.users])

    def exceptions(self) -> None:
        """Exceptions that another thread raises in theirs, which each survives in a new thread."""
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        threads = {user: self.start(user) for user in self.users}
        while self.going():
            user = self.random.choice(self.users)
            if not threads[user].is_alive():
                threads[user] = self.start(user)
            time.sleep(self.random.uniform(0, 0.004))
            raise_in(ctypes.c_ulong(threads[user].ident or 0), ctypes.py_object(Interrupted))
        self.join(list(threads.values()))

    def signals(self) -> None:
        """KeyboardInterrupts in the main thread, which is one of the users."""
        rung = False

        def ring(number: int, frame: object) -> None:
            nonlocal rung
            rung = True
            raise KeyboardInterrupt

        def attempt() -> None:
            nonlocal rung
            rung = False
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(1e-5, 0.02))
            # One that falls into a finalizer is lost.
            self.work(self.users[0], lambda: rung)
            while not rung:  # none may come later
                time.sleep(0)

        signal.signal(signal.SIGALRM, ring)
        # The kernel must have nobody else to give them to.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        threads = [self.start(user) for user in self.users[1:]]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        while self.going():
            try:
                attempt()
            except KeyboardInterrupt:
                pass
        self.join(threads)

    def greenlets(self) -> None:
        """Greenlets that are killed wherever they wait, and replaced."""
        import gevent

        def start(user: User) -> Any:
            return gevent.spawn(self.survive, user)

        running = {user: start(user) for user in self.users}
        while self.going():
            gevent.sleep(self.random.uniform(0, 0.003))
            user = self.random.choice(self.users)
            running[user].kill()
            running[user] = start(user)
        gevent.joinall(list(running.values()), timeout=PATIENCE)
        if not all(one.dead for one in running.values()):
            self.wrong.append("a greenlet hangs")

    def futures(self) -> None:
        """Steps as futures, which are cancelled, as are whole executors."""
        executor = ThreadPoolExecutor(2)
        waiting: dict[User, Future[None]] = {}
        renew_at = time.monotonic()
        while self.going():
            user = self.random.choice(self.users)
            future = waiting.get(user)
            if future is None or future.done():
                self.landed += future is not None and future.cancelled()
                waiting[user] = executor.submit(self.step, user)
            else:
                future.cancel()
            time.sleep(self.random.uniform(0, 0.001))
            if time.monotonic() > renew_at:
                executor.shutdown(wait=False, cancel_futures=True)
                executor = ThreadPoolExecutor(2)
                renew_at = time.monotonic() + 0.2
        executor.shutdown(cancel_futures=True)
        end = time.monotonic() + PATIENCE
        while not all(future.done() for future in waiting.values()):
            if time.monotonic() > end:
                self.wrong.append("a future hangs")
                break
            time.sleep(0.01)

    def step(self, user: User) -> None:
        try:
            user.step()
        except Exception as error:
            self.blame(error)

    def survive(self, user: User) -> None:
        try:
            self.work(user)
        except BaseException:
            pass

    def start(self, user: User) -> threading.Thread:
        thread = threading.Thread(target=self.survive, args=(user,), daemon=True)
        thread.start()
        return thread

    def join(self, threads: list[threading.Thread]) -> None:
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                faulthandler.dump_traceback()
                raise Wrong(f"{thread} hangs")


STORMS = ("calm", "exceptions", "signals", "greenlets", "futures")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    parser.add_argument("--client", choices=CLIENTS, default="Client")
    parser.add_argument("--faults", choices=MODES, default="exact")
    parser.add_argument("--storm", choices=STORMS, default="calm")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--signed", action="store_true")
    given = parser.parse_args()
    if given.storm != "calm":
        sys.setswitchinterval(1e-6)
        # Interruptions that fall into a finalizer, or into the last lines of a thread.
        sys.unraisablehook = threading.excepthook = lambda _: None
    # Neither the locks of logging's handlers nor those of an import survive an interruption.
    logger().disabled = True
    "a host's name".encode("idna")
    wrong: list[str] = []
    subject = CLIENTS[given.client]
    with ExitStack() as stack:
        arguments: tuple[str, ...] = ()
        trusting = None
        if subject.tls:
            authority = Authority(Path(stack.enter_context(TemporaryDirectory())))
            trusting = ssl.create_default_context(cafile=str(authority.certificate))
            arguments = memcached_arguments(*authority.issue("127.0.0.1"))
        servers = [stack.enter_context(MemcachedProcess(*arguments)) for _ in range(subject.nodes)]
        stream = "opaque" if subject.tls else "text"
        proxies = [  # which start at the same time
            FaultProxy(server.address, given.faults, f"{given.seed}-{number}", TIMEOUT, stream)
            for number, server in enumerate(servers)
        ]
        for proxy in proxies:
            stack.enter_context(proxy)
        serde = SignedSerde(b"the secret of the test") if given.signed else None
        options = {
            "timeout": TIMEOUT,
            "connect_timeout": TIMEOUT,
            "serde": serde,
            "tls_context": trusting,
        }
        addresses = [proxy.address for proxy in proxies]
        where = addresses if subject.nodes > 1 else addresses[0]
        client = subject.kind(where, **options, **subject.options)
        pids = {
            name_of(address): server.pid for address, server in zip(addresses, servers, strict=True)
        }
        # TLS notices whatever was changed on the way.
        exact = subject.exact and (given.faults == "exact" or subject.tls)
        flips = given.faults == "flips" and not subject.tls
        users = [
            User(
                client,
                pids,
                f"user{number}",
                given.seed,
                exact=exact,
                trusting=flips and not given.signed,
                plain=not given.signed,
            )
            for number in range(given.users)
        ]
        run = Run(users, given.seed, given.seconds)
        try:
            with no_descriptor_leaked(client, subject.connections(given.users)):
                getattr(run, given.storm)()
                wrong = run.wrong
                if not any(user.answered for user in users):
                    wrong.append("no command was answered, so nothing is shown")
                for proxy in proxies:
                    proxy.calm()
                if not wrong:
                    for user in users:
                        user.forget()
                        user.recovers()
        except (Wrong, Leaked) as error:
            wrong.append(str(error))
    report = {
        "implementation": __impl__,
        "commands": sum(user.commands for user in users),
        "answered": sum(user.answered for user in users),
        "landed": run.landed,
        "faults": sum((Counter(proxy.counts) for proxy in proxies), Counter[str]()),
        "errors": sum((user.errors for user in users), Counter[str]()),
        "rejected": serde.rejected if serde else 0,
        "wrong": wrong,
    }
    print(json.dumps(report))
    if wrong:
        repeat = [*sys.argv[1:], *([] if "--seed" in sys.argv else ["--seed", given.seed])]
        print(*wrong, sep="\n", file=sys.stderr)
        print("repeat with: python -m faults.chaos", *repeat, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
