"""The command line: ``python -m cymemcache demo``.

Exit codes: 0 all is well, 1 a check failed or the server cannot be reached, 2 wrong usage, and 128
and the signal's number where one ended it.  What a user can have caused is told in one line, never
in a traceback.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import __impl__, __version__
from .addresses import normalize_server_spec

_PROGRAM = "python -m cymemcache"
_EPILOG = """\
environment:
  CYMEMCACHE_IMPL   the core to run on: c (compiled) or python (its pure twin);
                    unset: the compiled one where it is there
  NO_COLOR          where it is set, the output has no colours

exit codes:
  0 all is well, 1 a check failed or the server cannot be reached, 2 wrong usage
"""
_DEMO = """\
Show the package at work. It takes a few hundred made-up records to a memcached
and back (set, get, set_many, get_many, cas, incr, decr, touch, delete), checks
every reply, and then times the compiled core against its pure twin.

The server is the one given with --server, else a memcached that is found on
PATH and started on a free loopback port, else one that is embedded here.

It is harmless on a server in use: its keys have a prefix of their own, expire
within minutes and are deleted at the end. It sends no command that touches
another key.
"""
_DEMO_EPILOG = """\
examples:
  python -m cymemcache demo
  python -m cymemcache demo --server localhost:11211
  CYMEMCACHE_IMPL=python python -m cymemcache demo --server unix:/run/memcached.sock
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _demo(given)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="cymemcache: a memcached client with a compiled core.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"cymemcache {__version__}, implementation {__impl__}, "
        f"{platform.python_implementation()} {platform.python_version()}",
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="show the package at work on real values, and how fast its core is",
        description=_DEMO,
        epilog=_DEMO_EPILOG,
        formatter_class=raw,
    )
    demo.add_argument(
        "--server",
        type=_address,
        metavar="ADDRESS",
        help="host, host:port, [ipv6]:port, unix:/path or /path; the port is 11211 if not given",
    )
    demo.add_argument(
        "--quick",
        action="store_true",
        help="fewer records and one short round of timing: does it work, not how fast",
    )
    return parser


def _address(text: str) -> Any:
    try:
        return normalize_server_spec(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _demo(given: argparse.Namespace) -> int:
    from .demo import DemoError
    from .demo.screen import OutputClosed
    from .demo.show import show

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # By default these end the process at once, and the server it has started would stay.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        show(given.server, quick=given.quick)
    except DemoError as error:
        print(f"{_PROGRAM} demo: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{_PROGRAM} demo: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except OutputClosed:
        # Nobody reads on: what is still in the buffer must not fail when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as though SIGPIPE had ended it
    return 0


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
