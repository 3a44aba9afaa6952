"""Every example in docs/testing.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cymemcache.testing import EmbeddedServer

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) == PAGE.read_text("utf-8").count("```python") == 4


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(example: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    for name, test in names.items():
        if name.startswith("test_"):
            with EmbeddedServer() as server:
                test(server)
