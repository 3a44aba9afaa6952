"""The pool of objects of any kind: the reference's behaviour, and what is repaired: no slot is
lost, and a caller waits for an object.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

import pymemcache.pool
import pytest

from cymemcache import object_pool
from cymemcache.pool import ObjectPool
from stand_ins import in_a_thread
from wire import PATIENCE, wait_until


class Thing:
    """What is pooled, numbered from 0."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"<{self.number}>"


class Maker:
    def __init__(self) -> None:
        self.made = 0
        self.removed: list[Any] = []
        self.failure: BaseException | None = None

    def __call__(self) -> Thing:
        if self.failure is not None:
            raise self.failure
        self.made += 1
        return Thing(self.made - 1)

    def remove(self, thing: Thing) -> None:
        self.removed.append(thing.number)


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture(params=["ours", "reference"])
def make(request: pytest.FixtureRequest, maker: Maker) -> Callable[..., Any]:
    """Makes pools, of ours and of the reference, which are to behave alike."""
    kind: Any = ObjectPool if request.param == "ours" else pymemcache.pool.ObjectPool
    return lambda **options: kind(maker, **{"after_remove": maker.remove, **options})


def small(maker: Maker, **options: Any) -> ObjectPool[Thing]:
    return ObjectPool(maker, maker.remove, **{"max_size": 1, "wait_timeout": 0, **options})


# -- as in the reference ---------------------------------------------------------------------------


def test_the_signatures_are_the_references_and_one_option_more() -> None:
    reference = pymemcache.pool.ObjectPool
    ours = inspect.signature(ObjectPool).parameters
    theirs = inspect.signature(reference).parameters
    assert list(ours) == [*theirs, "wait_timeout"]
    assert all(ours[name].default == theirs[name].default for name in theirs)
    for name in ("get", "release", "destroy", "get_and_release", "clear"):
        mine = inspect.signature(getattr(ObjectPool, name)).parameters
        other = inspect.signature(getattr(reference, name)).parameters
        assert [(one.name, one.default) for one in mine.values()] == [
            (one.name, one.default) for one in other.values()
        ], name


def test_objects_are_made_when_none_is_free(make: Callable[..., Any]) -> None:
    pool = make()
    first, second = pool.get(), pool.get()
    assert pool.used == (first, second)
    assert pool.free == ()
    pool.release(first)
    assert (pool.used, pool.free) == ((second,), (first,))
    assert pool.get() is first
    assert pool.max_size == 2**31
    assert make(max_size=3).max_size == 3
    assert make(max_size=0).max_size == 2**31


def test_the_one_that_is_free_longest_is_used_first(make: Callable[..., Any]) -> None:
    pool = make()
    things = [pool.get() for _ in range(3)]
    for number in (1, 0, 2):
        pool.release(things[number])
    assert [pool.get().number for _ in range(3)] == [1, 0, 2]


def test_a_destroyed_object_is_removed(make: Callable[..., Any], maker: Maker) -> None:
    pool = make(max_size=1)
    thing = pool.get()
    pool.destroy(thing)
    assert (pool.used, pool.free, maker.removed) == ((), (), [0])
    assert pool.get().number == 1


@pytest.mark.parametrize("method", ["release", "destroy"])
def test_what_is_not_in_use_is_ignored_or_an_error(
    make: Callable[..., Any], maker: Maker, method: str
) -> None:
    pool = make()
    thing = pool.get()
    pool.release(thing)
    getattr(pool, method)(thing)
    for stranger in (thing, Thing(99)):
        with pytest.raises(ValueError, match=r"in use|deque"):
            getattr(pool, method)(stranger, silent=False)
    assert (pool.used, pool.free, maker.removed) == ((), (thing,), [])


def test_a_with_block_releases(make: Callable[..., Any]) -> None:
    pool = make()
    with pool.get_and_release() as thing:
        assert pool.used == (thing,)
    assert pool.free == (thing,)


@pytest.mark.parametrize("destroy", [False, True])
def test_a_with_block_that_fails_releases_or_destroys(
    make: Callable[..., Any], maker: Maker, destroy: bool
) -> None:
    pool = make()
    with (
        pytest.raises(OSError, match="failed"),
        pool.get_and_release(destroy_on_fail=destroy) as thing,
    ):
        raise OSError("failed")
    assert pool.free == (() if destroy else (thing,))
    assert pool.used == ()
    assert maker.removed == ([0] if destroy else [])


def test_clear_removes_all(make: Callable[..., Any], maker: Maker) -> None:
    pool = make(max_size=3)
    things = [pool.get() for _ in range(3)]
    pool.release(things[1])
    pool.clear()
    assert (pool.used, pool.free) == ((), ())
    assert sorted(maker.removed) == [0, 1, 2]
    pool.release(things[0])
    assert pool.free == ()
    assert [pool.get().number for _ in range(3)] == [3, 4, 5]


def test_a_bad_size_is_refused(make: Callable[..., Any]) -> None:
    for size in (-1, "1", 1.5):
        with pytest.raises(ValueError, match="max_size"):
            make(max_size=size)


def test_a_pool_needs_no_after_remove() -> None:
    pool: ObjectPool[Thing] = ObjectPool(lambda: Thing(0))
    pool.destroy(pool.get())
    pool.release(pool.get())
    pool.clear()
    assert pool.free == ()


def test_what_was_free_for_too_long_is_removed(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(object_pool, "monotonic", lambda: now)
    pool = small(maker, max_size=2, idle_timeout=10)
    old, young = pool.get(), pool.get()
    pool.release(old)
    now = 105.0
    pool.release(young)
    now = 111.0
    assert pool.get() is young
    assert maker.removed == [0]
    assert pool.get().number == 2


# -- repaired --------------------------------------------------------------------------------------


def test_an_interruption_loses_no_slot(maker: Maker) -> None:
    pool = small(maker)
    for failure in (KeyboardInterrupt(), SystemExit(), OSError()):
        maker.failure = failure
        with pytest.raises(type(failure)) as kept:  # with the frames of its traceback
            pool.get()
        assert kept
        maker.failure = None
        with pytest.raises(KeyboardInterrupt), pool.get_and_release():
            raise KeyboardInterrupt
        pool.destroy(pool.get())
    assert pool.used == ()


def test_an_object_in_the_middle_of_something_is_destroyed(maker: Maker) -> None:
    pool = small(maker)
    with pytest.raises(KeyboardInterrupt), pool.get_and_release():
        raise KeyboardInterrupt
    assert maker.removed == [0]


def test_an_object_that_its_holder_lost_gives_its_slot_back(maker: Maker) -> None:
    pool = small(maker)
    pool.get()
    assert pool.used == ()
    assert pool.get().number == 1


def test_what_cannot_be_referred_to_weakly_is_pooled_all_the_same() -> None:
    pool: ObjectPool[tuple[int, ...]] = ObjectPool(lambda: (1, 2), max_size=1, wait_timeout=0)
    thing = pool.get()
    assert pool.used == (thing,)
    pool.release(thing)
    assert pool.get() is thing


def test_one_object_may_be_handed_out_twice() -> None:
    thing = Thing(0)
    pool: ObjectPool[Thing] = ObjectPool(lambda: thing, max_size=2, wait_timeout=0)
    assert pool.get() is pool.get()
    pool.release(thing)
    assert (pool.used, pool.free) == ((thing,), (thing,))


def test_a_caller_waits_for_an_object(maker: Maker) -> None:
    pool = small(maker, wait_timeout=PATIENCE)
    thing = pool.get()
    got: list[Thing] = []
    thread = threading.Thread(target=lambda: got.append(pool.get()))
    thread.start()
    wait_until(lambda: pool._line.waiting)
    pool.release(thing)
    thread.join(PATIENCE)
    assert got == [thing]


def test_a_caller_waits_for_one_to_be_destroyed(maker: Maker) -> None:
    pool = small(maker, wait_timeout=PATIENCE)
    thing = pool.get()
    got: list[Thing] = []
    thread = threading.Thread(target=lambda: got.append(pool.get()))
    thread.start()
    wait_until(lambda: pool._line.waiting)
    pool.destroy(thing)
    thread.join(PATIENCE)
    assert [one.number for one in got] == [1]


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_caller_who_waited_in_vain_is_told(maker: Maker, seconds: float) -> None:
    pool = small(maker, max_size=2, wait_timeout=seconds)
    things = [pool.get(), pool.get()]
    with pytest.raises(RuntimeError, match=r"Too many objects, 2 >= 2.*wait_timeout"):
        pool.get()
    pool.release(things[0])
    assert pool.get() is things[0]


def test_locks_come_from_the_lock_generator(maker: Maker) -> None:
    made: list[Any] = []

    def make_lock() -> Any:
        made.append(threading.Lock())
        return made[-1]

    pool = small(maker, wait_timeout=0.01, lock_generator=make_lock)
    thing = pool.get()
    assert thing
    assert not made
    with pytest.raises(RuntimeError):
        pool.get()
    assert len(made) == 1


def test_users_functions_run_while_others_use_the_pool(maker: Maker) -> None:
    def make() -> Thing:
        in_a_thread(lambda: pool.used)
        in_a_thread(lambda: pool.release(Thing(99)))
        return maker()

    def remove(thing: Thing) -> None:
        in_a_thread(lambda: pool.release(pool.get()))

    pool: ObjectPool[Thing] = ObjectPool(make, remove, max_size=1)
    pool.destroy(pool.get())
    assert maker.made == 2


def test_a_forked_child_starts_with_an_empty_pool(maker: Maker) -> None:
    pool = small(maker, max_size=2)
    used, free = pool.get(), pool.get()
    pool.release(free)
    child = os.fork()
    if child == 0:
        fine = pool.used == pool.free == () and {pool.get().number, pool.get().number} == {2, 3}
        os._exit(0 if fine and maker.removed == [] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (pool.used, pool.free) == ((used,), (free,))
