"""The measuring: a process per client, rounds in which all of them take turns.

A round does one workload with one client for about so many seconds; the clients take turns in
rotating order, so that whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from .clients import BARE_C, CLIENTS, POOLED
from .figures import Results
from .processes import Worker, WorkerFailed, footprint, import_time
from .servers import Servers
from .targets import AIMED_AT, COMPARED_AT_ALL
from .workloads import TIMEOUT, WORKLOADS, Setup, Workload

# How much of a round's time a workload gets that no target is about.
_LESS = 0.3
# Rounds of what is measured on whole processes, and about how long one takes, in seconds.
_PROCESS_ROUNDS = {"import": 15, "peak": 3, "idle": 3}
_PROCESS_SECONDS = {"import": 0.2, "peak": 0.5, "idle": 2.0}


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long; `seconds` is of one client in one round.

    With `pinned`, client and server share one processor wherever there is only one thread of each:
    a client's CPU time then does not depend on where the scheduler happened to put it.
    """

    workloads: Sequence[str]
    clients: Sequence[str]
    rounds: int
    seconds: float
    pinned: bool = True
    blink: bool = False  # one round, however short
    timeout: float = TIMEOUT  # seconds that a client may take for a command

    def rounds_of(self, workload: str) -> int:
        if self.blink:
            return 1
        return _PROCESS_ROUNDS.get(WORKLOADS[workload].command, self.rounds)

    def seconds_of(self, workload: str, client: str) -> float:
        """About how long the client's turn takes."""
        about = WORKLOADS[workload]
        if about.shape == "process":
            return _PROCESS_SECONDS[about.command]
        aimed_at = workload in AIMED_AT or client in COMPARED_AT_ALL
        return self.seconds * (1 if aimed_at or self.blink else _LESS)

    def total(self, workload: str) -> float:
        """About how long the workload takes with all clients, in seconds."""
        rounds = self.rounds_of(workload) + 0.5  # calibrating costs some
        return rounds * sum(self.seconds_of(workload, client) for client in self.clients)


# Told the workload, and the seconds of the plan that are behind us.
Progress = Callable[[str, float], None]


def measure(plan: Plan, results: Results, progress: Progress) -> None:
    """Measure what `plan` says into `results`."""
    processor = max(os.sched_getaffinity(0)) if plan.pinned else None
    everywhere = os.sched_getaffinity(0)
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(processor, plan.timeout))
        workers = _started(plan, stack, results)
        behind = 0.0
        for name in plan.workloads:
            workload = WORKLOADS[name]
            progress(name, behind)
            try:
                setup = servers.setup(workload)
            except RuntimeError as error:
                results.missing.append(("", name, str(error)))
            else:
                for worker in workers.values():
                    free = processor is None or workload.shape == "shared"
                    worker.place(everywhere if free else {processor})
                turns = _turns(name, workload, setup, workers, plan, results)
                _take_turns(name, turns, plan, results, progress, behind)
            behind += plan.total(name)
        progress("", behind)


def _started(plan: Plan, stack: ExitStack, results: Results) -> dict[str, Worker]:
    workers = {}
    for name in plan.clients:
        # Each client has keys of its own, all of one length.
        worker = stack.enter_context(Worker(name, f"c{list(CLIENTS).index(name)}"))
        try:
            results.versions[name] = worker.answer()
            workers[name] = worker
        except WorkerFailed as error:
            results.missing.append((name, "", str(error)))
    return workers


Turn = Callable[[], dict[str, float]]


def _turns(
    name: str,
    workload: Workload,
    setup: Setup,
    workers: dict[str, Worker],
    plan: Plan,
    results: Results,
) -> dict[str, Turn]:
    """One turn of each client that has passed its check."""
    turns: dict[str, Turn] = {}
    for client, worker in list(workers.items()):
        try:
            turn = _turn(name, workload, setup, client, worker, plan)
            if turn is not None:
                turns[client] = turn
        except CannotDo as error:
            results.missing.append((client, name, str(error)))
        except WorkerFailed as error:
            results.missing.append((client, name, str(error)))
            del workers[client]
    return turns


class CannotDo(Exception):
    """The client cannot do this workload, or does it wrong; the message says what happened."""


def _turn(
    name: str, workload: Workload, setup: Setup, client: str, worker: Worker, plan: Plan
) -> Turn | None:
    if workload.shape == "process":
        if client in (BARE_C, POOLED):
            return None
        if workload.command == "import":
            has = CLIENTS[client].module is not None
            return (lambda: import_time(client)) if has else None
        return lambda: footprint(workload.command, client, setup)
    if "absent" in _asked(worker, {"workload": name, "setup": asdict(setup)}):
        return None
    # The end of a noreply round, which waits for the server, must not be most of it.
    least = 1000 if workload.command == "set_noreply" else 1
    count = 1 if plan.blink else _calibrated(worker, name, plan.seconds_of(name, client), least)
    found: Turn = lambda: _asked(worker, {"workload": name, "count": count})  # noqa: E731
    return found


def _asked(worker: Worker, question: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = worker.ask(question)
    if "error" in answer:
        raise CannotDo(answer["error"])
    return answer


def _calibrated(worker: Worker, name: str, seconds: float, count: int) -> int:
    """How many commands take about `seconds` of wall time, `count` at the least."""
    least = count
    while True:
        wall = _asked(worker, {"workload": name, "count": count})["wall"] * count
        if wall > seconds / 10 or count > 1e8:
            return max(least, round(count * seconds / wall))
        count *= 4


def _take_turns(
    name: str,
    turns: dict[str, Turn],
    plan: Plan,
    results: Results,
    progress: Progress,
    behind: float,
) -> None:
    clients = list(turns)
    rounds = plan.rounds_of(name)
    for number in range(rounds):
        first = number % len(clients) if clients else 0
        for client in clients[first:] + clients[:first]:
            try:
                results.add(name, client, turns[client]())
            except (CannotDo, WorkerFailed) as error:
                results.missing.append((client, name, str(error)))
                clients.remove(client)
        progress(name, behind + plan.total(name) * (number + 1) / rounds)
