"""The sans-I/O core, and the one place that chooses its compiled or its pure twin.

An extension is loaded once in a process, also where its package is imported again (after
`unittest.mock.patch.dict` of `sys.modules`, by reloaders): compiled modules keep the marks, errors
and functions of the first import.  So later imports of a process get these modules, too.

`CYMEMCACHE_IMPL` in the environment decides: ``c`` (which raises where the extension is missing),
``python``, or unset for the compiled one where it is there.  It is all or nothing: a process never
runs a mix of the two.  No other module imports a compiled one.
"""

from __future__ import annotations

import os
import sys

__all__ = [
    "Cells",
    "IdleConnections",
    "KetamaTable",
    "PlainCalls",
    "PlainExchange",
    "RendezvousTable",
    "ReplyParser",
    "Requests",
    "fetch_from_all",
    "fork_count",
    "gather",
    "impl",
    "md5_words",
    "murmur3_32",
    "one_at_a_time",
    "refusal",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .ketama_py import KetamaTable as KetamaTable
    from .ketama_py import md5_words as md5_words
    from .ketama_py import one_at_a_time as one_at_a_time
    from .parser_py import ReplyParser as ReplyParser
    from .rendezvous_py import RendezvousTable as RendezvousTable
    from .rendezvous_py import murmur3_32 as murmur3_32
    from .requests_py import Requests as Requests

    impl: str
    # Why a compiled core that is there is not used, such as in a second interpreter of a process.
    refusal: str | None

    # The exchange of bytes over a plain socket in one compiled call; None on the pure twin.
    PlainExchange: Any

    # The outcomes of commands begun on several of them: `gather.gather`; None on the pure twin.
    gather: Any

    # The usual fetch from several nodes in one compiled call; None on the pure twin.
    fetch_from_all: Any

    # Numbers that the compiled way adds to.
    class Cells:
        commands: int
        hits: int
        misses: int
        retries: int
        reconnects: int
        evicted: int
        noreply_errors: int
        noreply_lost: int

    # The usual command's compiled way; the pure twin's have nothing in them.
    class IdleConnections: ...

    class PlainCalls: ...

    # How often this process and its ancestors were forked; None on the pure twin.
    fork_count: Callable[[], int] | None
else:
    _wanted = os.environ.get("CYMEMCACHE_IMPL", "")
    if _wanted not in ("", "c", "python"):
        raise ImportError(
            f"CYMEMCACHE_IMPL must be 'c' or 'python' where it is set, not {_wanted!r}"
        )

    def _share(parser_c):
        """Give this import the modules that the compiled ones have taken theirs from.

        They are kept in the one that is loaded once.  Nothing has imported them before: see the
        package's first line.
        """
        if not hasattr(parser_c, "shared"):
            parser_c.shared = {name: sys.modules[name] for name in _SHARED}
        for name, module in parser_c.shared.items():
            sys.modules[name] = module
            package, _, own_name = name.rpartition(".")
            setattr(sys.modules[package], own_name, module)

    _SHARED = (
        "cymemcache.exceptions",
        "cymemcache.core.arguments",
        "cymemcache.core.replies",
        "cymemcache.core.restored",
    )

    impl = "python"
    refusal = None
    if _wanted != "python":
        try:
            from .ketama_c import KetamaTable, md5_words, one_at_a_time
            from .parser_c import ReplyParser
            from .rendezvous_c import RendezvousTable, murmur3_32
            from .requests_c import Requests

            if os.name == "posix":
                from .calls_c import Cells, IdleConnections, PlainCalls
                from .exchange_c import PlainExchange, fork_count, gather
                from .scatter_c import fetch_from_all
            from . import parser_c

            _share(parser_c)
            impl = "c"
        except ImportError as error:
            if not isinstance(error, ModuleNotFoundError):
                refusal = f"cannot be loaded here: {error}"
            if _wanted == "c":
                reason = refusal or (
                    "is not there: install a wheel for this platform, or build with "
                    "CYMEMCACHE_BUILD_EXT=1"
                )
                raise ImportError(
                    f"CYMEMCACHE_IMPL=c, but the compiled core of cymemcache {reason}"
                ) from error
    if impl == "python":
        from .ketama_py import KetamaTable, md5_words, one_at_a_time
        from .parser_py import ReplyParser
        from .rendezvous_py import RendezvousTable, murmur3_32
        from .requests_py import Requests
    if impl == "python" or os.name != "posix":
        PlainExchange = fork_count = gather = fetch_from_all = None

        class Cells:
            """What a client counts, which here is ordinary attributes."""

        class IdleConnections:
            """The pool's state, which here is ordinary attributes."""

        class PlainCalls:
            """No compiled way: `calls.Calls` does it all."""
