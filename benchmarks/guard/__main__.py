"""Count instructions per command, and fail where a benchmark has grown by more than 5 %."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cymemcache

from .compare import ALLOWED_GROWTH, changes
from .count import CannotCount, build, instructions
from .script import BENCHMARKS

_BASELINES = Path(__file__).parent / "baselines"


def main() -> int:
    """0; 1 where something has grown; 2 where there is nothing to compare with, or no counting."""
    options = _options()
    if cymemcache.__impl__ != "c":
        print("it is the compiled core that is guarded, and it is not there", file=sys.stderr)
        return 2
    path = options.baseline
    kept = json.loads(path.read_text()) if path.exists() else None
    here = build()
    if not options.rewrite and (kept is None or kept["build"] != here):
        was = "there is none" if kept is None else f"it was counted with {_words(kept['build'])}"
        print(
            f"nothing to compare with in {path}: {was}; here: {_words(here)}.\n"
            "Counts of two builds of Python differ.  Count the commit that you started from with\n"
            'ARGS="--rewrite --baseline FILE", then compare with ARGS="--baseline FILE".',
            file=sys.stderr,
        )
        return 2
    try:
        now = instructions(BENCHMARKS)
    except CannotCount as error:
        print(error, file=sys.stderr)
        return 2
    found = changes(kept["instructions"] if kept else {}, now)
    for change in found:
        print(("FAILED  " if change.failed and not options.rewrite else "        ") + str(change))
    if options.rewrite:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"build": here, "instructions": now}, indent=1) + "\n")
        print(f"written to {path}")
        return 0
    failed = sum(change.failed for change in found)
    if failed:
        print(
            f"{failed} of {len(found)} benchmarks need more than {ALLOWED_GROWTH:.0%} more "
            "instructions, or came or went.\nWhere that is meant: "
            "make bench-guard ARGS=--rewrite, and commit the baseline with the reason."
        )
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    version = "{}.{}".format(*sys.version_info)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--rewrite", action="store_true", help="keep the counts as the baseline")
    parser.add_argument(
        "--baseline", type=Path, default=_BASELINES / f"{version}.json", metavar="FILE"
    )
    return parser.parse_args()


def _words(build: dict[str, str]) -> str:
    return ", ".join(f"{what} {value}" for what, value in build.items())


if __name__ == "__main__":
    raise SystemExit(main())
