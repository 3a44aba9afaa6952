"""What all tests share: the core in both its implementations.

A compiled module that is missing is an error, never a skip: a green run means that both twins ran.
"""

from __future__ import annotations

import signal
from importlib import import_module

import pytest

# A shell's background jobs, and what nohup runs, ignore these, and so would each process that a
# test starts and interrupts.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

_MODULES = {
    "ReplyParser": "parser",
    "Requests": "requests",
    "RendezvousTable": "rendezvous",
    "murmur3_32": "rendezvous",
    "KetamaTable": "ketama",
    "md5_words": "ketama",
    "one_at_a_time": "ketama",
}


class Core:
    """One implementation of the core; its modules are imported when they are first asked for."""

    def __init__(self, impl: str) -> None:
        self.impl = impl

    def __getattr__(self, name: str) -> object:
        suffix = "c" if self.impl == "c" else "py"
        return getattr(import_module(f"cymemcache.core.{_MODULES[name]}_{suffix}"), name)


@pytest.fixture(params=["c", "python"])
def core(request: pytest.FixtureRequest) -> Core:
    """The compiled core and its pure twin, in turn."""
    return Core(request.param)
