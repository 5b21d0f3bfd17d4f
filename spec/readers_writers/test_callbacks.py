"""How callbacks of watchers run: contexts, exceptions, order, fairness, threads."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time

import pytest

from .._kit import clause, peers, timing
from .helpers import SETTLE, drain, fill, pair, pipe

VAR = contextvars.ContextVar("VAR", default="outside")
CHAIN_LIMIT = 16
"""Callbacks of a chain that may run before a ready watcher."""


@clause("readers_writers.context.copied-at-registration")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_callback_runs_in_a_copy_of_the_context_it_was_added_in(loop, tick, direction):
    seen = []

    def callback():
        seen.append(VAR.get())
        VAR.set("set by the callback")

    context = contextvars.copy_context()
    context.run(VAR.set, "inside")
    with pair() as (ours, theirs):
        theirs.send(b"x")
        context.run(getattr(loop, f"add_{direction}"), ours.fileno(), callback)
        context.run(VAR.set, "set later")
        tick(SETTLE)
        getattr(loop, f"remove_{direction}")(ours.fileno())
    assert seen[0] == "inside"
    assert context[VAR] == "set later"
    assert VAR.get() == "outside"


@clause("readers_writers.context.copied-at-registration")
def test_each_watcher_has_a_context_of_its_own(loop, tick):
    seen = {}

    def callback(name):
        seen.setdefault(name, VAR.get())
        VAR.set(name)

    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), callback, "reader")
        loop.add_writer(ours.fileno(), callback, "writer")
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
        loop.remove_writer(ours.fileno())
    assert seen == {"reader": "outside", "writer": "outside"}


@clause("readers_writers.context.kept-between-calls")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_what_one_call_sets_in_its_context_the_next_call_sees(loop, tick, direction):
    seen = []

    def callback():
        seen.append(VAR.get())
        VAR.set(f"call {len(seen)}")

    with pair() as (ours, theirs):
        theirs.send(b"x")
        getattr(loop, f"add_{direction}")(ours.fileno(), callback)
        while len(seen) < 3:
            tick()
        getattr(loop, f"remove_{direction}")(ours.fileno())
    assert seen[:3] == ["outside", "call 1", "call 2"]


@clause("readers_writers.errors.callback-raises")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_an_exception_reaches_the_handler_and_the_watcher_goes_on(loop, errors, direction):
    raised = []

    def callback():
        if len(raised) == 3:
            loop.stop()
        else:
            raised.append(ValueError(len(raised)))
            raise raised[-1]

    with pair() as (ours, theirs):
        theirs.send(b"x")
        getattr(loop, f"add_{direction}")(ours.fileno(), callback)
        loop.run_forever()
        getattr(loop, f"remove_{direction}")(ours.fileno())
    contexts = errors.take()
    assert [context["exception"] for context in contexts] == raised
    for context in contexts:
        assert "callback" in context["message"]
        assert callable(context["handle"].cancel)


@clause("readers_writers.errors.callback-raises")
def test_a_callback_that_raises_does_not_keep_other_ready_watchers_from_running(loop, tick, errors):
    calls = []

    def bad():
        calls.append("bad")
        raise ValueError("bad")

    with pair() as (one, peer_of_one), pair() as (two, peer_of_two):
        for sock, callback in ((one, bad), (two, lambda: calls.append("good"))):
            loop.add_reader(sock.fileno(), callback)
        peer_of_one.send(b"x")
        peer_of_two.send(b"x")
        tick(SETTLE)
        loop.remove_reader(one.fileno())
        loop.remove_reader(two.fileno())
    assert set(calls) == {"good", "bad"}
    assert {type(context["exception"]) for context in errors.take()} == {ValueError}


@clause("readers_writers.errors.interrupts-pass-through")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_an_interrupt_leaves_the_run_and_the_watcher_stays(loop, direction, interrupt):
    calls = []

    def callback():
        calls.append("called")
        if len(calls) == 1:
            raise interrupt
        loop.stop()

    with pair() as (ours, theirs):
        theirs.send(b"x")
        getattr(loop, f"add_{direction}")(ours.fileno(), callback)
        with pytest.raises(interrupt):
            loop.run_forever()
        assert not loop.is_running()
        loop.run_forever()
        getattr(loop, f"remove_{direction}")(ours.fileno())
    assert len(calls) >= 2


@clause("readers_writers.fairness.chain-does-not-starve-io")
@pytest.mark.parametrize("direction", ["reader", "writer"])
@pytest.mark.parametrize("kind", ["callbacks", "tasks", "futures"])
def test_a_chain_that_never_ends_does_not_starve_a_ready_watcher(loop, direction, kind, saw):
    links = 0
    ready_at = None
    waited = None

    def link():
        nonlocal links, ready_at
        links += 1
        if links == 50:
            if direction == "reader":
                theirs.send(b"x")
            else:
                drain(theirs)
            ready_at = links

    def callback():
        nonlocal waited
        assert ready_at is not None
        if waited is None:
            waited = links - ready_at

    def ended():
        return waited is not None or links > 20000

    def chain():
        link()
        if ended():
            loop.stop()
        else:
            loop.call_soon(chain)

    async def tasks():
        while not ended():
            link()
            await asyncio.sleep(0)
        loop.stop()

    async def futures():
        while not ended():
            link()
            future = loop.create_future()
            future.set_result(None)
            future.add_done_callback(lambda _: None)
            await asyncio.sleep(0)
        loop.stop()

    with pair() as (ours, theirs):
        fill(ours)
        getattr(loop, f"add_{direction}")(ours.fileno(), callback)
        if kind == "callbacks":
            loop.call_soon(chain)
        else:
            chaining = loop.create_task(tasks() if kind == "tasks" else futures())
        loop.run_forever()
        if kind != "callbacks":
            loop.run_until_complete(chaining)
        getattr(loop, f"remove_{direction}")(ours.fileno())
    assert waited is not None
    assert waited <= CHAIN_LIMIT
    saw("readers_writers.fairness.chain-does-not-starve-io", "at most one runs" if waited <= 1 else "2 to 16 run")


@clause("readers_writers.fairness.io-does-not-starve-callbacks")
def test_readers_that_are_always_ready_starve_nobody(loop):
    calls = {"one": 0, "two": 0}
    chain = []
    timers = []

    def reader(name):
        calls[name] += 1
        if sum(calls.values()) > 100_000:
            loop.stop()

    def link():
        chain.append(dict(calls))
        if len(chain) < 20:
            loop.call_soon(link)

    def timer():
        timers.append("fired")
        if len(timers) == 3:
            loop.stop()
        else:
            loop.call_later(0.01, timer)  # clause-delay

    with pair() as (one, peer_of_one), pair() as (two, peer_of_two):
        peer_of_one.send(b"x")
        peer_of_two.send(b"x")
        loop.add_reader(one.fileno(), reader, "one")
        loop.add_reader(two.fileno(), reader, "two")
        loop.call_soon(link)
        loop.call_later(0.01, timer)  # clause-delay
        loop.run_forever()
        loop.remove_reader(one.fileno())
        loop.remove_reader(two.fileno())
    assert len(chain) == 20
    assert len(timers) == 3
    assert min(calls.values()) > 0


def by_a_thread(fd):
    with peers.thread(os.write, fd, b"x"):
        pass


def by_a_process(fd):
    subprocess.run([sys.executable, "-S", "-c", f"import os; os.write({fd}, b'x')"], pass_fds=[fd], check=True)


WAYS = {"itself": lambda fd: os.write(fd, b"x"), "a thread": by_a_thread, "a process": by_a_process}


@clause("readers_writers.order.found-by-the-next-iteration")
@pytest.mark.parametrize("turns_before", [0, 1, 7, 20])
@pytest.mark.parametrize("by", WAYS)
def test_a_reader_is_called_in_the_iteration_behind_the_one_that_made_it_ready(loop, run, by, turns_before):
    async def main():
        with pipe() as (reading, writing):
            seen = []
            loop.add_reader(reading, seen.append, "called")
            await timing.turns_until(lambda: False, turns_before)
            assert seen == []
            WAYS[by](writing)
            took = await timing.turns_until(lambda: seen)
            loop.remove_reader(reading)
            return took

    assert run(main()) <= 2


@clause("readers_writers.order.found-by-the-next-iteration")
@pytest.mark.parametrize("what", ["reader", "writer", "reader of an eventfd"])
def test_a_watcher_of_what_is_ready_is_called_in_the_iteration_behind_the_one_that_set_it(loop, run, what):
    if what.endswith("eventfd") and not hasattr(os, "eventfd"):
        pytest.skip("no eventfd here")

    async def main(fd):
        seen = []
        await timing.turns_until(lambda: False, 20)
        (loop.add_writer if what == "writer" else loop.add_reader)(fd, seen.append, "called")
        took = await timing.turns_until(lambda: seen)
        (loop.remove_writer if what == "writer" else loop.remove_reader)(fd)
        return took

    with pair() as (ours, theirs):
        theirs.send(b"x")
        fd = os.eventfd(1, os.EFD_NONBLOCK) if what.endswith("eventfd") else os.dup(ours.fileno())
        try:
            assert run(main(fd)) <= 2
        finally:
            os.close(fd)


@clause("readers_writers.order.found-by-the-next-iteration")
def test_a_future_that_a_ready_watcher_sets_is_done_before_an_older_chain_gets_four_turns(loop, run):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"x")
            ready = loop.create_future()
            loop.add_reader(ours.fileno(), lambda: ready.done() or ready.set_result(None))
            waiting = loop.create_task(asyncio.wait_for(ready, 10))
            took = await timing.turns_until(waiting.done)
            loop.remove_reader(ours.fileno())
            await waiting
            return took

    assert run(main()) <= 4


@clause("readers_writers.order.queued-callbacks-first")
def test_callbacks_queued_before_the_poll_run_before_the_ready_reader(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), calls.append, "reader")
        loop.call_soon(calls.append, "soon")
        tick()
        loop.remove_reader(ours.fileno())
    assert list(dict.fromkeys(calls)) == ["soon", "reader"]


@clause("readers_writers.order.before-due-timers")
def test_a_ready_reader_runs_before_a_timer_that_is_due(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.call_later(0, calls.append, "timer")
        loop.add_reader(ours.fileno(), calls.append, "reader")
        tick()
        loop.remove_reader(ours.fileno())
    assert list(dict.fromkeys(calls)) == ["reader", "timer"]


@clause("readers_writers.order.stop-runs-ready-watchers")
def test_stop_lets_the_other_ready_watchers_run(loop):
    calls = []

    def reader(name):
        calls.append(name)
        loop.stop()

    with pair() as (one, peer_of_one), pair() as (two, peer_of_two):
        peer_of_one.send(b"x")
        peer_of_two.send(b"x")
        loop.add_reader(one.fileno(), reader, "one")
        loop.add_reader(two.fileno(), reader, "two")
        loop.run_forever()
        assert set(calls) == {"one", "two"}
        loop.remove_reader(one.fileno())
        loop.remove_reader(two.fileno())


@clause("readers_writers.threads.added-with-call-soon-threadsafe")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_watcher_added_from_another_thread_wakes_an_idle_loop(loop, direction):
    seen = []

    def callback():
        getattr(loop, f"remove_{direction}")(ours.fileno())
        seen.append(threading.current_thread())
        loop.stop()

    def add():
        time.sleep(0.05)  # clause-delay
        loop.call_soon_threadsafe(getattr(loop, f"add_{direction}"), ours.fileno(), callback)

    with pair() as (ours, theirs):
        theirs.send(b"x")
        with peers.thread(add):
            loop.run_forever()
    assert seen == [threading.current_thread()]


@clause("readers_writers.threads.added-directly-in-debug-mode")
def test_a_watcher_added_from_another_thread_in_debug_mode_is_refused_or_works(loop, saw):
    outcome = []
    loop.set_debug(True)

    def reader():
        loop.remove_reader(ours.fileno())
        outcome.append("works")
        loop.stop()

    def add():
        time.sleep(0.05)  # clause-delay
        try:
            loop.add_reader(ours.fileno(), reader)
        except RuntimeError:
            outcome.append("refused")
            loop.call_soon_threadsafe(loop.stop)
        else:
            theirs.send(b"x")

    with pair() as (ours, theirs), peers.thread(add):
        loop.run_forever()
    assert outcome in (["works"], ["refused"])
    refused = outcome == ["refused"]
    saw(
        "readers_writers.threads.added-directly-in-debug-mode",
        "RuntimeError in the calling thread" if refused else "the watcher works",
    )
