"""The package as its users get it: built in isolation, installed in a clean environment.

Nothing here may look at the working tree's own modules: every check is made on a built archive, or
by an interpreter of its own, started outside the repository.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted((ROOT / "cext").glob("*.pyx"))

# A module that goes through Cython and stops in the C compiler.
BROKEN_MODULE = '''\
# cython: language_level=3
cdef extern from *:
    """
    #error "this module cannot be compiled"
    """
'''

pytestmark = pytest.mark.timeout(600)


def run(*command: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside the repository's influence; stdout and stderr come as one text."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CYMEMCACHE_", "PYTHON"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | environ,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def build(
    source: Path, folder: Path, *options: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "build", *options, "--outdir", folder, source]
    return run(*command, cwd=folder.parent, **environ)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built in isolation."""
    folder = tmp_path_factory.mktemp("sdist")
    done = build(ROOT, folder, "--sdist")
    assert done.returncode == 0, done.stdout
    return only(folder, "*.tar.gz")


@pytest.fixture(scope="module")
def unpack(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives a fresh source tree, unpacked from the source distribution."""

    def unpack() -> Path:
        folder = tmp_path_factory.mktemp("source")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        return only(folder, "cymemcache-*")

    return unpack


def isolated_wheel(source: Path, **environ: str) -> Path:
    """The wheel that is built in isolation from an unpacked source distribution."""
    folder = source.parent / "dist"
    done = build(source, folder, "--wheel", **environ)
    assert done.returncode == 0, done.stdout
    return only(folder, "*.whl")


@pytest.fixture(scope="module")
def compiled_wheel(unpack: Callable[[], Path]) -> Path:
    return isolated_wheel(unpack(), CYMEMCACHE_BUILD_EXT="1")


@pytest.fixture(scope="module")
def pure_wheel(unpack: Callable[[], Path]) -> Path:
    return isolated_wheel(unpack(), CYMEMCACHE_BUILD_EXT="0")


def installed(wheel: Path, folder: Path, code: str, **environ: str) -> str:
    """What `code` prints in a clean environment that holds the wheel and nothing else."""
    environment = folder / "environment"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    for command in (
        [sys.executable, "-m", "venv", environment],
        [python, "-m", "pip", "install", "--no-index", "--no-deps", wheel],
    ):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stdout
    done = run(python, "-c", code, cwd=folder, **environ)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def extension_modules(wheel: Path) -> set[str]:
    return {
        Path(name).name.split(".")[0] for name in names(wheel) if name.endswith((".so", ".pyd"))
    }


WHERE = "import cymemcache; print(cymemcache.__impl__, cymemcache.__file__)"


def test_the_wheel_installed_elsewhere_runs_compiled(compiled_wheel: Path, tmp_path: Path) -> None:
    impl, file = installed(compiled_wheel, tmp_path, WHERE).split(maxsplit=1)
    assert impl == "c"
    assert Path(file).is_relative_to(tmp_path)


def test_the_pure_wheel_installed_elsewhere_runs_pure(pure_wheel: Path, tmp_path: Path) -> None:
    impl, file = installed(pure_wheel, tmp_path, WHERE).split(maxsplit=1)
    assert impl == "python"
    assert Path(file).is_relative_to(tmp_path)


def test_the_pure_wheel_refuses_to_run_compiled(pure_wheel: Path, tmp_path: Path) -> None:
    code = "try:\n    import cymemcache\nexcept ImportError as error:\n    print(error)"
    assert "CYMEMCACHE_IMPL" in installed(pure_wheel, tmp_path, code, CYMEMCACHE_IMPL="c")


def test_the_pure_wheel_fits_every_platform(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert extension_modules(pure_wheel) == set()


def test_the_compiled_wheel_holds_every_extension_module(compiled_wheel: Path) -> None:
    assert not compiled_wheel.name.endswith("-any.whl")
    assert extension_modules(compiled_wheel) == {source.stem for source in SOURCES}


@pytest.mark.parametrize("kind", ["compiled_wheel", "pure_wheel"])
def test_a_wheel_holds_the_package_and_no_sources_of_the_extension(
    kind: str, request: pytest.FixtureRequest
) -> None:
    contents = names(request.getfixturevalue(kind))
    assert "cymemcache/py.typed" in contents
    modules = {path.relative_to(ROOT / "src").as_posix() for path in ROOT.glob("src/**/*.py")}
    assert modules == {name for name in contents if name.endswith(".py")}
    assert [name for name in contents if name.endswith((".pyx", ".c", ".h", ".html"))] == []
    assert {name.split("/")[0].split("-")[0] for name in contents} == {"cymemcache"}


@pytest.mark.parametrize("kind", ["compiled_wheel", "pure_wheel"])
def test_a_wheel_carries_the_licence(kind: str, request: pytest.FixtureRequest) -> None:
    wheel = request.getfixturevalue(kind)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_the_package_needs_nothing_at_run_time(pure_wheel: Path) -> None:
    fields = metadata(pure_wheel)
    assert fields["Requires-Python"] == ">=3.11"
    assert [need for need in fields.get_all("Requires-Dist", []) if "extra ==" not in need] == []


def test_the_version_of_the_distribution_is_that_of_the_module(
    pure_wheel: Path, tmp_path: Path
) -> None:
    code = "import cymemcache; print(cymemcache.__version__)"
    assert installed(pure_wheel, tmp_path, code) == metadata(pure_wheel)["Version"]


def test_the_source_distribution_holds_what_builds_and_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        contents = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {source.relative_to(ROOT).as_posix() for source in SOURCES}
    wanted |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")}
    wanted |= {"LICENSE", "Makefile", "README.md", "pyproject.toml", "setup.py", ".ci/run"}
    assert wanted - contents == set()
    generated = {name for name in contents if name.endswith((".c", ".so", ".pyd", ".pyc"))}
    assert generated - {"benchmarks/bare.c"} == set()  # that one is written by hand


def test_a_failed_compile_fails_the_build_where_extensions_were_asked_for(
    unpack: Callable[[], Path], tmp_path: Path
) -> None:
    environ = {"CYMEMCACHE_BUILD_EXT": "1", "CC": "false"}
    done = build(unpack(), tmp_path, "--wheel", "--no-isolation", **environ)
    assert done.returncode != 0
    assert re.search(r"(?i)error: command '.*false'", done.stdout)
    assert list(tmp_path.glob("*.whl")) == []


def test_one_failed_compile_leaves_out_all_extensions_and_says_so(
    unpack: Callable[[], Path], tmp_path: Path
) -> None:
    source = unpack()
    (source / "cext" / "zz_broken_c.pyx").write_text(BROKEN_MODULE)
    done = build(source, tmp_path, "--wheel", "--no-isolation")
    assert done.returncode == 0, done.stdout
    assert "WITHOUT its compiled core" in done.stdout
    assert "cymemcache.core.zz_broken_c" in done.stdout
    wheel = only(tmp_path, "*.whl")
    assert extension_modules(wheel) == set()
    assert installed(wheel, tmp_path, WHERE).split()[0] == "python"


def test_an_unknown_state_of_the_build_switch_is_refused(unpack: Callable[[], Path]) -> None:
    source = unpack()
    done = run(sys.executable, "setup.py", "--name", cwd=source, CYMEMCACHE_BUILD_EXT="yes")
    assert done.returncode != 0
    assert "CYMEMCACHE_BUILD_EXT must be 0, 1 or unset, not 'yes'" in done.stdout


@pytest.mark.parametrize(
    ("platform", "kinds"),
    [
        ("linux", {"manylinux", "musllinux"}),
        ("macos", {"macosx_x86_64", "macosx_arm64"}),
        ("windows", {"win_amd64"}),
    ],
)
def test_wheels_are_built_for_every_python_and_platform(platform: str, kinds: set[str]) -> None:
    tool = shutil.which("cibuildwheel", path=Path(sys.executable).parent)
    assert tool is not None, "cibuildwheel is not installed beside this Python"
    done = run(tool, "--print-build-identifiers", "--platform", platform, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    identifiers = done.stdout.split()
    if platform == "linux":  # the machine's own architecture
        identifiers = [identifier.partition("linux")[0] + "linux" for identifier in identifiers]
    expected = {f"cp3{minor}-{kind}" for minor in range(11, 16) for kind in kinds}
    assert set(identifiers) == expected


def test_the_workflow_builds_wheels_with_the_version_that_is_checked_here() -> None:
    (pinned,) = (
        need
        for need in PYPROJECT["project"]["optional-dependencies"]["test"]
        if need.startswith("cibuildwheel")
    )
    workflow = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    assert re.findall(r"cibuildwheel==[\d.]+", workflow) == [pinned]
