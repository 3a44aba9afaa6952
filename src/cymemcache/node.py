"""What a cluster knows of one of its nodes: its health, and why it is so.

The client of the node tells it when the server could not be reached, the cluster when a try
succeeded.  Every change of state is logged, once, with the node and the cause.  Nothing in here may
log, or run other code of anybody's, while it holds its lock.
"""

from __future__ import annotations

from time import monotonic

from .exceptions import MemcacheNodeDownError
from .forks import Lock
from .health import DEAD, FAILING, UP, NodeHealth
from .interruptions import text_of
from .log import info, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# Nobody listens there: nothing of a command can have been done.
_NOBODY_THERE = (ConnectionRefusedError, FileNotFoundError)


class Node:
    """One node, called `name` (``"host:port"`` or a path), and its health.

    `on_failure` is called when it begins to fail, and when it dies.
    """

    _lock = Lock()

    def __init__(
        self, name: str, health: NodeHealth, on_failure: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        #: "up", "failing" or "dead", as `health.NodeHealth` has it
        self.state = UP
        self.is_up = True
        #: how often it could not be reached
        self.failures = 0
        #: what was wrong the last time
        self.cause = ""
        #: whether it is dead, and nothing of the last command can have reached it
        self.is_gone = False
        self._health = health
        self._on_failure = on_failure

    def adjust(self, retry_attempts: int, retry_timeout: float, dead_timeout: float) -> None:
        """Go by these from now on; see `health.NodeHealth`."""
        with self._lock:
            self._health.adjust(retry_attempts, retry_timeout, dead_timeout)

    def is_due(self) -> bool:
        """Whether a try, or a probe, would be admitted now."""
        return self._health.is_due(monotonic())

    def admits(self) -> bool:
        """Whether one more caller may use it now; see `health.NodeHealth.admits`."""
        with self._lock:
            return self._health.admits(monotonic())

    def failed(self, error: BaseException) -> None:
        """A caller could not reach it."""
        # As text: the error itself would keep the frames of the call, and their values.
        cause = f"{type(error).__name__}: {text_of(error)}"
        with self._lock:
            self.failures += 1
            self.cause = cause
            changed = self._health.failed(monotonic())
            self.state = self._health.state
            self.is_up = False
            self.is_gone = self.state == DEAD and isinstance(error, _NOBODY_THERE)
            state = self.state
        if changed and state == FAILING:
            warn("node %s is failing: %s", self.name, self.cause)
        elif changed:
            warn("node %s is dead, others have its keys: %s", self.name, self.cause)
        if changed and self._on_failure is not None:
            self._on_failure()

    def succeeded(self) -> None:
        """A caller that was admitted has got an answer."""
        with self._lock:
            changed = self._health.succeeded()
            self.state = self._health.state
            self.is_up = True
            self.is_gone = False
        if changed:
            info("node %s is up again", self.name)

    def down_error(self) -> MemcacheNodeDownError:
        """The error for a caller who was not admitted."""
        return MemcacheNodeDownError(f"node {self.name} is {self.state}: {self.cause}")
