"""Every example in the pages of docs/ that have some runs; what lists files, lists all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
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


def test_the_architecture_has_one_line_for_each_module() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    table = text.partition("| file |")[2].partition("\n\n")[0].splitlines()
    listed = [name for row in table for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    folders = tuple(name for name in listed if name.endswith("/"))
    source = ROOT / "src" / "cymemcache"
    modules = [path.relative_to(source).as_posix() for path in source.rglob("*.py")]
    modules += [path.relative_to(ROOT).as_posix() for path in (ROOT / "cext").glob("*.pyx")]
    expected = [name for name in modules if name != "__init__.py" and not name.startswith(folders)]
    assert sorted(listed) == sorted([*expected, *folders])


def test_the_readme_lists_each_page_once() -> None:
    listed = re.findall(r"^- \[docs/(.*?)\]", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))
