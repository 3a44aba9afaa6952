"""Nothing on the way of a command imports a module: a child that was forked while another thread of
its parent was importing would wait for that import without end.  What the options need is loaded by
the constructor; what an error needs is looked up, and imported in no child.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import cymemcache
from cymemcache.testing import Answer, EmbeddedServer
from wire import PATIENCE

PRELUDE = f"""
import sys
for name in {sys.path!r}: sys.path.append(name)
import os
from cymemcache import *
from cymemcache import serde
from cymemcache.serde import *

address, other, refused = sys.argv[1:4]
imported = []

def note(event, arguments):
    if event == "import" and noting:
        imported.append(arguments[0])

noting = False
sys.addaudithook(note)

def tried(function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except Exception:
        return None

def commands(client, things):
    client.set("k", b"v", noreply=False)
    client.set("k", b"v", noreply=True)
    client.get("k"), client.gets("k"), client.gat("k", 10), client.touch("k", 10)
    client.set_many({{"a": b"1", "b": b"2"}}, noreply=False)
    client.get_many(["k", "a", "b"]), client.gets_many(["k"])
    for thing in things:
        client.set("thing", thing, noreply=False)
        client.get("thing"), client.get_many(["thing"])
    client.set("n", "1", noreply=False)
    tried(client.incr, "n", 1), tried(client.incr, "k", 1), tried(client.get, "white space")
    client.delete_many(["a", "b"], noreply=False)
    client.stats(), client.version(), client.raw_command("version")
    client.close()
"""


def run(program: str, server: EmbeddedServer, *arguments: str) -> str:
    with EmbeddedServer() as other:
        addresses = [f"{host}:{port}" for host, port in (server.address, other.address)]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PRELUDE + textwrap.dedent(program),
                *addresses,
                "127.0.0.1:1",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            env={**os.environ, "CYMEMCACHE_IMPL": cymemcache.__impl__},
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CLIENTS = {
    "bytes": ("Client(address, timeout=20)", "[b'v']"),
    "a host name": ("Client(address.replace('127.0.0.1', 'localhost'), timeout=20)", "[]"),
    "another encoding": ("Client(address, timeout=20, encoding='cp1250')", "['\\u0159']"),
    "pickles": ("Client(address, timeout=20, serde=pickle_serde)", "[b'v', 'v', 5, [1], {'a': 1}]"),
    "functions": (
        "Client(address, timeout=20, serializer=python_memcache_serializer, "
        "deserializer=python_memcache_deserializer)",
        "['v', [1]]",
    ),
    "compressed": (
        "Client(address, timeout=20, serde=compressed_serde)",
        "[[1] * 1000, 'v' * 999]",
    ),
    "JSON": ("Client(address, timeout=20, serde=JSONSerde())", "[[1], 'v']"),
    "signed": ("Client(address, timeout=20, serde=serde.SignedSerde(b'k' * 32))", "[[1], 'v']"),
    "a pool": ("PooledClient(address, timeout=20, max_pool_size=2)", "[b'v']"),
    "a cluster": ("HashClient([address, other], timeout=20, serde=pickle_serde)", "[[1]]"),
    "a ring": ("HashClient([address, other], timeout=20, hasher=KetamaHash)", "[b'v']"),
    "retries": ("RetryingClient(Client(address, timeout=20), attempts=2)", "[b'v']"),
    "two caches": (
        "FallbackClient([Client(address, timeout=20), Client(other, timeout=20)])",
        "[]",
    ),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_no_command_imports(name: str) -> None:
    client, things = CLIENTS[name]
    with EmbeddedServer() as server:
        program = f"""
            client = {client}
            things = {things}
            noting = True
            commands(client, things)
            noting = False
            print(imported)
        """
        assert run(program, server) == "[]"


def test_no_failure_imports() -> None:
    with EmbeddedServer() as server:
        server.inject(Answer(b"SERVER_ERROR out of memory\r\n"), verb="add")
        program = """
            import logging
            logging.getLogger("cymemcache").addHandler(logging.NullHandler())
            client = Client(address, timeout=20)
            nodes = [Client(refused, timeout=1), HashClient([refused, address], timeout=1)]
            nodes.append(RetryingClient(
                Client(refused, timeout=1), attempts=2, backoff=ExponentialBackoff(base=0.001)
            ))
            noting = True
            client.add("k", b"v", noreply=True)
            client.get("k")
            for node in nodes:
                for key in ("a", "b", "c"):
                    tried(node.get, key), tried(node.set, key, b"v")
                    tried(node.get_many, ["a", "b", "c"])
            noting = False
            print(imported, client.noreply_errors)
        """
        assert run(program, server) == "[] 1"


def test_a_child_says_what_is_wrong_although_another_thread_was_importing_logging() -> None:
    with EmbeddedServer() as server:
        server.inject(Answer(b"SERVER_ERROR out of memory\r\n"), verb="add", times=1)
        program = """
            import importlib, signal, threading
            from importlib.util import spec_from_loader
            for name in [name for name in sys.modules if name.partition(".")[0] == "logging"]:
                del sys.modules[name]

            class Blocking:
                def find_spec(self, name, path=None, target=None):
                    return spec_from_loader(name, self) if name == "logging" else None

                def create_module(self, spec):
                    return None

                def exec_module(self, module):
                    entered.set()
                    threading.Event().wait()

            entered = threading.Event()
            client = Client(address, timeout=20)
            sys.meta_path.insert(0, Blocking())
            threading.Thread(target=importlib.import_module, args=("logging",), daemon=True).start()
            entered.wait()
            pid = os.fork()
            if pid == 0:
                status = 1
                signal.alarm(20)
                try:
                    os.dup2(1, 2)
                    client.add("k", b"v", noreply=True)
                    assert client.get("k") is None
                    sys.stderr.flush()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        """
        said = run(program, server)
    assert "1 of 1 noreply commands failed" in said
