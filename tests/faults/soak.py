"""Many threads on one cluster for as long as wanted, while its servers are killed, stopped and
restarted, and nodes removed and added; a live line tells how it goes, a verdict how it went.

    python -m faults.soak [--minutes 10] [--kind KIND] [--seed SEED]

Whatever happens: a value that is read was written under its key; only documented errors are raised;
nobody is held for longer than the timeouts allow; once the servers run again they are all used
again; no connection, descriptor, thread, slot or memory is lost; and the counters agree with what
the threads have seen.  It ends with 1 where anything of that was otherwise.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import signal
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, TypeAlias

from cymemcache import HashClient, MemcacheUnexpectedCloseError, __impl__
from cymemcache.counters import Counters
from cymemcache.descriptors import prepare
from cymemcache.testing import MemcachedProcess
from faults.crowd import Book, Latencies, User
from faults.memory import resident
from faults.monkey import Lateness, Monkey
from interrupting import connected_to
from wire import PATIENCE, wait_until

NODES = 5
THREADS = 64
TIMEOUT = 0.75  # seconds, and as much for connect_timeout
PAUSE = 0.8  # seconds, the most between two things that are done to the servers
TICK = 0.5  # seconds between two looks at the users
LINES = 5.0  # seconds between two lines where there is no terminal

#: By name, what cluster it is.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"use_pooling": False, "ignore_exc": False},
    "pooled": {"use_pooling": True, "max_pool_size": 8, "ignore_exc": True},
}

WARM_UP = 0.2  # of the time
# Bytes by which the process may be larger at the end than after the warm-up, and the seconds from
# which on that is looked at: in the first ones the allocator has not seen the most it ever will.
GROWTH_MOST = 16 << 20
GROWTH_SECONDS = 120.0

Show: TypeAlias = Callable[[str], None]


def allowed(kind: str, lateness: float) -> float:
    """Seconds that a call may take on a machine on which a thread wakes up so much too late."""
    timeouts = 2 * TIMEOUT
    if KINDS[kind]["use_pooling"]:
        # They may stand in line as well, after the nodes that need no waiting, and before
        # another's turn.
        timeouts += 3 * TIMEOUT
    return timeouts + 2.0 + 5 * lateness


@dataclass
class Report:
    """What one cluster went through."""

    kind: str
    seconds: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)
    commands: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # also those that ignore_exc hides
    befell: Counter[str] = field(default_factory=Counter)
    lateness: float = 0.0
    recovery: float = 0.0
    warm: int = 0  # bytes of the process after the warm-up
    end: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        grown = f"{mebibytes(self.warm)} after the warm-up, {mebibytes(self.end)} at the end"
        return (
            f"{self.kind}: {self.latencies.count:,} calls, "
            f"{self.latencies.count / max(self.seconds, 1e-9):,.0f} a second, "
            f"p99 {milliseconds(self.latencies.within(0.99))}, "
            f"longest {milliseconds(self.latencies.most)} "
            f"(the machine was late by {milliseconds(self.lateness)})\n"
            f"  well: {listed(self.commands)}\n"
            f"  errors: {listed(self.errors)}\n"
            f"  servers: {listed(self.befell)}; all used again after "
            f"{milliseconds(self.recovery)}\n"
            f"  memory: {grown}"
        )


class Soak:
    """One cluster and its users, for some seconds."""

    def __init__(
        self,
        kind: str,
        processes: list[MemcachedProcess],
        seed: str,
        make: Callable[..., HashClient] = HashClient,
    ) -> None:
        self.report = Report(kind)
        self.processes = processes
        self.cluster = make(
            [process.address for process in processes],
            timeout=TIMEOUT,
            connect_timeout=TIMEOUT,
            retry_attempts=1,
            retry_timeout=0.2,
            dead_timeout=0.5,
            **KINDS[kind],
        )
        book = Book()
        self.users = [
            User(self.cluster, random.Random(f"{seed} {kind} {number}"), book)
            for number in range(THREADS)
        ]
        self.random = random.Random(f"{seed} {kind}")
        self.monkey = Monkey(self.cluster, processes, self.random)
        self.lateness = Lateness()
        self.until = 0.0
        self.counted: Counters = self.cluster.counters

    def run(self, seconds: float, show: Show) -> Report:
        """Let it run, and look at it until it has ended, and at what is left of it."""
        report = self.report
        began = monotonic()
        self.until = began + seconds
        monkey = threading.Thread(target=self.guarded, args=(self.trouble,), daemon=True)
        users = [
            threading.Thread(target=self.guarded, args=(self.work, user), daemon=True)
            for user in self.users
        ]
        try:
            for thread in [self.lateness, monkey, *users]:
                thread.start()
            self.watch(began, seconds, show)
        finally:
            self.until = 0.0
            report.seconds = monotonic() - began
            end = monotonic() + PATIENCE
            for thread in [monkey, *users]:
                thread.join(max(end - monotonic(), 0))
            self.monkey.undo()
            self.lateness.going = False
            self.lateness.join()
        if any(thread.is_alive() for thread in [monkey, *users]):
            report.wrong.append("a thread hangs")
        self.sum_up()
        self.check_held()
        if not report.wrong:
            self.check_counters()
            self.check_recovery()
            self.check_slots()
        self.cluster.close()
        return report

    # -- what the threads do -----------------------------------------------------------------------

    def guarded(self, function: Callable[..., None], *args: Any) -> None:
        """Until the time is up, or something is wrong."""
        try:
            while monotonic() < self.until and not self.report.wrong:
                function(*args)
        except BaseException as error:
            self.report.wrong.append("".join(traceback.format_exception(error)[-6:]))

    def work(self, user: User) -> None:
        user.use()

    def trouble(self) -> None:
        self.monkey.act()
        sleep(self.random.uniform(0, PAUSE))

    # -- what is looked at while they do it --------------------------------------------------------

    def watch(self, began: float, seconds: float, show: Show) -> None:
        before = (began, 0)
        while monotonic() < self.until and not self.report.wrong:
            sleep(TICK)
            self.sum_up()
            self.check_held()
            self.check_growing_counters()
            now, count = monotonic(), self.report.latencies.count
            if not self.report.warm and now - began > WARM_UP * seconds:
                self.report.warm = resident()
            self.report.end = resident()
            rate = (count - before[1]) / (now - before[0])
            before = (now, count)
            show(self.line(rate, max(self.until - now, 0)))
        if seconds >= GROWTH_SECONDS:
            self.check_memory()

    def sum_up(self) -> None:
        report = self.report
        report.latencies = Latencies()
        report.commands = Counter()
        for user in self.users:
            report.latencies.add_all(user.latencies)
            report.commands.update(user.done.copy())
        report.errors = Counter(self.cluster.counters.errors)
        report.befell = self.monkey.done.copy()
        report.lateness = self.lateness.most

    def line(self, rate: float, left: float) -> str:
        report = self.report
        minutes, seconds = divmod(round(left), 60)
        return (
            f"{report.kind}, {minutes}:{seconds:02} left: {rate:,.0f} commands/s, "
            f"p99 {milliseconds(report.latencies.within(0.99))}, RSS {mebibytes(report.end)}, "
            f"servers: {listed(report.befell)}, errors: {listed(report.errors)}"
        )

    def check_held(self) -> None:
        most = allowed(self.report.kind, self.report.lateness)
        now = monotonic()
        begun = [since for user in self.users if (since := user.since) is not None]
        longest = max(self.report.latencies.most, *(now - since for since in begun), 0.0)
        if longest > most:
            self.report.wrong.append(f"a call is held for {longest:.1f} s, more than {most:.1f} s")

    def check_growing_counters(self) -> None:
        before, self.counted = self.counted.as_dict(), self.cluster.counters
        now = self.counted.as_dict()
        kinds_before, kinds = before.pop("errors"), now.pop("errors")
        for old, new in ((before, now), (kinds_before, kinds)):
            for name, number in old.items():
                if new.get(name, 0) < number:
                    self.report.wrong.append(f"counter {name} fell from {number}: {new}")

    def check_memory(self) -> None:
        grown = self.report.end - self.report.warm
        if grown > GROWTH_MOST:
            self.report.wrong.append(f"the process has grown by {mebibytes(grown)}")

    # -- what is looked at in the end --------------------------------------------------------------

    def check_counters(self) -> None:
        """Whether the client has counted what its users have seen."""
        counters = self.cluster.counters
        found = sum((user.found for user in self.users), Counter[str]())
        errors = sum((user.errors for user in self.users), Counter[str]())
        commands = self.report.commands
        # What is at least as much as the other.
        pairs = {"noreply commands without an error": (0, counters.noreply_errors)}
        pairs["hits"] = (counters.hits, found["hit"])
        if self.cluster.ignore_exc:
            pairs["hits seen"] = (found["hit"], counters.hits)
            pairs["misses seen"] = (found["miss"], counters.misses)
        else:
            # Some nodes' parts of a command that raises may have come to a good end.
            pairs["misses"] = (counters.misses, found["miss"])
            pairs["commands"] = (counters.commands, commands.total() - commands["close"])
            pairs |= {kind: (counters.errors.get(kind, 0), errors[kind]) for kind in errors}
        for name, (more, less) in pairs.items():
            if more < less:
                self.report.wrong.append(f"{name}: {more}, should be {less} or more: {counters}")

    def check_recovery(self) -> None:
        """Whether all nodes are used again."""
        cluster = self.cluster
        items = {f"after-{number}": b"%d" % number for number in range(100)}

        def works() -> bool:
            try:
                return (
                    cluster.set_many(items, noreply=False) == []
                    and cluster.get_many(items) == items
                    and all(node.state == "up" for _, _, node in cluster._members())
                    and len(set(cluster.hasher.nodes)) == NODES
                )
            except (OSError, MemcacheUnexpectedCloseError):
                return False

        began = monotonic()
        try:
            wait_until(works)
        except AssertionError:
            states = {name: node.state for name, _, node in cluster._members()}
            self.report.wrong.append(f"not all nodes are used again after {PATIENCE} s: {states}")
        self.report.recovery = monotonic() - began

    def check_slots(self) -> None:
        for name, client in self.cluster.clients.items():
            pool = getattr(client, "client_pool", None)
            if pool is not None and (pool.used or len(pool.free) > pool.max_size):
                self.report.wrong.append(f"{name}: slots {pool.used} used, {pool.free} free")


def soak(
    kind: str,
    seconds: float,
    seed: str,
    show: Show = lambda _: None,
    make: Callable[..., HashClient] = HashClient,
) -> Report:
    """What becomes of a cluster of this kind, with servers of its own."""
    with ExitStack() as stack:
        processes = [stack.enter_context(MemcachedProcess()) for _ in range(NODES)]
        prepare()  # the descriptor that leads nowhere stays with the process
        before = left_over()
        report = Soak(kind, processes, seed, make).run(seconds, show)
        gc.collect()
        for process in processes:
            if connected := connected_to(process.address):
                report.wrong.append(f"descriptors {connected} are still connected after close()")
        now = left_over()
        if now != before:
            report.wrong.append(f"descriptors and threads: {before} before, {now} after")
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)  # a memcached takes a second to end by itself
    return report


def left_over() -> tuple[int, int]:
    """How many descriptors are open, and how many threads run."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


# -- what is shown ---------------------------------------------------------------------------------


@contextmanager
def live() -> Iterator[Show]:
    """Shows a line in the place of the one before; where there is no terminal, one now and then."""
    if sys.stdout.isatty():
        from rich.live import Live
        from rich.text import Text

        with Live() as shown:
            yield lambda line: shown.update(Text(line))
        return
    due = 0.0

    def show(line: str) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + LINES
            print(line, flush=True)

    yield show


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "none"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kind", choices=KINDS, help="both in turn, where none is given")
    parser.add_argument("--seed", default=str(random.randrange(1 << 32)))
    given = parser.parse_args()
    kinds = [given.kind] if given.kind else list(KINDS)
    logging.getLogger("cymemcache").disabled = True  # it would tell of every node's end
    print(f"{THREADS} threads, {NODES} nodes, {__impl__}, seed {given.seed}", flush=True)
    wrong: list[str] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers end, too
    # Sockets that are left to the garbage collector.
    warnings.simplefilter("error", ResourceWarning)
    sys.unraisablehook = lambda said: wrong.append(f"{said.exc_value}, {said.object}")
    for kind in kinds:
        with live() as show:
            report = soak(kind, given.minutes * 60 / len(kinds), given.seed, show)
        print(report, flush=True)
        wrong += report.wrong
    print(*wrong, "sound" if not wrong else "NOT SOUND", sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
