"""The command line's demo, run as users run it, in a process of its own.

It finds its server in three ways, checks what comes back, times both cores, and prints a table with
or without rich.  It leaves nothing behind, on the machine or on the server, however it ends; and
what goes wrong is told in one line.
"""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cymemcache
from cymemcache.testing import Answer, Close, EmbeddedServer
from cymemcache.testing.process import accepts, free_port
from wire import PATIENCE, Server

STEPS = ["set", "get", "set_many", "get_many", "cas", "incr, decr", "touch", "delete"]
JOBS = ["get", "set", "set, noreply", "get_many, 100 keys", "set_many, 100 keys"]
ESCAPE = "\x1b"
WITH_RICH = ["-m", "cymemcache"]
WITHOUT_RICH = [
    "-c",
    "import runpy, sys; sys.modules['rich'] = None; sys.argv[0] = 'cymemcache'; "
    "runpy.run_module('cymemcache', run_name='__main__', alter_sys=True)",
]


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without what would change the output, then with `changes`."""
    changed: dict[str, str | None] = {
        **os.environ,
        "COLUMNS": "80",
        "FORCE_COLOR": None,
        "NO_COLOR": None,
        # A socket or a pipe that is not closed shows up on stderr.
        "PYTHONWARNINGS": "error",
        "TERM": "xterm-256color",
        **changes,
    }
    return {name: value for name, value in changed.items() if value is not None}


def run(
    *arguments: str, program: list[str] = WITH_RICH, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    """The command line with `arguments`, until it has ended."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=environment(PYTHONIOENCODING="utf-8", **changes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=3 * PATIENCE,
    )


def quick(
    *arguments: str, program: list[str] = WITH_RICH, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    return run("demo", "--quick", *arguments, program=program, **changes)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a demo that did all it is there for, and had nothing to complain about."""
    assert done.stderr == ""
    assert done.returncode == 0
    assert re.findall(r"^  (\S.*?) {2,}\d.* ms$", done.stdout, re.MULTILINE) == STEPS
    assert "the demo's keys are deleted" in done.stdout
    return done.stdout


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a demo which failed had to say."""
    assert done.returncode == 1
    line, *others = done.stderr.splitlines()
    assert others == []
    assert line.startswith("python -m cymemcache demo: ")
    return line


def table(output: str) -> list[str]:
    """The lines of the table, headings first, without the rule."""
    lines = output[output.index("\n  command ") + 1 :].split("\n\n")[0].splitlines()
    assert set(lines.pop(1)) <= {" ", "-", "─"}
    return lines


def shown(output: str) -> list[tuple[str, str]]:
    """The command and the core of every row of the table."""
    rows = []
    command = ""
    for line in table(output)[1:]:
        found = re.fullmatch(r"  (\S.*?)? +(compiled|pure) .*", line)
        assert found is not None, line
        command = found[1] or command
        rows.append((command, found[2]))
    return rows


def spoken_to(output: str) -> tuple[str, int]:
    """The address that the output names."""
    found = re.search(r"server +(\S+):(\d+), version", output)
    assert found is not None
    return found[1], int(found[2])


def name(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


# -- the server ------------------------------------------------------------------------------------


def test_demo_uses_the_server_it_is_given(server: Server) -> None:
    output = succeeded(quick("--server", name(server.address)))
    version = server.raw(b"version\r\n").split()[1].decode()
    assert f"{name(server.address)}, version {version}\n" in output
    assert "as given by --server" in output


def test_demo_takes_the_path_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with EmbeddedServer(unix_path=path):
        output = succeeded(quick("--server", f"unix:{path}"))
    assert f"{path}, version" in output


def test_demo_in_full_on_the_memcached_on_path_which_ends_with_it() -> None:
    output = succeeded(run("demo"))
    assert f"{shutil.which('memcached')}, found on PATH" in output
    assert "300 users" in output
    assert re.search(r"medians of \d rounds", output)
    assert not accepts(spoken_to(output))


def test_demo_uses_the_embedded_server_where_there_is_no_memcached() -> None:
    output = succeeded(quick(PATH=""))
    assert "the embedded server, in this process: there is no memcached on PATH" in output
    assert not accepts(spoken_to(output))


def test_demo_uses_the_embedded_server_where_the_memcached_does_not_start(tmp_path: Path) -> None:
    program = tmp_path / "memcached"
    program.write_text("#!/bin/sh\necho no memory today >&2\nexit 71\n")
    program.chmod(0o755)
    output = succeeded(quick(PATH=str(tmp_path)))
    assert "the embedded server" in output
    assert "does not start" in output
    assert "no memory today" in output


# -- what it leaves on the server ------------------------------------------------------------------


def test_demo_deletes_its_keys_and_no_others(server: Server) -> None:
    with cymemcache.Client(server.address, timeout=PATIENCE, default_noreply=False) as client:
        for key in ("user:1", "cymemcache-demo:", "item"):
            client.set(key, f"not the demo's: {key}", flags=5)
        before = client.gets_many(["user:1", "cymemcache-demo:", "item"])
        succeeded(quick("--server", name(server.address)))
        assert client.gets_many(["user:1", "cymemcache-demo:", "item"]) == before
        assert client.stats()[b"curr_items"] == 3


def test_demo_sends_nothing_that_reaches_beyond_its_own_keys_which_expire_soon() -> None:
    with EmbeddedServer(recording=True) as server:
        succeeded(quick("--server", name(server.address)))
        lines = [line.split() for _, line in server.requests]
    verbs = {line[0] for line in lines}
    assert verbs == set(b"version set get gets cas incr decr touch delete".split())
    prefixes = set()
    for verb, *words in lines:
        if verb in (b"set", b"cas"):
            assert 0 < int(words[2]) <= 300
        keys = [] if verb == b"version" else words if verb in (b"get", b"gets") else words[:1]
        for key in keys:
            found = re.match(rb"cymemcache-demo:\d+-[0-9a-f]{8}:", key)
            assert found is not None
            prefixes.add(found[0])
    assert len(prefixes) == 1


# -- the implementations ---------------------------------------------------------------------------


@pytest.mark.parametrize(("impl", "core"), [("c", "compiled"), ("python", "pure")])
def test_demo_walks_on_the_chosen_core_and_times_both(
    running_memcached: Server, impl: str, core: str
) -> None:
    done = quick("--server", name(running_memcached.address), CYMEMCACHE_IMPL=impl)
    output = succeeded(done)
    assert f"implementation  {impl} (the {core} core)" in output
    assert shown(output) == [(job, each) for job in JOBS for each in ("compiled", "pure")]
    assert "ratio" in table(output)[0]


def test_demo_without_compiled_core_says_so_and_shows_the_pure_one_alone(
    running_memcached: Server, tmp_path: Path
) -> None:
    package = Path(cymemcache.__file__).parent
    shutil.copytree(
        package,
        tmp_path / "cymemcache",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    done = quick(
        "--server",
        name(running_memcached.address),
        PYTHONPATH=str(tmp_path),
        CYMEMCACHE_IMPL=None,
    )
    output = succeeded(done)
    assert "implementation  python" in output
    assert "There is no compiled core here" in output
    assert shown(output) == [(job, "pure") for job in JOBS]
    assert "ratio" not in table(output)[0]


# -- the output ------------------------------------------------------------------------------------


def on_terminal(*arguments: str, program: list[str] = WITH_RICH, **changes: str | None) -> str:
    """What the command line prints where its output is a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env=environment(PYTHONIOENCODING="utf-8", **changes),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        )
    finally:
        os.close(theirs)
    with process, open(ours, "rb", buffering=0) as terminal:
        printed = b""
        while True:
            try:
                chunk = terminal.read(1 << 16)
            except OSError:  # Linux: nobody has the other end open any more
                break
            if not chunk:
                break
            printed += chunk
    assert process.returncode == 0
    return printed.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("program", "forced"),
    [(WITH_RICH, None), (WITH_RICH, "1"), (WITHOUT_RICH, None)],
    ids=["rich", "rich with FORCE_COLOR", "plain"],
)
def test_output_into_a_pipe_has_no_escape_codes_and_its_columns_are_aligned(
    running_memcached: Server, program: list[str], forced: str | None
) -> None:
    assert importlib.util.find_spec("rich") is not None
    done = quick("--server", name(running_memcached.address), program=program, FORCE_COLOR=forced)
    output = succeeded(done)
    assert ESCAPE not in output
    heading, *rows = table(output)
    bars = heading.index("µs per key")
    for row in rows:
        assert row[bars - 2 : bars] == "  "
        assert re.fullmatch("█*[▏▎▍▌▋▊▉]?", row[bars:]), row
        assert len(row) > bars
        assert row[heading.index("core") :].startswith(("compiled  ", "pure  "))
        for column in ("µs/command", "commands/s", "ratio"):
            end = heading.index(column) + len(column)
            assert row[end - 1] != " "
            assert row[end] == " "
    assert max(len(line) for line in table(output)) <= 80


def test_output_is_the_same_with_rich_and_without(running_memcached: Server) -> None:
    def text(program: list[str]) -> str:
        done = quick("--server", name(running_memcached.address), program=program)
        # Without the bars, the padding and the numbers, which differ from run to run.
        return re.sub(r"[█▏▎▍▌▋▊▉]+|[-\d.,]+|[ \N{MULTIPLICATION SIGN}─]+", "", succeeded(done))

    assert text(WITH_RICH) == text(WITHOUT_RICH)


def test_terminal_gets_colours_from_rich(running_memcached: Server) -> None:
    printed = on_terminal("demo", "--quick", "--server", name(running_memcached.address))
    assert ESCAPE in printed
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
    assert ESCAPE not in plain
    assert shown(plain) == [(job, core) for job in JOBS for core in ("compiled", "pure")]


@pytest.mark.parametrize(
    ("program", "no_color"),
    [(WITH_RICH, "1"), (WITHOUT_RICH, None)],
    ids=["NO_COLOR", "without rich"],
)
def test_terminal_gets_no_escape_codes(
    running_memcached: Server, program: list[str], no_color: str | None
) -> None:
    printed = on_terminal(
        "demo",
        "--quick",
        "--server",
        name(running_memcached.address),
        program=program,
        NO_COLOR=no_color,
    )
    assert ESCAPE not in printed
    assert len(shown(printed)) == 2 * len(JOBS)


@pytest.mark.parametrize("program", [WITH_RICH, WITHOUT_RICH], ids=["rich", "plain"])
def test_output_keeps_to_the_characters_of_its_encoding(
    running_memcached: Server, program: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, *program, "demo", "--quick", "--server", name(running_memcached.address)],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=3 * PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    heading, *rows = table(done.stdout.decode("ascii"))
    bars = heading.index("us per key")
    assert all(re.fullmatch("#+", row[bars:]) for row in rows)


# -- what goes wrong -------------------------------------------------------------------------------


def test_unreachable_server_is_told_in_one_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    line = failed(quick("--server", address))
    assert f"the server {address}: " in line
    assert "refused" in line


def test_missing_unix_socket_is_told_in_one_line(tmp_path: Path) -> None:
    line = failed(quick("--server", str(tmp_path / "missing")))
    assert f"the server {tmp_path / 'missing'}: " in line
    assert "No such file" in line


def test_server_that_is_no_memcached_is_told_in_one_line() -> None:
    with EmbeddedServer() as server:
        server.inject(Answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), times=None)
        line = failed(quick("--server", name(server.address)))
    assert "HTTP/1.1 400" in line


@pytest.mark.parametrize(
    ("verb", "skip", "reply", "told"),
    [
        ("set", 4, b"NOT_STORED\r\n", r"set user:5: expected True, got False"),
        ("get", 4, b"END\r\n", r"get user:5: expected \{'id': 5.*, got None"),
        ("set", 32, b"NOT_STORED\r\n", r"set_many: expected \[\], got \['session:[0-9a-f]{16}'\]"),
        ("get", 31, b"END\r\n", r"get_many, session:[0-9a-f]{16}: expected \{'user': 1.* got None"),
        ("cas", 0, b"STORED\r\n", r"cas user:1 with a token that is .*: expected False, got True"),
        ("cas", 1, b"EXISTS\r\n", r"cas user:1: expected True, got False"),
        ("incr", 0, b"7\r\n", r"incr views:\w+: expected 1, got 7"),
        ("decr", 1, b"7\r\n", r"decr views:\w+ below 0: expected 0, got 7"),
        ("touch", 0, b"NOT_FOUND\r\n", r"touch user:1: expected True, got False"),
        ("delete", 0, b"NOT_FOUND\r\n", r"delete user:1: expected True, got False"),
        ("delete", 1, b"DELETED\r\n", r"delete user:1 again: expected False, got True"),
    ],
)
def test_wrong_reply_ends_the_demo_which_says_what_was_wrong(
    verb: str, skip: int, reply: bytes, told: str
) -> None:
    with EmbeddedServer() as server:
        injection = server.inject(Answer(reply), verb=verb, skip=skip)
        line = failed(quick("--server", name(server.address)))
        assert injection.hits == 1
    assert re.search(told, line), line


def test_connection_lost_in_the_walk_is_told_in_one_line() -> None:
    with EmbeddedServer() as server:
        server.inject(Close(), verb="incr")
        line = failed(quick("--server", name(server.address)))
        assert f"the server {name(server.address)}: " in line


def test_connection_lost_while_timing_is_told_in_one_line() -> None:
    with EmbeddedServer() as server:
        # The demo's own connections come first: a look at the version, and two for the walk.
        server.inject(Close(), on_connect=True, skip=3)
        line = failed(quick("--server", name(server.address)))
    assert "timing the compiled core: " in line


@pytest.mark.parametrize("address", ["host:port:x", "", "host:70000", "host:", "[::1"])
def test_bad_address_is_wrong_usage(address: str) -> None:
    done = quick("--server", address)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m cymemcache demo" in done.stderr
    assert "argument --server: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["dmeo"], ["demo", "--serve"]])
def test_unknown_or_missing_command_is_wrong_usage(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: python -m cymemcache" in done.stderr


def test_help_tells_about_the_options_and_the_exit_codes() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("demo", "CYMEMCACHE_IMPL", "NO_COLOR", "exit codes"):
        assert word in done.stdout
    done = run("demo", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--server ADDRESS", "--quick", "harmless"):
        assert word in done.stdout


@pytest.mark.parametrize("impl", ["c", "python"])
def test_version_names_the_implementation(impl: str) -> None:
    done = run("--version", CYMEMCACHE_IMPL=impl)
    assert (done.returncode, done.stderr) == (0, "")
    expected = f"cymemcache {cymemcache.__version__}, implementation {impl}, CPython "
    assert done.stdout.startswith(expected)


# -- interruptions ---------------------------------------------------------------------------------


@contextmanager
def started(**options: Any) -> Iterator[subprocess.Popen[str]]:
    """A demo in full, in a process group of its own; afterwards nothing of the group is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cymemcache", "demo"],
        env=environment(PYTHONIOENCODING="utf-8"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        **options,
    )
    with process:
        try:
            yield process
            deadline = time.monotonic() + PATIENCE
            while process_group_exists(process.pid):
                assert time.monotonic() < deadline, "processes that the demo has left behind"
                time.sleep(0.01)
        finally:
            if process_group_exists(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def process_group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the process prints, up to the line with `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} is not in {''.join(lines)!r}")


@pytest.mark.parametrize(
    ("moment", "kill"),
    [("  get_many ", os.kill), ("The compiled core against", os.killpg)],
    ids=["in the walk", "Ctrl-C while timing"],
)
def test_interrupt_ends_the_demo_and_its_server(
    moment: str, kill: Callable[[int, int], None]
) -> None:
    with started() as process:
        output = read_until(process, moment)
        assert accepts(spoken_to(output))
        time.sleep(0.2)
        kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert errors == "python -m cymemcache demo: interrupted\n"
        assert process.returncode == 130
        assert not accepts(spoken_to(output))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_ends_the_demo_and_its_server(number: signal.Signals) -> None:
    with started() as process:
        output = read_until(process, "  get_many ")
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (128 + number, "")
        assert not accepts(spoken_to(output))


def test_output_that_nobody_reads_ends_the_demo_and_its_server() -> None:
    with started() as process:
        output = read_until(process, "server")
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 141
        assert not accepts(spoken_to(output))
