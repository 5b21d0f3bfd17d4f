"""In which context a callback runs."""

from __future__ import annotations

import contextvars

import pytest

from .._kit import clause, peers

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
METHODS = ["call_soon", "call_soon_threadsafe"]


@clause("callbacks.context.copied-when-scheduled")
@pytest.mark.parametrize("method", METHODS)
def test_without_a_context_the_current_one_is_copied(loop, tick, method):
    seen = []

    def callback():
        seen.append(var.get())
        var.set("in the callback")

    var.set("when scheduled")
    getattr(loop, method)(callback)
    var.set("afterwards")
    tick()
    assert seen == ["when scheduled"]
    assert var.get() == "afterwards"


@clause("callbacks.context.copied-when-scheduled")
def test_a_callback_hands_its_context_on(loop, tick):
    seen = []

    def outer():
        var.set("outer")
        loop.call_soon(lambda: seen.append(var.get()))
        var.set("changed")

    loop.call_soon(outer)
    tick(2)
    assert seen == ["outer"]


@clause("callbacks.context.given")
@pytest.mark.parametrize("method", METHODS)
def test_a_given_context_is_the_one_the_callback_runs_in(loop, tick, method):
    context = contextvars.copy_context()
    context.run(var.set, "in the context")
    seen = []

    def callback():
        seen.append(var.get())
        var.set("by the callback")

    getattr(loop, method)(callback, context=context)
    tick()
    assert seen == ["in the context"]
    assert context[var] == "by the callback"
    assert var.get() == "unset"
    getattr(loop, method)(callback, context=context)
    tick()
    assert seen == ["in the context", "by the callback"]


@clause("callbacks.context.given")
def test_an_empty_context_given_is_no_copy_of_the_current_one(loop, tick):
    var.set("current")
    seen = []
    loop.call_soon(lambda: seen.append(var.get()), context=contextvars.Context())
    tick()
    assert seen == ["unset"]


@clause("callbacks.context.given")
def test_no_context_given_by_name_means_the_current_one(loop, tick):
    var.set("current")
    seen = []
    loop.call_soon(lambda: seen.append(var.get()), context=None)
    tick()
    assert seen == ["current"]


@clause("callbacks.context.threadsafe")
def test_call_soon_threadsafe_copies_the_context_of_the_calling_thread(loop):
    var.set("of the loop's thread")
    seen = []

    def elsewhere():
        var.set("of the calling thread")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))
        loop.call_soon_threadsafe(loop.stop)

    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == ["of the calling thread"]


@clause("callbacks.context.each-its-own")
def test_callbacks_do_not_see_what_one_another_set(loop, tick):
    seen = []

    def callback(name):
        seen.append(var.get())
        var.set(name)

    for name in "abc":
        loop.call_soon(callback, name)
    tick()
    assert seen == ["unset"] * 3


@clause("callbacks.context.handle-knows")
@pytest.mark.parametrize("method", METHODS)
def test_a_handle_knows_its_context(loop, tick, method):
    given = contextvars.copy_context()
    assert getattr(loop, method)(len, (), context=given).get_context() is given
    var.set("current")
    seen = []
    handle = getattr(loop, method)(var.set, "by the callback")
    copied = handle.get_context()
    assert copied is not given and copied[var] == "current"
    loop.call_soon(lambda: seen.append(copied[var]))
    tick()
    assert seen == ["by the callback"]


@clause("callbacks.context.already-entered")
def test_a_context_that_is_entered_already_is_reported(loop, errors, tick, caplog, saw):
    context = contextvars.copy_context()
    seen = []

    def within():
        loop.call_soon(seen.append, "never", context=context)
        loop.call_soon(seen.append, "next")
        tick()

    context.run(within)
    assert seen == ["next"]
    # A loop that calls the handler in the callback's context cannot call it here, and logs instead.
    reported = [context["exception"] for context in errors.take()]
    logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert any(isinstance(error, RuntimeError) for error in reported + logged)
    saw(
        "callbacks.context.already-entered",
        "RuntimeError reaches the exception handler" if reported else "RuntimeError is logged",
    )
