"""What the package logs, and when: `log`."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cymemcache.counters import Tally
from cymemcache.health import NodeHealth
from cymemcache.node import Node


class LeftLocked:
    """Logging's lock after an interruption has left it locked; raises instead of hanging."""

    def acquire(self, *_: Any) -> None:
        raise AssertionError("logging's lock is wanted")

    __enter__ = release = __exit__ = acquire


def test_nobody_hangs_where_an_interruption_has_left_logging_locked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node("node", NodeHealth(1, 1, 1))
    tally = Tally("node")

    def say_all() -> None:
        node.failed(OSError())
        node.succeeded()
        tally.report_lost(1)

    say_all()
    with monkeypatch.context() as patch:
        patch.setattr(logging, "_lock", LeftLocked())
        say_all()
    assert node.failures == 2
    assert tally.noreply_lost == 2
