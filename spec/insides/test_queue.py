"""The turn, and the queue of callbacks in the hands of programs."""

from __future__ import annotations

import asyncio
import collections
import contextlib

import pytest

from .._kit import clause


@clause("insides.turn.one")
def test_a_turn_runs_what_is_ready_and_returns(loop):
    ran = []
    loop.call_soon(lambda: (ran.append(1), loop.call_soon(ran.append, 2)))
    loop._run_once()
    assert ran == [1]
    loop._run_once()
    assert ran == [1, 2]


@clause("insides.turn.one")
def test_a_turn_waits_for_a_timer(loop):
    ran = []
    loop.call_later(0.01, ran.append, 1)
    loop._run_once()
    assert ran == [1]


@clause("insides.turn.nested")
def test_a_turn_within_a_turn_runs_the_rest_of_it_and_nothing_is_run_twice(loop):
    ran = []

    def nested():
        loop.call_soon(ran.append, "queued")
        loop._run_once()
        ran.append("nested")
        loop.call_soon(ran.append, "later")

    loop.call_soon(nested)
    loop.call_soon(ran.append, "rest")
    # asyncio's outer turn counts on, to an IndexError or to what was queued later.
    with contextlib.suppress(IndexError):
        loop._run_once()
    assert ran[:3] == ["rest", "queued", "nested"]
    if "later" not in ran:
        loop._run_once()
    assert ran == ["rest", "queued", "nested", "later"]


@clause("insides.turn.replaced")
@pytest.mark.parametrize("how", ["instance", "class", "running"])
def test_a_turn_that_somebody_put_in_its_place_is_run(loop, how):
    turns, ran = [], []
    cls, original = type(loop), type(loop)._run_once

    def run_once(self=None):
        turns.append(1)
        original(loop)

    def replace():
        if how == "instance":
            loop._run_once = run_once
        else:
            cls._run_once = run_once

    kept = vars(cls).get("_run_once")
    try:
        if how != "running":
            replace()
        else:
            loop.call_soon(replace)
        loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(lambda: (ran.append(1), loop.stop()))))
        loop.run_forever()
    finally:
        if how == "instance":
            del loop._run_once
        elif kept is None:
            del cls._run_once
        else:
            cls._run_once = kept
    assert ran == [1] and len(turns) == (2 if how == "running" else 3)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(turns) <= 3, "and no more once it is gone"


@clause("insides.ready.shows")
def test_the_queue_shows_what_is_ready(loop):
    assert not loop._ready and len(loop._ready) == 0
    first, second = loop.call_soon(len, ()), loop.call_soon_threadsafe(len, ())
    queue = loop._ready
    assert isinstance(queue, collections.deque) and queue and len(queue) == 2
    assert list(queue) == [first, second] and queue[0] is first and second in queue
    assert queue is loop._ready
    third = loop.call_soon(len, ())
    assert queue[-1] is third, "what is scheduled later comes behind"
    loop._run_once()
    assert not queue and not loop._ready


@clause("insides.ready.takes")
def test_what_is_put_into_the_queue_is_run(loop):
    ran = []
    loop._ready.append(asyncio.Handle(ran.append, ("appended",), loop))
    loop._ready.appendleft(asyncio.Handle(ran.append, ("first",), loop))
    loop._ready.extend([asyncio.TimerHandle(0, ran.append, ("timer",), loop)])
    cancelled = asyncio.Handle(ran.append, ("cancelled",), loop)
    loop._ready.append(cancelled)
    cancelled.cancel()
    loop.call_soon(ran.append, "scheduled")
    loop._run_once()
    assert ran == ["first", "appended", "timer", "scheduled"]


@clause("insides.ready.takes")
def test_a_handle_in_the_queue_twice_runs_twice(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    loop._ready.append(handle)
    loop._run_once()
    assert ran == [1, 1]


@clause("insides.ready.gives")
def test_what_is_taken_from_the_queue_is_not_run(loop):
    ran = []
    handles = [loop.call_soon(ran.append, number) for number in range(4)]
    assert loop._ready.popleft() is handles[0]
    assert loop._ready.pop() is handles[3]
    loop._ready.remove(handles[1])
    loop._run_once()
    assert ran == [2]
    loop.call_soon(ran.append, "never")
    loop._ready.clear()
    loop.call_soon(ran.append, 3)
    loop._run_once()
    assert ran == [2, 3]


@clause("insides.ready.gives")
def test_who_takes_a_handle_may_run_it(loop):
    ran = []
    loop.call_soon(ran.append, 1)
    handle = loop._ready.popleft()
    assert not handle._cancelled and handle._callback == ran.append and handle._args == (1,)
    handle._run()
    assert ran == [1]
    loop.call_soon(ran.append, 2)
    loop._run_once()
    assert ran == [1, 2]


@clause("insides.ready.gives")
def test_a_callback_may_take_the_rest_of_its_turn(loop):
    ran = []
    loop.call_soon(lambda: ran.append([handle._args for handle in loop._ready]))
    loop.call_soon(loop._ready.popleft)
    loop.call_soon(ran.append, "taken")
    # asyncio's turn counts on, to an IndexError.
    with contextlib.suppress(IndexError):
        loop._run_once()
    assert ran == [[(), ("taken",)]]
    loop.call_soon(ran.append, "on")
    loop._run_once()
    assert ran[1:] == ["on"]


@clause("insides.ready.order")
def test_the_queue_may_be_put_in_another_order(loop):
    ran = []
    for number in range(4):
        loop.call_soon(ran.append, number)
    loop._ready.reverse()
    loop._run_once()
    loop.call_soon(ran.append, 4)
    loop.call_soon(ran.append, 5)
    loop._ready.rotate()
    loop._run_once()
    assert ran == [3, 2, 1, 0, 5, 4]


@clause("insides.ready.replaced")
def test_a_queue_that_somebody_put_in_its_place_is_the_queue(loop):
    class Counting(collections.deque):
        appended = 0

        def append(self, handle):
            self.appended += 1
            super().append(handle)

    ran = []
    queue = loop._ready = Counting()
    loop.call_soon(ran.append, 1)
    assert queue.appended == 1 and loop._ready is queue
    loop._run_once()
    assert ran == [1] and not queue


@clause("insides.ready.nonsense")
def test_what_is_no_handle_fails_in_its_turn_and_the_loop_goes_on(loop):
    ran = []
    loop._ready.append(42)
    loop.call_soon(ran.append, 1)
    with pytest.raises(AttributeError):
        loop._run_once()
    loop._run_once()
    assert ran == [1]
    with pytest.raises(IndexError):
        loop._ready.popleft()
    with pytest.raises(ValueError):
        loop._ready.remove(42)
    with pytest.raises(TypeError):
        loop._ready.extend(42)


@clause("insides.ready.io")
def test_the_queue_has_handles_of_connections_too(loop, run):
    received = []

    class Peer(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

    async def main():
        server = await loop.create_server(Peer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        queue = loop._ready
        transport.write(b"x")
        kinds = set()
        while not received:
            kinds |= {isinstance(handle, asyncio.Handle) for handle in queue}
            await asyncio.sleep(0)
        assert kinds <= {True}
        transport.close()
        server.close()
        await server.wait_closed()

    run(main())
    assert received == [b"x"]
