"""Starting up: what importing the package loads, which core it chooses, and what it says where the
one that was asked for is missing.  Each in an interpreter of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cymemcache

SOURCE = str(Path(cymemcache.__file__).parents[1])

HEAVY = ("ssl", "logging", "pickle", "typing", "inspect", "dataclasses", "re", "json", "zlib")

COMPILED = (
    "parser_c",
    "requests_c",
    "rendezvous_c",
    "ketama_c",
    "exchange_c",
    "calls_c",
    "scatter_c",
)

# Makes the compiled modules those of a pure wheel: not there.
WITHOUT_EXTENSION = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cymemcache.core.") and name.endswith("_c"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""

# One of them is there, and another one is not: a broken installation.
WITH_HALF_AN_EXTENSION = WITHOUT_EXTENSION.replace('endswith("_c")', 'endswith("requests_c")')


def run(code: str, impl: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "CYMEMCACHE_IMPL"}
    environment["PYTHONPATH"] = os.pathsep.join([SOURCE, environment.get("PYTHONPATH", "")])
    if impl is not None:
        environment["CYMEMCACHE_IMPL"] = impl
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


def printed(code: str, impl: str | None = None) -> Any:
    """The value that the last line of `code` prints, in an interpreter of its own."""
    done = run(code, impl)
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


IMPLS = [pytest.param("c", id="c"), pytest.param("python", id="python")]


@pytest.mark.parametrize("impl", IMPLS)
def test_importing_the_package_loads_nothing_heavy(impl: str) -> None:
    # The interpreter's own start-up may load some (a .pth file in site-packages does).
    code = "import sys; before = set(sys.modules); import cymemcache"
    loaded = printed(f"{code}; print(sorted(set(sys.modules) - before))", impl)
    assert "cymemcache.client" in loaded
    assert set(HEAVY).isdisjoint(loaded)


@pytest.mark.parametrize("impl", IMPLS)
def test_the_usual_commands_load_nothing_heavy(impl: str) -> None:
    code = f"""
import sys
before = set(sys.modules)
import socket, threading
from cymemcache import Client

def serve(listener):
    sock, _ = listener.accept()
    with sock:
        for reply in (b"STORED\\r\\n", b"VALUE key 0 5\\r\\nvalue\\r\\nEND\\r\\n"):
            sock.recv(1000)
            sock.sendall(reply)

listener = socket.create_server(("127.0.0.1", 0))
server = threading.Thread(target=serve, args=(listener,))
server.start()
with Client(listener.getsockname(), timeout=20) as client:
    assert client.set("key", "value", noreply=False) is True
    assert client.get("key") == b"value"
server.join()
print([name for name in {HEAVY!r} if name in set(sys.modules) - before])
"""
    # `re` comes with the codec with which getaddrinfo looks a host name up.
    assert set(printed(code, impl)) <= {"re"}


def test_all_public_names_are_there() -> None:
    names = printed(
        "import cymemcache\n"
        "for name in cymemcache.__all__: getattr(cymemcache, name)\n"
        "print(cymemcache.__all__)"
    )
    assert {"Client", "KeepaliveOpts", "MemcacheError", "__impl__", "__version__"} <= set(names)


def test_the_wrappers_are_loaded_when_they_are_first_asked_for() -> None:
    loaded = "[name in sys.modules for name in ('cymemcache.retrying', 'cymemcache.fallback')]"
    assert printed(f"import sys, cymemcache; dir(cymemcache); print({loaded})") == [False, False]
    code = "import sys; before = set(sys.modules); import cymemcache; cymemcache.RetryingClient"
    assert printed(f"{code}; print({loaded})") == [True, False]
    assert set(HEAVY).isdisjoint(printed(f"{code}; print(sorted(set(sys.modules) - before))"))
    code = "import sys; from cymemcache import FallbackClient, ExponentialBackoff"
    assert printed(f"{code}; print({loaded})") == [True, True]
    loaded = "[name in sys.modules for name in ('cymemcache.discovery', 'queue')]"
    code = "import sys, cymemcache; before = set(sys.modules); cymemcache.HashClient"
    assert printed(f"{code}; print({loaded})") == [False, False]
    code += "; cymemcache.AWSElastiCacheHashClient"
    assert printed(f"{code}; print({loaded})") == [True, True]
    assert set(HEAVY).isdisjoint(printed(f"{code}; print(sorted(set(sys.modules) - before))"))


def test_dir_has_all_public_names_and_no_other_name_is_there() -> None:
    assert set(cymemcache.__all__) <= set(dir(cymemcache))
    with pytest.raises(AttributeError, match="module 'cymemcache' has no attribute 'Klient'"):
        _ = cymemcache.Klient


LOADED = f"""
import sys
import cymemcache
compiled = [name for name in {COMPILED!r} if "cymemcache.core." + name in sys.modules]
print((cymemcache.__impl__, compiled, cymemcache.client.Requests.__module__))
"""


def test_without_a_wish_the_compiled_core_is_taken() -> None:
    for impl in (None, ""):
        chosen, compiled, module = printed(LOADED, impl)
        assert chosen == "c"
        assert compiled == list(COMPILED)
        assert module.endswith("requests_c")


def test_the_compiled_core_can_be_asked_for() -> None:
    chosen, compiled, _ = printed(LOADED, "c")
    assert chosen == "c"
    assert compiled == list(COMPILED)


def test_the_pure_core_can_be_asked_for_and_loads_nothing_compiled() -> None:
    chosen, compiled, module = printed(LOADED, "python")
    assert chosen == "python"
    assert compiled == []
    assert module.endswith("requests_py")


@pytest.mark.parametrize("impl", ["C", "pure", "1", " c"])
def test_any_other_wish_is_refused(impl: str) -> None:
    done = run("import cymemcache", impl)
    assert done.returncode == 1
    assert (
        f"ImportError: CYMEMCACHE_IMPL must be 'c' or 'python' where it is set, not {impl!r}"
        in (done.stderr)
    )


@pytest.mark.parametrize("missing", [WITHOUT_EXTENSION, WITH_HALF_AN_EXTENSION])
def test_a_missing_extension_that_was_asked_for_is_an_error_that_helps(missing: str) -> None:
    done = run(missing + "import cymemcache", "c")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: CYMEMCACHE_IMPL=c, but")
    assert "CYMEMCACHE_BUILD_EXT=1" in last
    assert "No module named 'cymemcache.core." in done.stderr  # the reason is kept


@pytest.mark.parametrize("missing", [WITHOUT_EXTENSION, WITH_HALF_AN_EXTENSION])
def test_a_missing_extension_that_was_not_asked_for_gives_the_pure_core(missing: str) -> None:
    chosen, _, module = printed(missing + LOADED)
    assert chosen == "python"
    assert module.endswith("requests_py")
    classes = printed(
        missing
        + "import cymemcache.core as core\n"
        + "print([core.PlainExchange, core.fork_count, core.ReplyParser.__module__,"
        + " core.RendezvousTable.__module__, core.IdleConnections.__module__])"
    )
    assert classes == [
        None,
        None,
        "cymemcache.core.parser_py",
        "cymemcache.core.rendezvous_py",
        "cymemcache.core",
    ]


# The second interpreter of a process, in whichever way this Python has it.
IN_A_SECOND_INTERPRETER = """
import cymemcache

try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string

code = '''
import logging, sys
class Handler(logging.Handler):
    def emit(self, record):
        print(record.levelname, record.getMessage())
logging.getLogger("cymemcache").addHandler(Handler())
try:
    import cymemcache, cymemcache.cluster
    print(cymemcache.__impl__)
except ImportError as error:
    print(error)
sys.stdout.flush()
'''
print(cymemcache.__impl__, flush=True)
run(interpreters.create(), code)
"""


def test_a_second_interpreter_takes_the_pure_core_and_says_so_once() -> None:
    done = run(IN_A_SECOND_INTERPRETER)
    first, warning, chosen = done.stdout.splitlines()
    assert (first, chosen) == ("c", "python"), done.stderr
    assert warning.startswith("WARNING the compiled core cannot be loaded here: ")
    assert "interpreter" in warning


def test_a_second_interpreter_says_why_it_has_not_the_core_that_was_asked_for() -> None:
    done = run(IN_A_SECOND_INTERPRETER, "c")
    first, error = done.stdout.splitlines()
    assert first == "c"
    assert error.startswith("CYMEMCACHE_IMPL=c, but the compiled core of cymemcache cannot be")
    assert "interpreter" in error


def test_this_process_says_which_core_it_runs() -> None:
    wanted = os.environ.get("CYMEMCACHE_IMPL") or "c"
    assert cymemcache.__impl__ == wanted
