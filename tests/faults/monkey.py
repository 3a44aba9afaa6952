"""What befalls the servers of a cluster, and its list of them: kills, restarts, stops, changes.

Whatever is done here is undone in the end.  The servers of nobody else may be touched.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

from clusters import name_of
from cymemcache import HashClient
from cymemcache.testing import MemcachedProcess

# How often each is done to a server that runs.
ACTIONS = ("kill", "kill", "stop", "stop", "stop", "remove")


class Monkey:
    """Does things to `processes`, the servers of `cluster`, and in the end undoes them."""

    def __init__(
        self, cluster: HashClient, processes: list[MemcachedProcess], choice: random.Random
    ) -> None:
        self._cluster = cluster
        self._processes = processes
        self._choice = choice
        self._killed: set[MemcachedProcess] = set()
        self._stopped: set[MemcachedProcess] = set()
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """Do something to one of them, or undo what was done to it."""
        process = self._choice.choice(self._processes)
        if process in self._killed:
            self._restart(process)
        elif process in self._stopped:
            self._continue(process)
        else:
            action = self._choice.choice(ACTIONS)
            if action == "kill":
                os.kill(process.pid, signal.SIGKILL)
                self._killed.add(process)
            elif action == "stop":
                os.kill(process.pid, signal.SIGSTOP)
                self._stopped.add(process)
            elif name_of(process.address) in self._cluster.clients:
                self._cluster.remove_server(process.address)
            self.done[action] += 1
        if self._choice.random() < 0.5:
            self._add()

    def undo(self) -> None:
        """Let all servers run, and be nodes of the cluster."""
        for process in list(self._stopped):
            self._continue(process)
        for process in list(self._killed):
            self._restart(process)
        self._add()

    def _add(self) -> None:
        for process in self._processes:
            if name_of(process.address) not in self._cluster.clients:
                self._cluster.add_server(process.address)
                self.done["add"] += 1

    def _restart(self, process: MemcachedProcess) -> None:
        process.stop()
        process.start()
        self._killed.discard(process)
        self.done["restart"] += 1

    def _continue(self, process: MemcachedProcess) -> None:
        os.kill(process.pid, signal.SIGCONT)
        self._stopped.discard(process)
        self.done["continue"] += 1


class Lateness(threading.Thread):
    """How late a thread that sleeps wakes up here: so much the machine adds to anything."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0  # seconds
        self.going = True

    def run(self) -> None:
        while self.going:
            began = time.monotonic()
            time.sleep(0.02)
            self.most = max(self.most, time.monotonic() - began - 0.02)
