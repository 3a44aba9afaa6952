"""What the benchmarks make of figures: ratios, verdicts, tables; and the guard's comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.clients import BARE, OURS, PURE, PYLIBMC, PYMEMCACHE
from benchmarks.figures import Results
from benchmarks.guard.compare import Change, changes
from benchmarks.report import put_into_readme
from benchmarks.tables import matrix, of_missing, of_targets
from benchmarks.targets import Target, Verdict, compared, verdicts

GET = "get 100 B"
IDLE = "1,000 idle connections"


def results(**seconds: float) -> Results:
    """One round of `GET`, user and wall alike."""
    names = {"ours": OURS, "pure": PURE, "pymemcache": PYMEMCACHE, "pylibmc": PYLIBMC}
    found = Results(
        machine={"processor": "a", "processors": 2, "system": "b", "python": "3", "memcached": "1"},
        commit="c0ffee",
        settings={"rounds": 1, "seconds": 0.1},
    )
    for name, value in seconds.items():
        found.add(GET, names[name], {"user": value, "system": 0.0, "wall": value})
    return found


def verdict(found: Results, target: Target) -> Verdict:
    return Verdict(target, compared(found, target), target.workload)


def test_a_figure_is_the_median_of_the_rounds() -> None:
    found = Results()
    for wall in (9e-6, 1e-6, 2e-6):
        found.add(GET, OURS, {"wall": wall})
    assert found.median(GET, OURS, "wall") == 2e-6
    assert found.median(GET, OURS, "user") is None
    assert found.median(GET, PYLIBMC, "wall") is None


def test_cpu_time_divides_as_that_of_all_rounds_together() -> None:
    found = Results()
    for user, system in ((0.0, 4e-6), (4e-6, 0.0), (2e-6, 6e-6)):
        found.add(GET, OURS, {"user": user, "system": system})
    assert found.median(GET, OURS, "user") == pytest.approx(4e-6 * 6 / 16)
    assert found.median(GET, OURS, "system") == pytest.approx(4e-6 * 10 / 16)


def test_results_read_back_are_those_that_were_saved(tmp_path: Path) -> None:
    found = results(ours=1.5e-6, pylibmc=4e-6)
    found.missing.append(("meta-memcache", "", "not installed"))
    found.save(tmp_path / "figures.json")
    assert Results.load(tmp_path / "figures.json") == found


@pytest.mark.parametrize(
    ("kind", "figure", "limit", "reached"),
    [
        ("at most", "user", 0.25, True),
        ("at most", "user", 0.2499, False),
        ("at least", "rate", 4.0, True),
        ("at least", "rate", 4.001, False),
    ],
)
def test_a_target_is_reached_up_to_its_limit(
    kind: str, figure: str, limit: float, reached: bool
) -> None:
    found = results(ours=1e-6, pymemcache=4e-6)
    target = Target(GET, OURS, PYMEMCACHE, figure, limit, kind)
    assert verdict(found, target).reached is reached


def test_a_difference_is_what_goes_beyond_the_peer() -> None:
    found = Results()
    found.add(IDLE, OURS, {"bytes": 4000})
    found.add(IDLE, BARE, {"bytes": 100})
    target = Target(IDLE, OURS, BARE, "bytes", 4096, "beyond")
    assert compared(found, target) == 3900


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("at most", 0.25001, "0.2501"),
        ("at most", 0.25, "0.2500"),
        ("at least", 1.49999, "1.499"),
        ("beyond", 4096.4, "4097"),
    ],
)
def test_the_last_digit_is_rounded_against_us(kind: str, value: float, shown: str) -> None:
    assert Verdict(Target(GET, OURS, PYLIBMC, "user", 1, kind), value, GET).shown == shown


def test_what_was_not_measured_is_not_reached() -> None:
    found = results(ours=1e-6)
    one = verdict(found, Target(GET, OURS, PYLIBMC, "user", 1.0))
    assert one.value is None
    assert not one.reached
    assert one.shown == "not measured"


def test_a_peer_that_took_no_time_at_all_is_not_beaten() -> None:
    found = results(ours=1e-6, pylibmc=0.0)
    assert not verdict(found, Target(GET, OURS, PYLIBMC, "user", 1.0)).reached


def test_the_worst_work_of_the_pure_twin_stands_for_all() -> None:
    found = results(pure=5e-6, pymemcache=10e-6)
    for client, user in ((PURE, 12e-6), (PYMEMCACHE, 10e-6)):
        found.add("incr", client, {"user": user, "system": 0.0})
    for last, figure in zip(verdicts(found)[-2:], ("user", "cpu"), strict=True):
        assert last.target.figure == figure
        assert last.workload == "all work (2 measured), the worst: incr"
        assert last.shown == "1.200"
        assert not last.reached


def test_a_missed_target_is_called_that_in_the_table() -> None:
    found = results(ours=3e-6, pymemcache=10e-6)
    table = of_targets([verdict(found, Target(GET, OURS, PYMEMCACHE, "user", 0.25))])
    assert table.rows[0][-3:] == ["0.3000", "<= 0.25", "**NOT REACHED**"]


def test_the_best_client_is_bold_and_the_floor_does_not_compete() -> None:
    found = results(ours=2e-6, pymemcache=10e-6)
    found.add(GET, BARE, {"user": 1e-6, "system": 0.0})
    table = matrix(found, "", "user")
    assert table is not None
    assert table.columns == ["", OURS, PYMEMCACHE, BARE]
    assert table.rows == [[GET, "**2.00**", "10.0", "1.00"]]


def test_the_same_reason_is_given_once() -> None:
    found = Results()
    found.missing = [
        ("meta-memcache", "", "not installed"),
        *((PYLIBMC, workload, "no TLS") for workload in ("a", "b", "c", "d")),
    ]
    assert of_missing(found).rows == [
        ["meta-memcache", "everything", "not installed"],
        [PYLIBMC, "a; b; and 2 more", "no TLS"],
    ]


def test_only_its_own_section_of_the_readme_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- benchmarks: written by make bench -->\nold\n<!-- benchmarks: end -->\nafter\n"
    )
    found = results(ours=1e-6, pymemcache=10e-6)
    put_into_readme(found, readme)
    once = readme.read_text()
    assert once.startswith("before\n<!--")
    assert once.endswith("-->\nafter\n")
    assert "old" not in once
    assert f"| {GET} | 1.00 | 10.0 (10.0 times as much) |" in once
    put_into_readme(found, readme)
    assert readme.read_text() == once


def test_a_quick_run_says_that_it_is_one(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    found = results(ours=1e-6, pymemcache=10e-6)
    for settings, warned in (({"rounds": 9, "seconds": 0.3}, False), ({"rounds": 8}, True)):
        found.settings |= settings
        readme.write_text("<!-- benchmarks: written by make bench -->\n<!-- benchmarks: end -->\n")
        put_into_readme(found, readme)
        assert ("too uncertain to rely on" in readme.read_text()) is warned


def test_a_readme_without_a_place_for_it_is_an_error(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no place for the benchmarks"):
        put_into_readme(results(ours=1e-6), readme)


@pytest.mark.parametrize(
    ("before", "now", "failed"),
    [
        (1000, 1050, False),
        (1000, 1051, True),
        (1000, 500, False),
        (None, 1000, True),
        (1000, None, True),
    ],
)
def test_the_guard_fails_beyond_five_per_cent_and_for_another_list(
    before: int | None, now: int | None, failed: bool
) -> None:
    assert Change("get", before, now).failed is failed


def test_the_guard_looks_at_every_benchmark_of_either_side() -> None:
    found = changes({"get": 100, "gone": 5}, {"new": 7, "get": 110})
    assert found == [
        Change("new", None, 7),
        Change("get", 100, 110),
        Change("gone", 5, None),
    ]
    assert str(found[1]) == "get: 100 -> 110 (+10.00%)"
