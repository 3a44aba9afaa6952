"""What docs/migrating.md says about moving over from python-memcached keeps the cache warm."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import memcache
import pytest

from cymemcache import HashClient
from cymemcache.serde import CompressedSerde
from cymemcache.testing import MemcachedProcess

GUIDE = Path(__file__).parents[2] / "docs" / "migrating.md"
VALUES: list[Any] = [
    *(b"bytes", "text", "gr\xfcn", 5, -5, 10**30, True, None, 1.5, [1, "two"], {"a": None}),
    *("long" * 2000, b"long" * 2000, ["long"] * 2000),
]


@pytest.fixture(scope="module")
def hasher() -> Any:
    (example,) = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.M)
    names: dict[str, Any] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    return names["PythonMemcachedHash"]


def test_each_library_finds_what_the_other_has_stored(hasher: Any) -> None:
    with MemcachedProcess() as one, MemcachedProcess() as two, MemcachedProcess() as three:
        servers = ["{}:{}".format(*process.address) for process in (one, two, three)]
        theirs = memcache.Client(servers)
        ours = HashClient(
            servers, hasher=hasher, serde=CompressedSerde(), default_noreply=False, timeout=10
        )
        for number, value in enumerate(VALUES * 5):
            key = f"key-{number}"
            assert theirs.set(key, value, min_compress_len=400)
            assert ours.get(key) == value
            assert type(ours.get(key)) is type(value)
            assert ours.set(key, value) is True
            assert theirs.get(key) == value
        theirs.disconnect_all()
        ours.close()


def test_keys_of_a_node_that_is_down_go_where_they_went(hasher: Any) -> None:
    servers = [f"node{number}:11211" for number in range(5)]
    theirs = memcache.Client(servers)
    ours = hasher()
    for server in servers:
        ours.add_node(server)
    down = random.Random(1).sample(servers, 2)
    for server in theirs.servers:
        server.connect = lambda server=server: "{}:{}".format(*server.address) not in down
    for server in down:
        ours.remove_node(server)
    for number in range(500):
        server, _ = theirs._get_server(f"key-{number}".encode())
        assert ours.get_node(f"key-{number}") == "{}:{}".format(*server.address)
    for server in down:
        ours.add_node(server)
        ours.remove_node(server)
    assert ours.get_node("key-1") not in down
