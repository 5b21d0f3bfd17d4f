"""In which order callbacks are called, with what, and what a long chain of them may not keep waiting."""

from __future__ import annotations

import pytest

from .._kit import clause, peers


@clause("callbacks.order.fifo")
def test_callbacks_are_called_in_the_order_they_were_scheduled(loop, tick):
    seen = []
    for n in range(0, 100, 2):
        loop.call_soon(seen.append, n)
        loop.call_soon_threadsafe(seen.append, n + 1)
    tick()
    assert seen == list(range(100))


@clause("callbacks.order.exactly-once")
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_the_same_function_scheduled_twice_is_called_twice(loop, tick, method):
    seen = []
    first = getattr(loop, method)(seen.append, "x")
    second = getattr(loop, method)(seen.append, "x")
    assert first is not second
    tick(3)
    assert seen == ["x", "x"]


@clause("callbacks.order.never-inline")
def test_scheduling_does_not_call(loop, tick):
    seen = []
    during = []

    def outer():
        for schedule in (loop.call_soon, loop.call_soon_threadsafe):
            schedule(seen.append, "inner")
            during.append(list(seen))

    loop.call_soon(seen.append, "before")
    assert seen == []
    loop.call_soon(outer)
    tick(2)
    assert during == [["before"]] * 2
    assert seen == ["before", "inner", "inner"]


@clause("callbacks.order.snapshot")
def test_callbacks_of_one_iteration_run_before_any_they_schedule(loop, tick):
    seen = []

    def chain(name, generation):
        seen.append(f"{name}{generation}")
        if generation < 3:
            loop.call_soon(chain, name, generation + 1)

    for name in "abc":
        loop.call_soon(chain, name, 0)
    tick(4)
    assert seen == [f"{name}{generation}" for generation in range(4) for name in "abc"]


@clause("callbacks.fairness.io-under-chain")
def test_what_arrives_during_a_batch_is_read_while_the_next_ones_run(loop):
    ours, theirs = peers.pair()
    seen = []

    def chain(left):
        if left:
            loop.call_soon(chain, left - 1)
        else:
            loop.stop()

    def first():
        seen.append("first")
        theirs.sendall(b"x")
        chain(17)

    with ours, theirs:
        loop.add_reader(ours.fileno(), lambda: (seen.append("readable"), loop.remove_reader(ours.fileno())))
        loop.call_soon(first)
        loop.call_soon(seen.append, "second")
        loop.run_forever()
    assert seen == ["first", "second", "readable"]


@clause("callbacks.order.args")
def test_arguments_reach_the_callback_as_they_are(loop, tick):
    seen = []

    def callback(*args):
        seen.append(args)
        return "ignored"

    argument = object()
    for args in ((), (argument,), (argument, None), tuple(range(20)), ([1], {"k": 2}, ())):
        loop.call_soon(callback, *args)
        loop.call_soon_threadsafe(callback, *args)
    tick()
    assert [len(args) for args in seen] == [0, 0, 1, 1, 2, 2, 20, 20, 3, 3]
    assert seen[2][0] is argument and seen[4] == (argument, None)


@clause("callbacks.order.no-keywords")
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_keyword_arguments_are_refused(loop, tick, method):
    seen = []
    with pytest.raises(TypeError):
        getattr(loop, method)(seen.append, item=1)
    with pytest.raises(TypeError):
        getattr(loop, method)()
    tick(2)
    assert seen == []


@clause("callbacks.order.future-callbacks")
def test_callbacks_of_a_future_are_scheduled_in_order_when_it_is_done(loop, tick):
    seen = []
    future = loop.create_future()

    def finish():
        future.set_result(None)
        seen.append("done")

    future.add_done_callback(lambda _: seen.append("first"))
    future.add_done_callback(lambda _: seen.append("second"))
    loop.call_soon(finish)
    loop.call_soon(seen.append, "scheduled before")
    tick(2)
    assert seen == ["done", "scheduled before", "first", "second"]
    future.add_done_callback(lambda _: seen.append("late"))
    assert seen[4:] == []
    tick()
    assert seen[4:] == ["late"]


@clause("callbacks.order.many")
def test_a_hundred_thousand_callbacks_are_called_in_order(loop, tick):
    seen = []
    for n in range(100_000):
        loop.call_soon(seen.append, n)
    tick()
    assert seen == list(range(100_000))


@clause("callbacks.fairness.io-under-chain")
def test_a_chain_of_callbacks_does_not_keep_a_reader_waiting(loop):
    ours, theirs = peers.pair()
    links = 0
    links_until_read = []

    def chain():
        nonlocal links
        links += 1
        if links == 5000 or links_until_read:
            loop.stop()
        else:
            loop.call_soon(chain)

    def readable():
        links_until_read.append(links)
        loop.remove_reader(ours.fileno())

    with ours, theirs:
        theirs.sendall(b"x")
        loop.add_reader(ours.fileno(), readable)
        loop.call_soon(chain)
        loop.run_forever()
    assert links_until_read and links_until_read[0] <= 16


@clause("callbacks.fairness.io-under-chain")
def test_data_that_arrives_during_a_chain_of_callbacks_reaches_its_reader(loop):
    ours, theirs = peers.pair()
    links = 0
    read_at = []

    def chain():
        nonlocal links
        links += 1
        if links == 100:
            theirs.sendall(b"x")
        if links == 5000 or read_at:
            loop.stop()
        else:
            loop.call_soon(chain)

    def readable():
        read_at.append(links)
        loop.remove_reader(ours.fileno())

    with ours, theirs:
        loop.add_reader(ours.fileno(), readable)
        loop.call_soon(chain)
        loop.run_forever()
    # Loopback delivers within the send; the reader may be called before the callback behind it.
    assert read_at and 100 <= read_at[0] <= 116


@clause("callbacks.fairness.threadsafe-under-chain")
def test_a_chain_of_callbacks_does_not_keep_another_thread_waiting(loop):
    heard = []

    def chain():
        if not heard:
            loop.call_soon(chain)

    def hear():
        heard.append(True)
        loop.stop()

    loop.call_soon(chain)
    with peers.thread(loop.call_soon_threadsafe, hear):
        loop.run_forever()
    assert heard
