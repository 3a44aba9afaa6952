"""What the fuzzer has collected and found, as tests: each input goes through both twins.

`make fuzz` looks for more.  An input that it reports goes into the corpus under a name that tells
what was wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzzing import targets
from fuzzing.targets import TARGETS, Finding

CORPUS = Path(__file__).parent / "fuzzing" / "corpus"


def replay(target: str) -> int:
    """Feed the whole corpus of a target; how many inputs that is."""
    inputs = sorted((CORPUS / target).iterdir())
    for path in inputs:
        TARGETS[target](path.read_bytes())
    return len(inputs)


@pytest.mark.parametrize(
    ("target", "least"), [("parser", 50), ("large", 10), ("requests", 50), ("rendezvous", 5)]
)
def test_the_corpus_holds(target: str, least: int) -> None:
    assert replay(target) >= least


def test_a_twin_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(targets.requests_py.Requests):
        def get(self, key: object) -> bytes:
            return b"get another\r\n"

    monkeypatch.setattr(targets.requests_py, "Requests", Other)
    with pytest.raises(Finding, match="of the compiled twin"):
        replay("requests")


def test_a_request_that_is_two_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(targets.requests_py.Requests):
        def incr(self, key: object, delta: int, noreply: bool) -> bytes:
            return b"incr a 1\r\nget stolen\r\n"

    for module in (targets.requests_py, targets.requests_c):
        monkeypatch.setattr(module, "Requests", Two)
    with pytest.raises(Finding, match="stolen"):
        replay("requests")


def test_a_large_value_that_came_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(parser: type) -> type:
        class Careless(parser):  # type: ignore[misc,valid-type]
            def feed(self, data: bytes) -> None:
                super().feed(data[::-1] if len(data) > 1000 else data)

        return Careless

    for module in (targets.parser_py, targets.parser_c):
        monkeypatch.setattr(module, "ReplyParser", careless(module.ReplyParser))
    with pytest.raises(Finding, match="bytes that were sent"):
        replay("large")


def test_replies_that_depend_on_where_they_are_cut_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hasty(parser: type) -> type:
        class Hasty(parser):  # type: ignore[misc,valid-type]
            def feed(self, data: bytes) -> None:
                super().feed(data[:-1])

        return Hasty

    for module in (targets.parser_py, targets.parser_c):
        monkeypatch.setattr(module, "ReplyParser", hasty(module.ReplyParser))
    with pytest.raises(Finding):
        replay("parser")
