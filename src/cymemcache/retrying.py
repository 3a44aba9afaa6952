"""A client around another one that tries again when a command fails: `RetryingClient`.

It knows no command: whatever the client within offers is found there at each access, so that
patches and tracing of that client stay in force.  It must never try again after anything but an
`Exception` of the client, and never hide the last error.  What it costs to try a command twice that
the server has executed already is the caller's to judge (docs/wrappers.md).
"""

from __future__ import annotations

import operator
import time
from types import MethodType

from .core.arguments import require_client, shown
from .interruptions import is_interruption
from .subscripts import Subscripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from inspect import Signature
    from types import TracebackType
    from typing import Any, Self

    Errors = tuple[type[Exception], ...] | set[type[Exception]] | list[type[Exception]] | None


_ENDLESS = 1e9  # seconds, and more: nobody means to wait so long, and time.sleep cannot


class ExponentialBackoff:
    """Delays that grow with every attempt, for `RetryingClient(backoff=...)`.

    After the n-th failed attempt it is ``base * factor ** (n - 1)`` seconds, at most `maximum`.
    `jitter` is the share of it, from 0 to 1, that is left to chance, so that the many clients which
    one failure has hit do not come back at the same moment: with 1 it is anything between 0 and the
    whole, with 0.5 between half and the whole, with 0 always the whole.
    """

    __module__ = "cymemcache"

    def __init__(
        self, base: float = 0.05, factor: float = 2, maximum: float = 1, jitter: float = 1
    ) -> None:
        for name, value in (("base", base), ("factor", factor), ("maximum", maximum)):
            _check_number(name, value)
            if not value < _ENDLESS:
                raise ValueError(f"{name} must be less than {_ENDLESS:g}, not {value!r}")
        _check_number("jitter", jitter)
        if not base > 0:
            raise ValueError(f"base must be positive, not {base!r}")
        if not factor >= 1:
            raise ValueError(f"factor must be at least 1, not {factor!r}")
        if not maximum >= base:
            raise ValueError(f"maximum must be at least base, not {maximum!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {jitter!r}")
        self.base = base
        self.factor = factor
        self.maximum = maximum
        self.jitter = jitter
        import random  # noqa: F401  # now, and not on a command's way

    def __repr__(self) -> str:
        return (
            f"ExponentialBackoff(base={self.base!r}, factor={self.factor!r}, "
            f"maximum={self.maximum!r}, jitter={self.jitter!r})"
        )

    def __call__(self, attempt: int) -> float:
        """The seconds to wait after attempt number `attempt`, the first being 1."""
        import random

        try:
            delay = min(self.base * float(self.factor) ** (attempt - 1), self.maximum)
        except OverflowError:
            delay = self.maximum
        return delay * (1 - self.jitter * random.random())


class RetryingClient(Subscripts):
    """Does everything that `client` does, and tries again when it raises.

    `client` is any object with a client's methods.  Each call of one of them is tried up to
    `attempts` times, `retry_delay` seconds apart; what the last attempt raises is raised.  Instead
    of the constant delay, `backoff` is a function from the number of the attempt that has failed
    (1, 2, ...) to seconds, such as `ExponentialBackoff`.  Where it gives what is no number of
    seconds, there is no other attempt, and a note at the error says so.

    `retry_for` and `do_not_retry_for` are tuples, sets or lists of subclasses of `Exception`.
    Another attempt follows an error that is one of `retry_for` (None or empty: any `Exception`) and
    none of `do_not_retry_for`.  KeyboardInterrupt and the like always end it.

    Attributes that cannot be called, and classes, are the client's own.  Setting an attribute sets
    it here, not on the client.  Raises `ValueError` for fewer attempts than one, for a delay that
    is negative or without end, for what is no such collection of errors, for an error that is in
    both, and for two delays; `TypeError` for what is no client, no number of attempts or seconds,
    or no function.
    """

    __module__ = "cymemcache"

    def __init__(
        self,
        client: Any,
        attempts: int = 2,
        retry_delay: float | None = 0,
        retry_for: Errors = None,
        do_not_retry_for: Errors = None,
        *,
        backoff: Callable[[int], float] | None = None,
    ) -> None:
        require_client(client, "client")
        if not hasattr(attempts, "__index__"):
            raise TypeError(f"attempts must be an integer, not {attempts!r}")
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts!r}")
        if retry_delay is None:
            retry_delay = 0  # dogpile.cache gives it
        _check_number("retry_delay", retry_delay)
        if not 0 <= retry_delay < _ENDLESS:
            raise ValueError(
                f"retry_delay must be from 0 to {_ENDLESS:g} seconds, not {retry_delay!r}"
            )
        if backoff is not None:
            if not callable(backoff):
                raise TypeError(
                    f"backoff must be a function from attempt to seconds, not {backoff!r}; "
                    "a constant delay is retry_delay"
                )
            if retry_delay:
                raise ValueError("give either retry_delay or backoff: they are both the delay")
        self._client = client
        self._attempts = operator.index(attempts)
        self._retry_delay = retry_delay
        self._backoff = backoff
        self._retry_for = _errors("retry_for", retry_for)
        self._do_not_retry_for = _errors("do_not_retry_for", do_not_retry_for)
        for kind in self._retry_for:
            if kind in self._do_not_retry_for:
                raise ValueError(f"{kind.__name__} is both in retry_for and in do_not_retry_for")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client!r}>"

    def __dir__(self) -> list[str]:
        return dir(self._client)

    def __getattr__(self, name: str) -> Any:
        # What Python itself asks an object for (to copy it, to unwrap it) is not the client's to
        # answer; and a copy that has no client yet would ask itself for one without end.
        if name.startswith("__") or name == "_client":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        attribute = getattr(self._client, name)
        if not callable(attribute) or isinstance(attribute, type):
            return attribute
        # By its exact type: a tracer's wrapper passes for a method, and would be left out.
        if type(attribute) is MethodType:
            return MethodType(_Retried(self, attribute.__func__, 1), attribute.__self__)
        return _Retried(self, attribute, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def _wait(self, attempt: int, error: Exception) -> bool:
        """Wait until it is time for another attempt; False at once where none may follow."""
        if self._retry_for and not isinstance(error, self._retry_for):
            return False
        if isinstance(error, self._do_not_retry_for):
            return False
        delay = self._retry_delay
        if self._backoff is not None:
            delay = self._backoff(attempt)
            if not (_is_number(delay) and 0 <= delay < _ENDLESS):
                error.add_note(
                    f"not tried again: backoff({attempt}) gave {shown(delay)} for the seconds"
                )
                return False
        # Looked up now, so that it is gevent's where gevent has patched it; called for no delay
        # too, which lets other threads go first.
        time.sleep(delay)
        return True


class _Retried:
    """A client's `function`, retried; to `inspect` and others it is the function itself.

    `keys_at` is the position of the argument that may be keys: behind ``self`` in the function of
    a bound method, where this stands within a method object of its own.
    """

    def __init__(
        self, retrying: RetryingClient, function: Callable[..., Any], keys_at: int
    ) -> None:
        self._retrying = retrying
        self._function = function
        self._keys_at = keys_at
        self.__doc__ = function.__doc__
        self.__module__ = getattr(function, "__module__", self.__module__)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # Of keys that can be gone through but once the first attempt would leave the second none:
        # all misses.
        at = self._keys_at
        if len(args) > at and _may_end(args[at]):
            args = (*args[:at], list(args[at]), *args[at + 1 :])
        elif _may_end(kwargs.get("keys")):
            kwargs["keys"] = list(kwargs["keys"])
        retrying = self._retrying
        for attempt in range(1, retrying._attempts):
            try:
                return self._function(*args, **kwargs)
            except Exception as error:
                if is_interruption(error) or not retrying._wait(attempt, error):
                    raise
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        from inspect import signature

        return signature(self._function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def _check_number(argument: str, value: Any) -> None:
    if not _is_number(value):
        raise TypeError(f"{argument} must be a number, not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _may_end(keys: Any) -> bool:
    """Whether there may be no `keys` left once they were gone through, as of an iterator."""
    return hasattr(keys, "__iter__") and not hasattr(keys, "__len__")


def _errors(argument: str, kinds: Errors) -> tuple[type[Exception], ...]:
    if kinds is None:
        return ()
    if not isinstance(kinds, (tuple, set, list)):
        raise ValueError(f"{argument} must be a tuple, set or list of errors, not {kinds!r}")
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ValueError(f"{argument} must hold subclasses of Exception, not {kind!r}")
    return tuple(kinds)
