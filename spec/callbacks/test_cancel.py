"""Cancelling callbacks, and what handles keep alive."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from .._kit import clause

METHODS = ["call_soon", "call_soon_threadsafe"]


class Argument:
    """Something to watch the life of."""

    def __call__(self) -> None:
        pass


@clause("callbacks.cancel.before-its-turn")
@pytest.mark.parametrize("method", METHODS)
def test_a_cancelled_callback_is_not_called(loop, tick, method):
    seen = []
    schedule = getattr(loop, method)
    kept = schedule(seen.append, "kept")
    dropped = schedule(seen.append, "dropped")
    schedule(seen.append, "behind")
    assert not dropped.cancelled()
    dropped.cancel()
    assert dropped.cancelled() and not kept.cancelled()
    tick(2)
    assert seen == ["kept", "behind"]
    assert not kept.cancelled()


@clause("callbacks.cancel.from-within")
def test_a_callback_cancels_a_later_one_of_its_iteration(loop, tick):
    seen = []

    def first():
        seen.append("first")
        third.cancel()

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    third = loop.call_soon(seen.append, "third")
    loop.call_soon(seen.append, "fourth")
    tick(2)
    assert seen == ["first", "second", "fourth"]


@clause("callbacks.cancel.from-within")
def test_all_but_the_first_of_many_may_be_cancelled_by_it(loop, tick):
    seen = []
    handles = []

    def first():
        seen.append(0)
        for handle in handles:
            handle.cancel()

    loop.call_soon(first)
    handles += [loop.call_soon(seen.append, n) for n in range(1, 1000)]
    tick(2)
    assert seen == [0]


@clause("callbacks.cancel.twice")
def test_cancelling_again_or_too_late_has_no_effect(loop, tick):
    seen = []

    def own():
        seen.append("own")
        assert own_handle.cancel() is None
        assert own_handle.cancelled()

    pending = loop.call_soon(seen.append, "pending")
    called = loop.call_soon(seen.append, "called")
    own_handle = loop.call_soon(own)
    assert pending.cancel() is None and pending.cancel() is None
    tick()
    assert seen == ["called", "own"]
    assert called.cancel() is None and pending.cancel() is None
    tick()
    assert seen == ["called", "own"]


@clause("callbacks.cancel.late-spares-later-ones")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ended", ["called", "cancelled"])
def test_a_handle_that_has_ended_cancels_no_callback_scheduled_since(loop, tick, method, ended):
    seen = []
    schedule = getattr(loop, method)
    old = [schedule(seen.append, "old") for _ in range(10)]
    if ended == "cancelled":
        for handle in old:
            handle.cancel()
    tick()
    expected = ["old"] * 10 if ended == "called" else []
    assert seen == expected
    new = [schedule(seen.append, "new") for _ in range(10)]
    for handle in old:
        handle.cancel()
    assert not any(handle.cancelled() for handle in new)
    tick()
    assert seen == expected + ["new"] * 10


@clause("callbacks.cancel.own-then-raise")
def test_a_callback_that_cancels_itself_and_raises_is_reported(loop, errors, tick):
    seen = []

    def own():
        handle.cancel()
        raise ValueError("after cancelling")

    handle = loop.call_soon(own)
    loop.call_soon(seen.append, "behind")
    tick()
    context = errors.only()
    assert str(context["exception"]) == "after cancelling"
    assert context["handle"] is handle
    assert seen == ["behind"]


@clause("callbacks.cancel.lets-go")
@pytest.mark.parametrize("method", METHODS)
def test_cancelling_lets_callback_and_arguments_go_at_once(loop, method):
    callback, argument = Argument(), Argument()
    watched = [weakref.ref(callback), weakref.ref(argument)]
    handle = getattr(loop, method)(callback, argument)
    del callback, argument
    assert all(ref() is not None for ref in watched)
    handle.cancel()
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


@clause("callbacks.handle.lets-go")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_kept_of_a_callback_that_was_called(loop, tick, method):
    callback, argument = Argument(), Argument()
    watched = [weakref.ref(callback), weakref.ref(argument)]
    getattr(loop, method)(lambda call, _: call(), callback, argument)
    del callback, argument
    tick()
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


@clause("callbacks.handle.lets-go")
def test_nothing_is_kept_of_a_callback_that_raised(loop, errors, tick):
    argument = Argument()
    watched = weakref.ref(argument)

    def fail(_argument):
        raise ValueError

    loop.call_soon(fail, argument)
    del argument
    tick()
    errors.only()
    gc.collect()
    assert watched() is None


@clause("callbacks.handle.cycles")
@pytest.mark.parametrize("fate", ["called", "cancelled"])
def test_a_cycle_through_a_handle_is_collected(loop, tick, fate):
    class Owner:
        def callback(self):
            pass

    owner = Owner()
    owner.handle = loop.call_soon(owner.callback)
    watched = weakref.ref(owner)
    if fate == "cancelled":
        owner.handle.cancel()
    del owner
    tick()
    gc.collect()
    assert watched() is None


@clause("callbacks.handle.type")
@pytest.mark.parametrize("method", METHODS)
def test_scheduling_returns_a_handle(loop, method):
    handle = getattr(loop, method)(len, ())
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)


@clause("callbacks.handle.repr")
def test_the_repr_of_a_handle_names_its_callback_and_fate(loop):
    def some_callback():
        pass

    handle = loop.call_soon(some_callback)
    assert "some_callback" in repr(handle)
    assert "cancelled" not in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


@clause("callbacks.handle.repr")
def test_the_repr_of_a_handle_survives_a_callback_with_a_bad_repr(loop, errors, tick):
    class Bad:
        def __repr__(self):
            return "bad repr"

        def __call__(self):
            raise ValueError

    handle = loop.call_soon(Bad())
    assert "Handle" in repr(handle)
    tick()
    assert isinstance(errors.only()["exception"], ValueError)


@clause("callbacks.handle.weakref")
def test_a_handle_is_weakly_referenced_and_compared_by_identity(loop, tick):
    first, second = loop.call_soon(len, ()), loop.call_soon(len, ())
    assert first == first and first != second
    assert len({first, second}) == 2
    watched = weakref.ref(first)
    assert watched() is first
    tick()
    del first
    gc.collect()
    assert watched() is None
