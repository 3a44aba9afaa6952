"""What an expire becomes on the wire: spans, UNIX times, timedelta and datetime, in both twins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from cymemcache.exceptions import MemcacheIllegalInputError

NOW = 1_700_000_000.9
DAY = 24 * 60 * 60
MONTH = 30 * DAY
LAST = (1 << 31) - 1

COMMANDS: dict[str, Callable[[Any, Any], bytes]] = {
    "gat": lambda requests, expire: requests.gat("k", expire),
    "gats": lambda requests, expire: requests.gats("k", expire),
    "store": lambda requests, expire: requests.store(b"set", "k", b"v", expire, False),
    "cas": lambda requests, expire: requests.cas("k", b"v", 1, expire, False),
    "store_many": lambda requests, expire: requests.store_many(
        b"set", [("k", b"v"), ("l", b"v")], expire, False
    ),
    "store_one": lambda requests, expire: requests.store_many(b"set", [("k", b"v")], expire, False),
    "touch": lambda requests, expire: requests.touch("k", expire, False),
    "flush_all": lambda requests, expire: requests.flush_all(expire, False),
}


@pytest.fixture
def requests(core: Any) -> Any:
    return core.Requests(clock=lambda: NOW)


@pytest.fixture(params=COMMANDS)
def encode(request: pytest.FixtureRequest) -> Callable[[Any, Any], bytes]:
    return COMMANDS[request.param]


class Number(int):
    """One that says something else of itself."""

    def __str__(self) -> str:
        return "1"

    __repr__ = __str__


@pytest.mark.parametrize(
    ("expire", "sent"),
    [
        (0, 0),
        (True, 1),
        (MONTH, MONTH),
        (MONTH + 1, int(NOW) + MONTH + 1),
        (Number(MONTH + 1), int(NOW) + MONTH + 1),
        (31 * DAY, int(NOW) + 31 * DAY),
        (447_483_646, LAST - 1),
        (447_483_647, LAST),
        (447_483_648, LAST),
        (999_999_999, LAST),
        (1_000_000_000, 1_000_000_000),
        (int(NOW) + 100, int(NOW) + 100),
        (LAST, LAST),
        (timedelta(seconds=10), 10),
        (timedelta(milliseconds=1), 1),
        (timedelta(seconds=10, microseconds=1), 11),
        (timedelta(days=30), MONTH),
        (timedelta(days=30, microseconds=1), int(NOW) + MONTH + 1),
        (timedelta(days=365), int(NOW) + 365 * DAY),
        (timedelta(seconds=1_000_000_000), LAST),
        (timedelta.max, LAST),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000),
        (datetime(2030, 1, 1, microsecond=1, tzinfo=UTC), 1_893_456_001),
        (datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=1))), 1_893_452_400),
        (datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), 1_000_000_000),
        (datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC), LAST),
        (datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), LAST),
        (datetime.max.replace(tzinfo=UTC), LAST),
    ],
    ids=str,
)
def test_what_is_sent_for_an_expire(
    requests: Any, encode: Callable[[Any, Any], bytes], expire: Any, sent: int
) -> None:
    assert encode(requests, expire) == encode(requests, sent)
    assert b" %d" % sent in encode(requests, expire)


@pytest.mark.parametrize(
    "over",
    [
        timedelta(0),
        timedelta(microseconds=-1),
        timedelta.min,
        datetime(2001, 9, 9, 1, 46, 39, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ],
    ids=str,
)
def test_what_is_over_ends_at_once_and_never_means_never(
    requests: Any, encode: Callable[[Any, Any], bytes], over: Any
) -> None:
    at_once = 0 if encode is COMMANDS["flush_all"] else -1
    assert encode(requests, over) == encode(requests, at_once)


def test_a_datetime_without_a_time_zone_is_refused(
    requests: Any, encode: Callable[[Any, Any], bytes]
) -> None:
    with pytest.raises(TypeError, match=r"(expire|delay) must be a datetime with a time zone"):
        encode(requests, datetime(2030, 1, 1))


@pytest.mark.parametrize("wrong", [1.5, "60", None, b"1", datetime(2030, 1, 1).date()], ids=repr)
def test_anything_else_is_refused(
    requests: Any, encode: Callable[[Any, Any], bytes], wrong: Any
) -> None:
    with pytest.raises(MemcacheIllegalInputError, match="an integer, a timedelta or an aware dat"):
        encode(requests, wrong)


def test_milliseconds_for_seconds_are_refused(
    requests: Any, encode: Callable[[Any, Any], bytes]
) -> None:
    with pytest.raises(MemcacheIllegalInputError, match=r"must be from -?\d+ to 2147483647"):
        encode(requests, 1_700_000_000_000)


def test_the_clock_is_asked_for_spans_of_more_than_30_days_alone(core: Any) -> None:
    asked: list[None] = []

    def clock() -> float:
        asked.append(None)
        return NOW

    requests = core.Requests(clock=clock)
    for expire in (0, -1, 60, MONTH, 1_000_000_000, LAST, timedelta(days=30)):
        requests.store(b"set", "k", b"v", expire, False)
    assert asked == []
    requests.store_many(b"set", [("a", b"v"), ("b", b"v")], MONTH + 1, False)
    assert asked == [None]
