"""The methods of a client that passes commands on, made from those of `commands.Commands`.

They have the same names, signatures and docstrings, as ordinary functions that can be patched and
inspected, and nobody writes them a second time.  A command on one key goes to the public method of
the client that has the key, so that whoever wraps or overrides that method sees the call; any other
goes to the method of its name with an underscore before it.
"""

from __future__ import annotations

from .command_types import OF_A_CLUSTER, show
from .commands import Commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType
    from typing import Any, TypeVar

    T = TypeVar("T")

# What a method gives where the client of its key cannot be used, if that is not to raise.
_MISSES = {
    "get": "default",
    "gat": "default",
    "gets": "(default, cas_default)",
    "gats": "(default, cas_default)",
}

_ON_ONE_KEY = """\
def {name}(self, {parameters}):
    client, key = self._client_of(key)
    if client is None:
        return {miss}
    try:
        return client.{name}({arguments})
    except Exception as error:
        return self._excused(error, client, {miss})
"""

_ON_MANY = """\
def {name}(self, {parameters}):
    return self._{name}({arguments})
"""

_TAKES_ANY = 0x04  # of a code object's flags: there is an *args


def delegating(owner: type[T]) -> type[T]:
    """Class decorator: give `owner` a method for each command that it does not define itself."""
    functions = {
        name: function
        for name, function in vars(Commands).items()
        if not name.startswith("_") and callable(function)
    }
    source = "".join(_source(function) for function in set(functions.values()))
    made: dict[str, Any] = {}
    # Not this file's name: a traceback would show lines of it that have nothing to do with them.
    exec(compile(source, f"<{__name__}>", "exec"), made)
    for name, function in functions.items():
        if name not in vars(owner):
            method = made[function.__name__]
            method.__doc__ = function.__doc__
            method.__module__ = owner.__module__
            method.__qualname__ = f"{owner.__qualname__}.{function.__name__}"
            setattr(owner, name, method)
    show(made.values(), OF_A_CLUSTER)
    return owner


def _source(function: FunctionType | Callable[..., Any]) -> str:
    code = function.__code__
    names = list(code.co_varnames[1 : code.co_argcount])
    defaults = [f"={default!r}" for default in function.__defaults__ or ()]
    parameters = [
        name + default
        for name, default in zip(names, [""] * (len(names) - len(defaults)) + defaults, strict=True)
    ]
    if code.co_flags & _TAKES_ANY:
        names.append("*" + code.co_varnames[code.co_argcount])
        parameters.append(names[-1])
    name = function.__name__
    template = _ON_ONE_KEY if names[:1] == ["key"] else _ON_MANY
    return template.format(
        name=name,
        parameters=", ".join(parameters),
        arguments=", ".join(names),
        miss=_MISSES.get(name, "False"),
    )
