"""The package under the name pymemcache.  Each test in an interpreter of its own, where pymemcache
itself is installed but must not be found.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cymemcache.as_pymemcache import _HOMES
from cymemcache.testing import EmbeddedServer

INSTALL = "import cymemcache, sys; cymemcache.install_as_pymemcache()\n"


def run(*arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd=directory
    )


def check(code: str) -> None:
    """Run `code` with the alias installed; what it asserts must hold."""
    done = run("-c", INSTALL + code)
    assert done.returncode == 0, done.stderr


def test_an_import_gives_ours_and_loads_what_the_reference_loads() -> None:
    check("""
import pymemcache
assert pymemcache.Client is cymemcache.Client
assert pymemcache.HashClient is cymemcache.HashClient
assert pymemcache.client.hash.HashClient is cymemcache.HashClient
assert pymemcache.client.retrying.RetryingClient is cymemcache.RetryingClient
assert pymemcache.serde.pickle_serde is __import__("cymemcache.serde").serde.pickle_serde
assert pymemcache.client is sys.modules["pymemcache.client"]
assert pymemcache.client.base is sys.modules["pymemcache.client.base"]
assert pymemcache.__version__.startswith("4.")
from pymemcache.client import Client, HashClient, PooledClient, RetryingClient, MemcacheError
""")


def test_an_import_loads_the_modules_that_the_reference_loads() -> None:
    code = "import pymemcache, sys; print(sorted(n for n in sys.modules if 'pymemcache' == n[:10]))"
    theirs, ours = run("-c", code), run("-c", INSTALL + code)
    assert "pymemcache.client.hash" in theirs.stdout
    assert ours.stdout == theirs.stdout


def test_every_module_is_found_and_has_its_names() -> None:
    packages = {"pymemcache", "pymemcache.client", "pymemcache.client.ext", "pymemcache.test"}
    check(f"""
import importlib, importlib.util
for name, names in {[(name, sorted(names)) for name, names in _HOMES.items()]!r}:
    spec = importlib.util.find_spec(name)
    assert spec.name == name
    assert (spec.submodule_search_locations is not None) == (name in {packages!r})
    module = importlib.import_module(name)
    assert module.__name__ == name and module.__spec__.loader is spec.loader
    for attribute in names:
        assert getattr(module, attribute) is not None
        assert attribute in dir(module)
    namespace = {{}}
    exec(f"from {{name}} import *", namespace)
    assert sorted(set(namespace) - {{"__builtins__"}}) == module.__all__ == names
    assert importlib.reload(module) is module
""")


def test_what_pymemcache_has_not_is_not_there() -> None:
    check("""
import importlib.util, pymemcache
assert importlib.util.find_spec("pymemcache.client.nothing") is None
try:
    import pymemcache.nothing
except ModuleNotFoundError as error:
    assert error.name == "pymemcache.nothing"
else:
    raise AssertionError
try:
    pymemcache.client.base.nothing
except AttributeError as error:
    assert "pymemcache.client.base" in str(error) and "nothing" in str(error)
else:
    raise AssertionError
""")


def test_it_comes_before_the_first_import_and_once_is_enough() -> None:
    check("""
cymemcache.install_as_pymemcache()
import pymemcache.client.base
cymemcache.install_as_pymemcache()
assert sum("Pymemcache" in type(finder).__name__ for finder in sys.meta_path) == 1
""")
    for module in ("pymemcache", "pymemcache.exceptions"):
        done = run("-c", f"import {module}; {INSTALL}")
        assert done.returncode == 1
        assert "RuntimeError: pymemcache" in done.stderr
        assert "must be called before" in done.stderr


def test_installing_it_loads_no_client_that_is_not_asked_for() -> None:
    check("""
assert "cymemcache.cluster" not in sys.modules
assert "pymemcache" not in sys.modules
""")


def test_patches_take_effect_where_the_name_is_used_and_end() -> None:
    check("""
from unittest import mock
import pymemcache
original = pymemcache.client.base.Client
with mock.patch("pymemcache.client.base.Client") as double:
    assert pymemcache.client.base.Client is double is not original
    from pymemcache.client.base import Client
    assert Client is double
assert pymemcache.client.base.Client is original
with mock.patch("pymemcache.client.base.Client.get", return_value=5):
    assert original("localhost").get("key") == 5
    assert pymemcache.HashClient(["localhost"]).get("key") == 5
with mock.patch("pymemcache.client.hash.PooledClient") as double:
    cluster = pymemcache.HashClient(["localhost"], use_pooling=True)
    assert cluster.clients == {"localhost:11211": double.return_value}
with mock.patch("pymemcache.HashClient", autospec=True) as double:
    assert pymemcache.HashClient(["localhost"]) is double.return_value
assert pymemcache.HashClient is cymemcache.HashClient
pymemcache.mark = 1
assert pymemcache.mark == 1 and not hasattr(cymemcache, "mark")
del pymemcache.mark
assert not hasattr(pymemcache, "mark")
""")


def test_pickled_references_are_found_and_ours_are_pickled_under_their_own_name() -> None:
    check("""
import pickle
server_error = pickle.loads(b"cpymemcache.exceptions\\nMemcacheServerError\\n.")
assert server_error is cymemcache.MemcacheServerError
assert pickle.loads(b"cpymemcache.client.base\\nClient\\n.") is cymemcache.Client
assert pickle.loads(b"cpymemcache.serde\\nPickleSerde\\n.") is cymemcache.serde.PickleSerde
import pymemcache
error = pymemcache.MemcacheError("text")
assert b"pymemcache" not in pickle.dumps(error).replace(b"cymemcache", b"")
assert pickle.loads(pickle.dumps(error)).args == ("text",)
serde = pymemcache.serde.PickleSerde(2)
assert pickle.loads(pickle.dumps(serde)).serialize("key", None) == serde.serialize("key", None)
""")


def test_a_serde_that_was_pickled_by_the_reference_is_ours() -> None:
    done = run(
        "-c",
        "import pickle, sys, pymemcache.serde as s; print(pickle.dumps(s.PickleSerde(2)).hex())",
    )
    check(f"""
import pickle
serde = pickle.loads(bytes.fromhex("{done.stdout.strip()}"))
assert type(serde) is cymemcache.serde.PickleSerde
data, flags = serde.serialize("key", [1])
assert data[:2] == b"\\x80\\x02" and serde.deserialize("key", data, flags) == [1]
""")


PROGRAM = """\
import sys
import pymemcache.client.base
from pymemcache import Client
import helper

class Own:
    pass

if __name__ == "__main__":
    import pickle
    assert pickle.loads(pickle.dumps(Own)) is Own
    assert Client.__module__ == "cymemcache"
    host, port = sys.argv[1:]
    with Client((host, int(port))) as client:
        client.set("key", b"value", noreply=False)
    print(sys.argv[0], helper.WHERE)
    sys.exit(3)
"""


@pytest.mark.parametrize("how", ["script", "package", "module"])
def test_a_program_that_cannot_be_edited_is_run(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    name = "__main__.py" if how == "package" else "prog.py"
    (folder / name).write_text(PROGRAM)
    (folder / "helper.py").write_text("WHERE = __file__\n")
    program, directory = {
        "script": ([str(folder / name)], elsewhere),
        "package": ([str(folder)], elsewhere),
        "module": (["-m", "prog"], folder),
    }[how]
    with EmbeddedServer() as server:
        host, port = server.address
        done = run(
            *("-m", "cymemcache.as_pymemcache", *program, host, str(port)), directory=directory
        )
        assert done.returncode == 3, done.stderr
        script, helper = done.stdout.split()
        assert script == str(folder if how == "package" else folder / name)
        assert helper == str(folder / "helper.py")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["-m"], ["--nonsense", "prog.py"]], ids=repr)
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    done = run("-m", "cymemcache.as_pymemcache", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m cymemcache.as_pymemcache")


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run("-m", "cymemcache.as_pymemcache", str(tmp_path / "none.py"))
    assert done.returncode == 2
    assert done.stderr.strip().endswith("none.py'")
    assert "usage: " in run("-m", "cymemcache.as_pymemcache", "--help").stdout
