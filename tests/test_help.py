"""What `help` and completion show of the clients: what a user can use, in plain words."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from typing import Any

import pytest

from cymemcache import (
    AWSElastiCacheHashClient,
    Client,
    FallbackClient,
    HashClient,
    PooledClient,
    RetryingClient,
    command_types,
    commands,
)
from cymemcache.testing import MockMemcacheClient

KINDS = [Client, PooledClient, HashClient, AWSElastiCacheHashClient, FallbackClient,
         MockMemcacheClient]  # fmt: skip
COMMANDS = sorted(
    name for name, thing in vars(commands.Commands).items() if name[0] != "_" and callable(thing)
)
# The names of type variables and aliases.
OURS_ALONE = re.compile(r"\b(K|Key|\w+Key|KeyT|[A-Z][a-z]+R|_\w+|\w*Commands|Synchronous)\b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signature_has_types_that_a_reader_knows(kind: Any, name: str) -> None:
    shown = str(inspect.signature(getattr(kind, name)))
    assert OURS_ALONE.findall(shown) == []
    assert "->" in shown


@pytest.mark.parametrize(
    ("name", "of_a_client", "of_a_cluster"),
    [
        ("set", "bool", "bool"),
        ("incr", "int | None", "int | None"),
        ("get_many", "dict[Any, Any]", "dict[Any, Any]"),
        ("version", "bytes", "dict[str, bytes | None]"),
        ("raw_command", "bytes", "dict[str, bytes | None]"),
        ("flush_all", "bool", "dict[str, bool]"),
        ("cache_memlimit", "bool", "dict[str, bool]"),
        ("stats", "dict[bytes, Any]", "dict[str, dict[bytes, Any]]"),
    ],
)
def test_a_signature_says_what_the_client_gives(
    name: str, of_a_client: str, of_a_cluster: str
) -> None:
    assert inspect.signature(getattr(Client, name)).return_annotation == of_a_client
    assert inspect.signature(getattr(HashClient, name)).return_annotation == of_a_cluster


def test_the_words_for_readers_are_the_types_for_checkers() -> None:
    # The aliases exist for type checkers only, so they are read from the source.
    trees = [ast.parse(inspect.getsource(module)) for module in (commands, command_types)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    aliases = {
        node.target.id: node.value
        for node in nodes
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    generic = next(
        base
        for node in nodes
        if isinstance(node, ast.ClassDef) and node.name == "Results"
        for base in node.bases
    )
    variables = arguments(generic)
    for alias, words in (
        ("SyncCommands", command_types.OF_ONE_SERVER),
        ("ClusterCommands", command_types.OF_A_CLUSTER),
    ):
        types = arguments(aliases[alias])
        types[0] = ast.unparse(aliases[types[0]])  # the name of the keys' type
        assert dict(zip(variables, types, strict=True)) == words


def arguments(subscript: Any) -> list[str]:
    return [ast.unparse(argument) for argument in subscript.slice.elts]


@pytest.mark.parametrize("kind", [*KINDS, RetryingClient])
def test_help_shows_no_internals(kind: Any) -> None:
    text = pydoc.plain(pydoc.render_doc(kind))
    methods = re.findall(r"^ \|  (\w+)(?: = \w+)?\(", text, re.MULTILINE)
    assert [name for name in methods if name.startswith("_") and not name.endswith("__")] == []
    assert "TypeVar" not in text
    assert "Generic" not in text
    assert "class_getitem" not in text


def test_clients_are_classes_that_an_annotation_may_combine() -> None:
    def either(cache: Client | HashClient | FallbackClient) -> None: ...

    assert isinstance(MockMemcacheClient(), Client | HashClient)
    assert eval(either.__annotations__["cache"]) == Client | HashClient | FallbackClient
