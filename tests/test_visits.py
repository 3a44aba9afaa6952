"""Visits: what is in one that has ended is closed, and one that goes on is left alone."""

from __future__ import annotations

import gevent

from cymemcache.visits import Visit, Visits, caller
from stand_ins import in_a_thread


def begun(visits: Visits, *things: object) -> Visit:
    """The caller's visit, with some things."""
    visit = visits.begin()
    visit.here.acquire()
    visits.know(visit)
    visit.things += things
    return visit


def test_what_is_left_in_a_visit_that_has_ended_is_closed() -> None:
    closed: list[object] = []
    visits = Visits(closed.append)
    going_on, ended = begun(visits, 1), begun(visits, 2, 3)
    ended.here.release()
    assert visits.clean_up(going_on) is True
    assert closed == [3, 2]
    assert going_on.things == [1]
    assert visits.clean_up(going_on) is False


def test_a_visit_in_the_middle_of_another_is_the_current_one_until_it_ends() -> None:
    visits = Visits(lambda thing: None)
    outer = begun(visits)
    inner = begun(visits)
    assert visits.current() is inner
    inner.here.release()
    assert visits.current() is outer
    visits.end(outer)
    outer.here.release()
    assert visits.current() is None


def test_threads_and_greenlets_have_visits_of_their_own() -> None:
    visits = Visits(lambda thing: None)
    begun(visits)
    assert in_a_thread(visits.current) is None
    assert gevent.spawn(visits.current).get() is None


def test_in_a_forked_child_only_the_callers_own_visits_go_on() -> None:
    visits = Visits(lambda thing: None)
    own = begun(visits, 1)
    other, number = in_a_thread(lambda: (begun(visits, 2), caller()))
    assert visits.current(number) is other
    visits.reset()
    assert visits.current(number) is None
    assert visits.current() is own
    assert visits.clean_up(own) is False
