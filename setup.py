"""The build of the compiled core; everything else about the package is in pyproject.toml.

Each ``cext/<stem>.pyx`` becomes the extension module ``cymemcache.core.<stem>``.  The environment
variable ``CYMEMCACHE_BUILD_EXT`` has three states:

* ``0``: no extensions, a pure ``py3-none-any`` wheel;
* ``1``: a failed compile fails the build;
* unset: the extensions are optional.  Where one of them cannot be compiled none is installed (the
  package never mixes compiled and pure modules), and a note says so.

``CYMEMCACHE_SANITIZE`` (``address,undefined``) compiles for a test run under sanitizers.

This file must never run Cython for commands that compile nothing, such as ``sdist``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = "cext"
PACKAGE = "cymemcache.core"
POSIX_ONLY = {"exchange_c", "calls_c", "scatter_c"}
SANITIZERS = os.environ.get("CYMEMCACHE_SANITIZE", "")


def build_switch() -> str:
    """The state of CYMEMCACHE_BUILD_EXT: ``"0"``, ``"1"`` or ``""`` for unset."""
    state = os.environ.get("CYMEMCACHE_BUILD_EXT", "")
    if state not in ("", "0", "1"):
        raise SystemExit(f"CYMEMCACHE_BUILD_EXT must be 0, 1 or unset, not {state!r}")
    return state


def compiler_flags() -> tuple[list[str], list[str]]:
    """Flags for the compiler and for the linker."""
    if SANITIZERS:
        sanitize = f"-fsanitize={SANITIZERS}"
        return [sanitize, "-fno-omit-frame-pointer", "-g", "-O1"], [sanitize]
    return ([] if sys.platform == "win32" else ["-O3"]), []


def extensions(*, optional: bool) -> list[Extension]:
    """One extension for each Cython source that this platform can have."""
    compile_args, link_args = compiler_flags()
    here = Path(__file__).resolve().parent
    return [
        Extension(
            f"{PACKAGE}.{source.stem}",
            [f"{SOURCES}/{source.name}"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            optional=optional,
        )
        for source in sorted((here / SOURCES).glob("*.pyx"))
        if os.name == "posix" or source.stem not in POSIX_ONLY
    ]


class BuildExt(build_ext):
    """Translates into the build directory, compiles in parallel, installs all modules or none."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.failures: list[str] = []
        if self.parallel is None:
            self.parallel = True

    def build_extensions(self) -> None:
        optional = self.extensions[0].optional
        try:
            from Cython.Build import cythonize
        except ImportError:
            if not optional:
                raise
            self.failures.append("Cython is not installed")
        else:
            for ext in self.extensions:
                # cythonize gives back copies, which have lost `optional`.
                (copy,) = cythonize(
                    [ext], build_dir=self.build_temp, include_path=[SOURCES], force=self.force
                )
                ext.sources = copy.sources
            super().build_extensions()
        if self.failures:
            self.fall_back()

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            self.failures.append(f"{ext.name}: {error}")
            raise

    def fall_back(self) -> None:
        for ext in self.extensions:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        self.extensions = []
        lines = [
            "NOTE: cymemcache is built WITHOUT its compiled core and will run on the pure one.",
            *(f"  {failure}" for failure in self.failures),
            "Set CYMEMCACHE_BUILD_EXT=1 to make this an error, 0 to ask for the pure wheel.",
        ]
        print("", "*" * 100, *lines, "*" * 100, "", sep="\n", file=sys.stderr, flush=True)


SWITCH = build_switch()
setup(
    ext_modules=[] if SWITCH == "0" else extensions(optional=SWITCH == ""),
    cmdclass={"build_ext": BuildExt},
    # Objects of different kinds must not be taken for each other.
    options={"build": {"build_base": f"build/{SANITIZERS}" if SANITIZERS else "build"}},
)
