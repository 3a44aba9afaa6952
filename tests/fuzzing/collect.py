"""Takes into the corpus what the fuzzer has found to reach something new in the pure twins:

    python -m fuzzing.collect TARGET DIRECTORY ...

and prints how much of their code the corpus reaches.  (For the compiled twins the fuzzer tells.)
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from cymemcache.core import arguments, parser_py, rendezvous_py, requests_py, stream_py
from fuzzing.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MODULES = {
    "parser": [parser_py],
    "large": [stream_py],
    "requests": [requests_py, arguments],
    "rendezvous": [rendezvous_py],
}


def reached(target: str, data: bytes) -> set[tuple[CodeType, int, int]]:
    """The steps from one line to the next that the pure twin makes for an input."""
    files = {module.__file__ for module in MODULES[target]}
    steps: set[tuple[CodeType, int, int]] = set()

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        last = 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((frame.f_code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(enter)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(None)
    return steps


def lines(code: CodeType) -> set[tuple[str, int]]:
    """All lines with code of functions in `code`."""
    found = set()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= lines(constant)
            if constant.co_flags & 2:  # a function, not the body of a class
                first = constant.co_firstlineno
                found |= {
                    (constant.co_filename, number)
                    for _, _, number in constant.co_lines()
                    if number is not None and number != first
                }
    return found


def main() -> None:
    target, *directories = sys.argv[1:]
    corpus = CORPUS / target
    seen: set[tuple[CodeType, int, int]] = set()
    for path in sorted(corpus.iterdir()):
        seen |= reached(target, path.read_bytes())
    found = [path.read_bytes() for name in directories for path in Path(name).iterdir()]
    for data in sorted(found, key=len):
        steps = reached(target, data)
        if not steps <= seen:
            seen |= steps
            (corpus / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
    there: set[tuple[str, int]] = set()
    for module in MODULES[target]:
        assert module.__file__ is not None
        source = Path(module.__file__).read_text(encoding="utf-8")
        there |= lines(compile(source, module.__file__, "exec"))
    hit = {(code.co_filename, number) for code, _, number in seen} & there
    print(f"{target}: {len(hit)} of {len(there)} lines of functions, {len(seen)} steps")
    for name, number in sorted(there - hit):
        print(f"  not reached: {Path(name).name}:{number}")


if __name__ == "__main__":
    main()
