"""When a node of a cluster is up, failing, dead, or due for a probe.

A pure state machine: the time is passed in, and nothing in here may sleep, send, lock or log.  Who
uses one from several threads holds a lock around each call; a call takes no time worth speaking of.

- **up**: everybody may use the node.  Its first failure makes it failing.
- **failing**: nobody may, but for one try per `retry_timeout`.  A try that succeeds makes it up;
  after `retry_attempts` tries that failed it is dead (with 0, at its first failure).
- **dead**: its keys belong to the other nodes.  Every `dead_timeout` one caller may probe it; a
  probe that succeeds makes it up.
"""

from __future__ import annotations

UP = "up"
FAILING = "failing"
DEAD = "dead"


class NodeHealth:
    """The health of one node.

    `retry_attempts`: tries of a failing node before it is dead; `retry_timeout`: seconds between
    them; `dead_timeout`: seconds between probes of a dead one.  `now` is in seconds, on any clock
    that never goes back.
    """

    __slots__ = (
        "_attempts",
        "_dead_timeout",
        "_next",
        "_retry_attempts",
        "_retry_timeout",
        "_trying",
        "state",
    )

    def __init__(self, retry_attempts: int, retry_timeout: float, dead_timeout: float) -> None:
        self.state = UP
        self.adjust(retry_attempts, retry_timeout, dead_timeout)
        self._attempts = 0  # tries that failed since the node is failing
        self._trying = False  # a try or a probe was admitted whose end is not known
        self._next = 0.0  # when the next one will be

    def adjust(self, retry_attempts: int, retry_timeout: float, dead_timeout: float) -> None:
        """Go by these from now on; when the next try will be is known already."""
        self._retry_attempts = retry_attempts
        self._retry_timeout = retry_timeout
        self._dead_timeout = dead_timeout

    def is_due(self, now: float) -> bool:
        """Whether a try, or a probe, would be admitted."""
        return self.state == UP or now >= self._next

    def admits(self, now: float) -> bool:
        """Whether one more caller may use the node: always while it is up, else one at a time.

        An admitted caller whose try never ends (it was interrupted) keeps nobody out for longer
        than until the next one is due.
        """
        if self.state == UP:
            return True
        if now < self._next:
            return False
        self._wait(now)
        self._trying = True
        return True

    def failed(self, now: float) -> bool:
        """A caller could not reach the node; true where that changed its state.

        Callers that were under way when the node failed come in late: they are no further tries.
        """
        before = self.state
        if before == UP:
            self._attempts = 0
            self.state = FAILING if self._retry_attempts > 0 else DEAD
        elif not self._trying:
            return False
        elif before == FAILING:
            self._attempts += 1
            if self._attempts >= self._retry_attempts:
                self.state = DEAD
        self._trying = False
        self._wait(now)
        return self.state != before

    def succeeded(self) -> bool:
        """An admitted caller has got an answer; true where that changed the state."""
        changed = self.state != UP
        self.state = UP
        self._trying = False
        return changed

    def _wait(self, now: float) -> None:
        self._next = now + (self._retry_timeout if self.state == FAILING else self._dead_timeout)
