"""Every example in the pages of docs/ that have some runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    name: (DOCS / name).read_text("utf-8")
    for name in ("cluster.md", "counters.md", "discovery.md", "testing.md", "wrappers.md")
}
EXAMPLES = [
    pytest.param(example, id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, example in enumerate(
        re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    )
]


def test_the_examples_are_found() -> None:
    counts = {name: text.count("```python") for name, text in PAGES.items()}
    assert counts == {
        "cluster.md": 2,
        "counters.md": 2,
        "discovery.md": 1,
        "testing.md": 4,
        "wrappers.md": 3,
    }
    assert len(EXAMPLES) == 12


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example(example: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(example, "example", "exec"), names)
    for name, test in names.items():
        if name.startswith("test_"):
            with EmbeddedServer() as server:
                test(server)
