"""This package under the name pymemcache, for programs and libraries that import that one.

`install_as_pymemcache` answers for the import of ``pymemcache`` and of its modules from then on.
``python -m cymemcache.as_pymemcache prog.py ...`` (or ``-m module ...``) does so before it runs a
program that cannot be edited.  The modules hold nothing of their own: each of their names is read
from, and assigned to, the module of ours in which it takes effect, so whoever patches one patches
this package.  Nothing in here may define anything that a client does, or be known to other modules.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import spec_from_loader
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

#: The release of pymemcache whose interface this is.
VERSION = "4.0.0"

_USAGE = """\
usage: python -m cymemcache.as_pymemcache PROGRAM [ARGUMENT ...]
       python -m cymemcache.as_pymemcache -m MODULE [ARGUMENT ...]

Runs a Python program for which `import pymemcache` gives cymemcache. Other
interpreters that it starts are not covered, processes that it forks are."""

_ERRORS = (
    "MemcacheClientError MemcacheDecompressionError MemcacheError MemcacheIllegalInputError "
    "MemcacheNodeDownError MemcacheServerError MemcacheUnexpectedCloseError "
    "MemcacheUnknownCommandError MemcacheUnknownError"
)
_CLIENTS = "Client FallbackClient HashClient KeepaliveOpts PooledClient RetryingClient"

# Each of pymemcache's modules: which names it has of which of our modules.
_MODULES: dict[str, dict[str, str]] = {
    "pymemcache": {"cymemcache": f"{_CLIENTS} {_ERRORS}"},
    "pymemcache.client": {"cymemcache": f"{_CLIENTS} {_ERRORS}"},
    "pymemcache.client.base": {
        "cymemcache.client": "Client PooledClient check_key_helper normalize_server_spec",
        "cymemcache.options": "KeepaliveOpts",
        "cymemcache.serde": "LegacyWrappingSerde",
        "cymemcache.exceptions": _ERRORS,
    },
    "pymemcache.client.hash": {
        "cymemcache.cluster": "Client HashClient PooledClient",
        "cymemcache.client": "check_key_helper normalize_server_spec",
        "cymemcache.hashing": "RendezvousHash",
        "cymemcache.exceptions": _ERRORS,
    },
    "pymemcache.client.retrying": {"cymemcache.retrying": "RetryingClient"},
    "pymemcache.client.rendezvous": {"cymemcache.hashing": "RendezvousHash murmur3_32"},
    "pymemcache.client.murmur3": {"cymemcache.hashing": "murmur3_32"},
    "pymemcache.client.ext": {},
    "pymemcache.client.ext.aws_ec_client": {"cymemcache.discovery": "AWSElastiCacheHashClient"},
    "pymemcache.exceptions": {"cymemcache.exceptions": _ERRORS},
    "pymemcache.fallback": {"cymemcache.fallback": "FallbackClient"},
    "pymemcache.pool": {"cymemcache.object_pool": "ObjectPool"},
    "pymemcache.serde": {
        "cymemcache.serde": "CompressedSerde LegacyWrappingSerde PickleSerde compressed_serde "
        "pickle_serde get_python_memcache_serializer python_memcache_serializer "
        "python_memcache_deserializer _python_memcache_serializer DEFAULT_PICKLE_VERSION "
        "FLAG_BYTES FLAG_COMPRESSED FLAG_INTEGER FLAG_LONG FLAG_PICKLE FLAG_TEXT"
    },
    "pymemcache.test": {},
    "pymemcache.test.utils": {
        "cymemcache.testing": "MockMemcacheClient",
        "cymemcache.client": "check_key_helper",
        "cymemcache.serde": "LegacyWrappingSerde",
        "cymemcache.exceptions": "MemcacheClientError MemcacheIllegalInputError",
    },
}
# What `import pymemcache` does not load as well.
_NOT_LOADED = ("pymemcache.client.ext", "pymemcache.fallback", "pymemcache.test")

_HOMES = {
    module: {name: home for home, names in homes.items() for name in names.split()}
    for module, homes in _MODULES.items()
}


class PymemcacheModule(ModuleType):
    """One of pymemcache's modules."""

    def __getattr__(self, name: str) -> Any:
        home = _HOMES[self.__name__].get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(home), name)

    def __setattr__(self, name: str, value: Any) -> None:
        home = _HOMES[self.__name__].get(name)
        if home is None:
            super().__setattr__(name, value)
        else:
            setattr(import_module(home), name, value)

    def __delattr__(self, name: str) -> None:
        home = _HOMES[self.__name__].get(name)
        if home is None:
            super().__delattr__(name)
        else:
            delattr(import_module(home), name)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *_HOMES[self.__name__]})


class PymemcacheFinder:
    """Finds and loads pymemcache's modules, on ``sys.meta_path``."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _MODULES:
            return None
        is_package = any(other.startswith(f"{name}.") for other in _MODULES)
        return spec_from_loader(name, self, origin=__file__, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return PymemcacheModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__all__"] = sorted(_HOMES[module.__name__])
        if module.__name__ == "pymemcache":
            vars(module)["__version__"] = VERSION
            for name in _MODULES:
                if not name.startswith(_NOT_LOADED):
                    import_module(name)


def install_as_pymemcache() -> None:
    """Make ``import pymemcache`` give this package, for everybody in this process.

    To be called before anything imports pymemcache, and once is enough.  Where pymemcache itself is
    installed it stays unused; its distribution, which some tools look for, stays visible.  Raises
    `RuntimeError` where pymemcache itself has been imported already.
    """
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "pymemcache" and not isinstance(module, PymemcacheModule):
            raise RuntimeError(
                f"{name} has been imported already: install_as_pymemcache() must be called before "
                "anything imports pymemcache"
            )
    if any(isinstance(finder, PymemcacheFinder) for finder in sys.meta_path):
        return
    # Not before them all: tracers watch imports from the front.
    finders: list[Any] = sys.meta_path
    at = finders.index(PathFinder) if PathFinder in finders else len(finders)
    finders.insert(at, PymemcacheFinder())


def main(arguments: Sequence[str]) -> int:
    """Run the program that `arguments` name; returns the exit code where it does not raise."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    is_module = arguments[:1] == ["-m"]
    program = list(arguments[1:] if is_module else arguments)
    if not program or program[0].startswith("-"):
        print(_USAGE, file=sys.stderr)
        return 2
    install_as_pymemcache()
    import runpy

    sys.argv[:] = program
    if is_module:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        return 0
    if not os.path.exists(program[0]):
        print(f"cymemcache.as_pymemcache: there is no {program[0]!r}", file=sys.stderr)
        return 2
    if not sys.flags.safe_path:
        # The directory of the script, in place of the one that python -m has put there.
        sys.path[0] = os.path.dirname(os.path.realpath(program[0]))
    runpy.run_path(program[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    # By its real name, so that the program finds the same module where it installs it once more.
    sys.exit(import_module("cymemcache.as_pymemcache").main(sys.argv[1:]))
