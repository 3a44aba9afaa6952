"""When a node is up, failing, dead or due for a probe, by a clock that the tests hold."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from cymemcache.health import DEAD, FAILING, UP, NodeHealth

RETRY = 1.0
DEAD_FOR = 60.0


def health(attempts: int = 2) -> NodeHealth:
    return NodeHealth(attempts, RETRY, DEAD_FOR)


def failing(attempts: int = 2, now: float = 0.0) -> NodeHealth:
    node = health(attempts)
    assert node.failed(now)
    assert node.state == FAILING
    return node


def dead(attempts: int = 2) -> tuple[NodeHealth, float]:
    """A node that has just died, and the time."""
    node = failing(attempts)
    now = 0.0
    for _ in range(attempts):
        now += RETRY
        assert node.admits(now)
        node.failed(now)
    assert node.state == DEAD
    return node, now


def test_everybody_may_use_a_node_that_is_up() -> None:
    node = health()
    assert node.state == UP
    assert all(node.admits(now) and node.is_due(now) for now in (0.0, 0.0, 5.0))
    assert node.succeeded() is False
    assert node.state == UP


def test_its_first_failure_makes_it_failing() -> None:
    node = health()
    assert node.failed(10.0) is True
    assert node.state == FAILING


def test_a_failing_node_is_tried_once_per_retry_timeout() -> None:
    node = failing(attempts=100, now=10.0)
    now = 10.0
    for _ in range(5):
        for early in (0.0, 0.5, 0.999):
            assert not node.is_due(now + early)
            assert not node.admits(now + early)
        now += RETRY
        assert node.is_due(now)
        assert node.admits(now)
        assert not node.admits(now), "two at the same time"
        assert node.failed(now) is False
        assert node.state == FAILING


def test_to_ask_whether_it_is_due_uses_up_no_try() -> None:
    node = failing()
    assert [node.is_due(RETRY) for _ in range(3)] == [True] * 3
    assert node.admits(RETRY)
    assert not node.is_due(RETRY)


def test_the_time_to_the_next_try_runs_from_the_end_of_the_last() -> None:
    node = failing()
    assert node.admits(1.0)
    node.failed(1.9)  # it took that long
    assert not node.admits(2.8)
    assert node.admits(2.9)


@pytest.mark.parametrize("attempts", [1, 2, 3, 10])
def test_it_is_dead_after_so_many_tries(attempts: int) -> None:
    node = failing(attempts)
    for number in range(1, attempts + 1):
        assert node.admits(number * RETRY)
        assert node.failed(number * RETRY) is (number == attempts)
    assert node.state == DEAD


def test_without_tries_it_dies_at_its_first_failure() -> None:
    node = health(attempts=0)
    assert node.failed(0.0) is True
    assert node.state == DEAD
    assert not node.admits(DEAD_FOR - 0.1)
    assert node.admits(DEAD_FOR)


def test_a_try_that_succeeds_makes_it_up() -> None:
    node = failing()
    assert node.admits(RETRY)
    assert node.succeeded() is True
    assert node.state == UP
    assert node.admits(RETRY)
    assert node.admits(RETRY)


def test_tries_are_counted_anew_after_it_was_up() -> None:
    node = failing()
    now = 0.0
    for _ in range(5):  # each time one try short of death
        assert node.admits(now := now + RETRY)
        assert node.failed(now) is False
        assert node.admits(now := now + RETRY)
        assert node.succeeded() is True
        assert node.failed(now) is True
        assert node.state == FAILING


def test_one_caller_probes_a_dead_node_per_dead_timeout() -> None:
    node, now = dead()
    for _ in range(3):
        assert not node.admits(now)
        assert not node.admits(now + DEAD_FOR - 0.1)
        now += DEAD_FOR
        assert node.admits(now)
        assert not node.admits(now)
        assert node.failed(now) is False, "it is as dead as it was"
        assert node.state == DEAD


def test_a_probe_that_succeeds_makes_it_up() -> None:
    node, now = dead()
    assert node.admits(now + DEAD_FOR)
    assert node.succeeded() is True
    assert node.state == UP
    assert node.failed(now + DEAD_FOR) is True
    assert node.state == FAILING, "it has all its tries again"


def test_callers_that_come_late_are_no_tries() -> None:
    node = failing()
    for now in (0.0, 0.1, 0.5, 0.9, 5.0):
        assert node.failed(now) is False
    assert node.state == FAILING
    assert node.admits(RETRY), "nor do they put off the next try"


def test_a_try_that_never_ends_keeps_nobody_out_beyond_the_next_one() -> None:
    node = failing()
    assert node.admits(1.0)
    assert not node.admits(1.9)
    assert node.admits(2.0)
    node, now = dead()
    assert node.admits(now + DEAD_FOR)
    assert not node.admits(now + 2 * DEAD_FOR - 0.1)
    assert node.admits(now + 2 * DEAD_FOR)


def test_an_answer_counts_whoever_had_it() -> None:
    node = failing()
    assert node.succeeded() is True
    node, _ = dead()
    assert node.succeeded() is True
    assert node.state == UP


@pytest.mark.parametrize(("retry", "buried"), [(0.0, 60.0), (1.0, 0.0), (0.0, 0.0)])
def test_timeouts_of_zero_admit_one_after_the_other(retry: float, buried: float) -> None:
    node = NodeHealth(2, retry, buried)
    node.failed(0.0)
    assert node.is_due(0.0) is (retry == 0)
    now = 0.0
    for _ in range(2):
        now += retry
        assert node.admits(now)
        node.failed(now)
    assert node.state == DEAD
    assert node.is_due(now) is (buried == 0)
    assert node.is_due(now + buried)


def test_every_short_history() -> None:
    """All sequences of five events, against the rules in words."""
    for history in itertools.product("afsrd", repeat=5):
        for attempts in (0, 1, 2):
            follow(history, attempts)


def test_long_random_histories() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choice = random.Random(seed)
    for _ in range(200):
        follow(choice.choices("aaffsrrd", k=300), choice.randrange(5))


def follow(history: Iterator[str] | tuple[str, ...] | list[str], attempts: int) -> None:
    """Let a node go through `history`: admits, failed, succeeded, and two lengths of time."""
    node = health(attempts)
    now = 0.0
    state, failures, trying, next_try = UP, 0, False, 0.0
    for event in history:
        if event == "r":
            now += RETRY
        elif event == "d":
            now += DEAD_FOR
        elif event == "a":
            may = state == UP or now >= next_try
            assert node.is_due(now) is may
            assert node.admits(now) is may
            if may and state != UP:
                trying = True
                next_try = now + (RETRY if state == FAILING else DEAD_FOR)
        elif event == "s":
            assert node.succeeded() is (state != UP)
            state, trying = UP, False
        else:
            before = state
            if state == UP:
                failures = 0
                state = FAILING if attempts else DEAD
            elif not trying:
                assert node.failed(now) is False
                continue
            elif state == FAILING:
                failures += 1
                state = DEAD if failures >= attempts else FAILING
            trying = False
            next_try = now + (RETRY if state == FAILING else DEAD_FOR)
            assert node.failed(now) is (state != before)
        assert node.state == state
