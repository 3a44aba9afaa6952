"""What is to be reached, as data, and whether it was: nothing in here rounds in our favour."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .clients import BARE, CLIENTS, OURS, POOLED, PURE, PYLIBMC, PYMEMCACHE
from .figures import Results
from .workloads import IDLE_CONNECTIONS, WORKLOADS


@dataclass(frozen=True)
class Target:
    """`client`'s `figure` divided by `peer`'s is to be at most `limit`.

    With `kind` ``"at least"`` it is to be at least that; with ``"beyond"`` it is not their ratio
    but their difference that is to be at most `limit`.  Beside the measured figures there is
    ``rate``, commands per second, and ``cpu``, user and system time together.
    """

    workload: str
    client: str
    peer: str
    figure: str
    limit: float
    kind: str = "at most"


@dataclass(frozen=True)
class Verdict:
    """A target with what was measured: `value` is None where one of the two was not."""

    target: Target
    value: float | None
    workload: str  # whose it is, in words

    @property
    def reached(self) -> bool:
        if self.value is None:
            return False
        if self.target.kind == "at least":
            return self.value >= self.target.limit
        return self.value <= self.target.limit

    @property
    def shown(self) -> str:
        """The value with four digits, the last rounded against us."""
        if self.value is None:
            return "not measured"
        return _four_digits(self.value, up=self.target.kind != "at least")


def _four_digits(value: float, up: bool) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    scaled = value * 10**decimals
    scaled = round(scaled, 6)  # what floating point adds is no digit
    return f"{(math.ceil if up else math.floor)(scaled) / 10**decimals:.{decimals}f}"


def verdicts(results: Results) -> list[Verdict]:
    """Of every target whose workload is among the results; the worst one stands for all work."""
    found = [
        Verdict(target, compared(results, target), target.workload)
        for target in TARGETS
        if target.workload in results.rounds
    ]
    for figure in ("user", "cpu"):
        measured = [
            Verdict(target, value, target.workload)
            for target in _all_work(figure)
            if (value := compared(results, target)) is not None
        ]
        if measured:
            worst = max(measured, key=lambda verdict: verdict.value or 0.0)
            words = f"all work ({len(measured)} measured), the worst: {worst.workload}"
            found.append(Verdict(worst.target, worst.value, words))
    return found


def compared(results: Results, target: Target) -> float | None:
    """What the target is about: the ratio of two medians, or their difference."""
    ours = _figure(results, target, target.client)
    theirs = _figure(results, target, target.peer)
    if ours is None or theirs is None:
        return None
    if target.kind == "beyond":
        return ours - theirs
    if theirs == 0:  # a round of a blink can be too short for the clock
        return math.inf
    return ours / theirs


def _figure(results: Results, target: Target, client: str) -> float | None:
    if target.figure != "rate":
        return results.median(target.workload, client, target.figure)
    wall = results.median(target.workload, client, "wall")
    return 1 / wall if wall else None


def _user(workload: str, peer: str, limit: float, client: str = OURS) -> Target:
    return Target(workload, client, peer, "user", limit)


TARGETS = [
    _user("get 100 B", PYMEMCACHE, 0.25),
    _user("get 100 B", PYMEMCACHE, 0.2),
    _user("get 100 B", PYLIBMC, 1.0),
    _user("get 100 B", PYLIBMC, 0.7),
    _user("get 100 B", BARE, 1.0),
    _user("get_many 100", PYMEMCACHE, 1 / 12),
    _user("get_many 100", PYMEMCACHE, 1 / 16),
    _user("get_many 100", PYLIBMC, 0.5),
    _user("get_many 100", PYLIBMC, 0.4),
    _user("get_many 1000", PYLIBMC, 0.4),
    _user("set_many 100", PYMEMCACHE, 1 / 6),
    _user("set_many 100", PYMEMCACHE, 1 / 10),
    Target("get 1 MB", OURS, BARE, "wall", 1.15),
    *(
        _user(f"get_many 100 {kind}, pickle serde", peer, limit)
        for kind in ("str", "int")
        for peer, limit in ((PYLIBMC, 0.5), (PYMEMCACHE, 1 / 12))
    ),
    _user("cluster of 4, get", PYMEMCACHE, 1 / 10),
    _user("cluster of 64, get", PYMEMCACHE, 1 / 50),
    _user("cluster of 4, get_many 100", PYMEMCACHE, 1 / 60),
    _user("cluster of 4, get_many 100", PYLIBMC, 0.7),
    _user("cluster of 4, get_many 100", PYLIBMC, 0.6),
    Target("cluster of 4, get_many 100", OURS, PYLIBMC, "wall", 1.0),
    _user("cluster of 4, delete_many 100", PYMEMCACHE, 1 / 60),
    Target("cluster of 4, delete_many 100", OURS, PYMEMCACHE, "wall", 1 / 60),
    *(
        _user(f"rendezvous choice, {nodes} nodes", PYMEMCACHE, limit, client)
        for nodes in (4, 64)
        for client, limit in ((OURS, 1 / 100), (PURE, 0.6))
    ),
    Target("get, 8 threads", POOLED, PYMEMCACHE, "rate", 5, "at least"),
    Target("get, 8 threads", POOLED, PYLIBMC, "rate", 1.3, "at least"),
    Target("get, 8 threads", OURS, PYLIBMC, "rate", 1.5, "at least"),
    _user("get, TLS", PYMEMCACHE, 0.65),
    _user("get 100 B", PYMEMCACHE, 0.8, PURE),
    _user("get_many 100", PYMEMCACHE, 0.6, PURE),
    Target("import", OURS, PYMEMCACHE, "wall", 0.6),
    Target(f"{IDLE_CONNECTIONS:,} idle connections", OURS, BARE, "bytes", 4096, "beyond"),
]


def _all_work(figure: str) -> list[Target]:
    """The pure twin is no slower than pymemcache at anything.

    By user time, and by what is not sampled: user and system time together.
    """
    return [
        Target(name, PURE, PYMEMCACHE, figure, 1.0)
        for name, workload in WORKLOADS.items()
        if workload.shape != "process"
    ]


COMPARED_AT_ALL = (PURE, PYMEMCACHE)
AIMED_AT = {target.workload for target in TARGETS}  # measured longer than the rest
# A name that is wrong would be a target that is never looked at.
assert WORKLOADS.keys() >= AIMED_AT
assert all({target.client, target.peer} <= CLIENTS.keys() for target in TARGETS)
