"""The whole public surface of pymemcache, held against ours: every module, class, function, method,
parameter, order and default, as the installed reference has them.

What differs on purpose stands in docs/migrating.md, in the table "Every difference of the surface",
each row with its reason.  A difference in no row fails, and so does a row that describes none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pymemcache

from cymemcache.as_pymemcache import PymemcacheModule

GUIDE = Path(__file__).parents[1] / "docs" / "migrating.md"
SPECIAL = ("__getitem__", "__setitem__", "__delitem__")

# Those of its modules that are no tests of its own.
REFERENCE = {
    name: import_module(f"pymemcache{name}")
    for name in (
        *("", ".client", ".client.base", ".client.hash", ".client.murmur3", ".client.rendezvous"),
        *(".client.retrying", ".exceptions", ".fallback", ".pool", ".serde", ".test.utils"),
    )
}


def ours(name: str) -> PymemcacheModule:
    """The module that stands for ``pymemcache{name}``, which is not imported in its place."""
    return PymemcacheModule(f"pymemcache{name}")


def own_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public names that `module` defines, or has from another module of the reference."""
    for name, thing in vars(module).items():
        where = getattr(thing, "__module__", None)
        if name.startswith("_") or inspect.ismodule(thing):
            continue
        if where is None or isinstance(thing, (int, dict, set)) or where.startswith("pymemcache"):
            yield name, thing


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def in_full(kind: type, name: str) -> dict[str, inspect.Parameter]:
    """The parameters of a method; those of `Client`'s where it passes any on to that."""
    found = parameters(getattr(kind, name))
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    passes_on = [one.name for one in found.values() if one.kind in variable]
    client = REFERENCE[".client.base"].Client
    if not passes_on or kind is client or name == "stats":
        return found
    # HashClient.gets_multi is another name of gets_many, which Client has by that name only.
    full = parameters(getattr(client, name, None) or client.gets_many)
    return full | {one: found[one] for one in found if one not in (*full, *passes_on)}


def same(theirs: Any, mine: Any) -> bool:
    """Whether two defaults, or constants, mean the same thing on either side."""
    if inspect.isclass(theirs) or callable(theirs):
        return getattr(theirs, "__name__", theirs) == getattr(mine, "__name__", mine)
    return type(theirs) is type(mine) and bool(theirs == mine)


def compared(
    where: str, theirs: dict[str, inspect.Parameter], mine: dict[str, inspect.Parameter]
) -> Iterator[str]:
    """Where the parameters are not the reference's, by name, position, kind or default."""
    if list(mine)[: len(theirs)] != list(theirs):
        yield where
        return
    for name, parameter in mine.items():
        other = theirs.get(name)
        if (
            other is None
            or parameter.kind != other.kind
            or not same(other.default, parameter.default)
        ):
            yield f"{where}({name})"


def of_class(where: str, theirs: type, mine: type) -> Iterator[str]:
    if issubclass(theirs, Exception):
        ancestors = [[one.__name__ for one in kind.__mro__] for kind in (theirs, mine)]
        if ancestors[0] != ancestors[1]:
            yield where
        return
    yield from compared(where, parameters(theirs), parameters(mine))
    for name, thing in vars(theirs).items():
        if name.startswith("_") and name not in SPECIAL:
            continue
        other = getattr(mine, name, None)
        if inspect.isfunction(thing):
            if not inspect.isfunction(other):
                yield f"{where}.{name}"
            else:
                yield from compared(f"{where}.{name}", in_full(theirs, name), parameters(other))
        elif other is None or not (type(thing) is type(other) or same(thing, other)):
            yield f"{where}.{name}"


def differences() -> Iterator[str]:
    for module, theirs in REFERENCE.items():
        mine = ours(module)
        for name, thing in own_names(theirs):
            where = f"{module}.{name}".removeprefix(".")
            try:
                other = getattr(mine, name)
            except AttributeError:
                yield where
                continue
            if getattr(thing, "__module__", theirs.__name__) != theirs.__name__:
                assert other is getattr(ours(thing.__module__.removeprefix("pymemcache")), name)
            elif inspect.isclass(thing):
                yield from of_class(where, thing, other)
            elif inspect.isfunction(thing):
                yield from compared(where, parameters(thing), parameters(other))
            elif isinstance(thing, int):
                if thing != other:
                    yield where
            elif type(thing).__name__ != type(other).__name__:
                yield where


def documented() -> list[tuple[str, str]]:
    """(pattern, reason) of each row of the guide's table."""
    text = GUIDE.read_text(encoding="utf-8")
    section = text.partition("## Every difference of the surface")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [(name, row[-1].strip()) for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def test_the_reference_is_the_release_that_the_guide_speaks_of() -> None:
    assert pymemcache.__version__ == "4.0.0"
    assert len(list(own_names(REFERENCE[".client.base"]))) >= 10


def test_every_difference_is_in_the_guide_and_the_guide_names_no_other() -> None:
    patterns = documented()
    found = sorted(set(differences()))
    undocumented = [
        one for one in found if not any(fnmatchcase(one, pattern) for pattern, _ in patterns)
    ]
    assert undocumented == []
    stale = [
        pattern for pattern, _ in patterns if not any(fnmatchcase(one, pattern) for one in found)
    ]
    assert stale == []


def test_every_difference_has_a_reason() -> None:
    for name, reason in documented():
        assert len(reason) > 10, name


def test_a_difference_is_found_wherever_it_is() -> None:
    class Theirs:
        def same(self, a: int, b: int = 1) -> None: ...
        def default(self, a: int = 1) -> None: ...
        def missing(self) -> None: ...
        def order(self, a: int, b: int) -> None: ...
        def shorter(self, a: int, b: int) -> None: ...

    class Mine:
        def same(self, a: int, b: int = 1) -> None: ...
        def default(self, a: int = 2) -> None: ...
        def order(self, b: int, a: int) -> None: ...
        def shorter(self, a: int) -> None: ...

    assert list(of_class("T", Theirs, Mine)) == [
        *("T.default(a)", "T.missing", "T.order", "T.shorter")
    ]


def test_the_methods_of_the_unreleased_master_have_its_signatures() -> None:
    def described(function: Callable[..., Any]) -> list[tuple[str, Any]]:
        return [(name, one.default) for name, one in parameters(function).items()][1:]

    empty = inspect.Parameter.empty
    for kind in ("Client", "PooledClient", "HashClient"):
        client = getattr(ours(""), kind)
        assert described(client.gat) == [("key", empty), ("expire", 0), ("default", None)]
        assert described(client.gats) == [
            ("key", empty), ("expire", 0), ("default", None), ("cas_default", None),
        ]  # fmt: skip
        assert inspect.isfunction(client.stats)
