"""README.md tells the truth: its Python examples run against a server as they stand, and the value
in a comment behind an expression is what the expression gives.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import cymemcache
from cymemcache import Client, HashClient, PooledClient
from wire import PATIENCE, Server

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def stated(line: str) -> Any:
    """The value in the comment of `line`, up to its first further word; Ellipsis without one."""
    _, mark, comment = line.partition("  # ")
    for end in range(len(comment), 0, -1):
        if mark and (end == len(comment) or comment[end] in " ;"):
            try:
                return ast.literal_eval(comment[:end].strip())
            except (SyntaxError, ValueError):
                continue
    return ...


def run(code: str, names: dict[str, Any]) -> int:
    """Run `code`, and compare what it states; how many values were compared."""
    compared = 0
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        source = ast.get_source_segment(code, statement)
        assert source is not None
        expected = stated(lines[statement.lineno - 1])
        if isinstance(statement, ast.Expr) and expected is not ...:
            assert (source, eval(source, names)) == (source, expected)
            compared += 1
        else:
            exec(source, names)
    return compared


def test_examples_do_what_they_say(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_hand(kind: type) -> Any:
        """Makes the examples' clients; their servers are the one that the test has."""

        def make(address: Any, **options: Any) -> Any:
            if isinstance(address, list):
                address = [server.address]
            elif isinstance(address, str) and address.startswith("localhost"):
                address = server.address
            clients.append(kind(address, **{"timeout": PATIENCE, **options}))
            return clients[-1]

        return make

    clients: list[Any] = []
    for kind in (Client, HashClient, PooledClient):
        monkeypatch.setattr(cymemcache, kind.__name__, at_hand(kind))
    try:
        names: dict[str, Any] = {}
        compared = [run(code, names) for code in EXAMPLES]
    finally:
        for client in clients:
            client.close()
    assert len(EXAMPLES) >= 3
    assert compared[0] >= 6
    assert len(clients) >= 5


def test_all_that_it_names_is_there() -> None:
    options = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| `(.*?)` \|", README, re.MULTILINE)
    assert len(options) >= 6
    parameters = cymemcache.options.CLIENT.options
    for names, default in options:
        for name in re.findall(r"`(\w+)`", names):
            if name == "socket_module":
                assert parameters[name].default.__name__ == default
            else:
                assert parameters[name].default == ast.literal_eval(default), name


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[2] / link).exists(), link
