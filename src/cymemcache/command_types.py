"""What the commands take and give: type variables for type checkers, plain words for `help`.

The commands are written once and give different things in different clients, so their annotations
are type variables.  What those stand for in a client, its class says to type checkers
(`commands.SyncCommands`, `ClusterCommands`); to people `show` does, in the annotations themselves.
Nothing in here may load typing at run time, or change what a command does.
"""

from __future__ import annotations

# The annotations of each command, as they were written.
_written: dict[str, dict[str, str]] = {}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Generic, TypeVar
    from typing import overload as overload

    KeyT = TypeVar("KeyT")
    AnyR = TypeVar("AnyR")
    BoolR = TypeVar("BoolR")
    CasR = TypeVar("CasR")
    IntR = TypeVar("IntR")
    KeysR = TypeVar("KeysR")
    DictR = TypeVar("DictR")
    PairR = TypeVar("PairR")
    NoneR = TypeVar("NoneR")
    # Of the commands without a key, which all nodes of a cluster answer.
    OkR = TypeVar("OkR")
    TextR = TypeVar("TextR")
    StatsR = TypeVar("StatsR")

    class Results(
        Generic[KeyT, AnyR, BoolR, CasR, IntR, KeysR, DictR, PairR, NoneR, OkR, TextR, StatsR]
    ):
        """What a class of commands is generic in."""

else:

    class _Results:
        """Stands for typing's Generic: a base that leaves no trace."""

        def __getitem__(self, parameters):
            return self

        def __mro_entries__(self, bases):
            return ()

    Results = _Results()
    KeyT = AnyR = BoolR = CasR = IntR = KeysR = DictR = PairR = NoneR = OkR = TextR = StatsR = None

    def overload(function):
        """Stands for typing's.  The last one, which is the most general, is what `help` shows."""
        _written[function.__name__] = function.__annotations__
        return function


#: What the type variables stand for in the client of one server.
OF_ONE_SERVER = {
    "KeyT": "str | bytes",
    "AnyR": "Any",
    "BoolR": "bool",
    "CasR": "bool | None",
    "IntR": "int | None",
    "KeysR": "list[Any]",
    "DictR": "dict[Any, Any]",
    "PairR": "tuple[Any, Any]",
    "NoneR": "None",
    "OkR": "bool",
    "TextR": "bytes",
    "StatsR": "dict[bytes, Any]",
}
#: The same in the client of a cluster, where all nodes answer a command without a key.
OF_A_CLUSTER = {
    **OF_ONE_SERVER,
    "KeyT": "str | bytes | tuple[str | bytes, str | bytes]",
    "OkR": "dict[str, bool]",
    "TextR": "dict[str, bytes | None]",
    "StatsR": "dict[str, dict[bytes, Any]]",
}


def remember(members: Iterable[Any]) -> None:
    """Keep the annotations of the commands among `members` as they were written."""
    for command in members:
        if callable(command):
            _written.setdefault(command.__name__, command.__annotations__)


def show(members: Iterable[Any], meanings: dict[str, str]) -> None:
    """Let the annotations of the commands among `members` say what their type variables mean."""
    for method in members:
        written = _written.get(getattr(method, "__name__", ""))
        if written is not None:
            method.__annotations__ = {
                name: _spelled(annotation, meanings) for name, annotation in written.items()
            }


def _spelled(annotation: str, meanings: dict[str, str]) -> str:
    for variable, meaning in meanings.items():
        annotation = annotation.replace(variable, meaning)
    return annotation
