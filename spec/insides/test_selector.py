"""The selector in the hands of programs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from .._kit import clause, peers


@clause("insides.selector.looks")
def test_selecting_finds_what_is_ready_and_processing_it_queues_it(loop):
    ran = []
    ours, theirs = peers.pair()
    with ours, theirs:
        ours.setblocking(False)
        loop.add_reader(ours, lambda: ran.append(ours.recv(9)))
        assert [key.fd for key, _ in loop._selector.select(0)] == []
        theirs.send(b"x")
        events = loop._selector.select(0)
        assert [key.fd for key, _ in events] == [ours.fileno()] and not ran
        assert len(loop._ready) == 0
        loop._process_events(events)
        assert len(loop._ready) == 1
        loop._ready.popleft()._run()
        assert ran == [b"x"]
        loop.remove_reader(ours)


@clause("insides.selector.looks")
def test_what_was_found_and_not_processed_is_found_again(loop):
    ran = []
    ours, theirs = peers.pair()
    with ours, theirs:
        ours.setblocking(False)
        loop.add_reader(ours, lambda: ran.append(ours.recv(9)))
        theirs.send(b"x")
        assert loop._selector.select(None)
        assert [key.fd for key, _ in loop._selector.select(None)] == [ours.fileno()]
        loop._process_events(loop._selector.select(None))
        loop._ready.popleft()._run()
        assert ran == [b"x"]
        loop.remove_reader(ours)


@clause("insides.selector.waits")
def test_selecting_waits_as_long_as_it_is_told(loop):
    before = loop.time()
    assert loop._selector.select(0.02) == []
    assert loop.time() - before >= 0.019


@clause("insides.selector.waits")
def test_another_thread_that_schedules_ends_the_waiting(loop):
    ran = []
    thread = threading.Timer(0.02, loop.call_soon_threadsafe, (ran.append, 1))
    thread.start()
    events = loop._selector.select(10)
    thread.join()
    assert len(events) == 1
    loop._process_events(events)
    loop._run_once()
    assert ran == [1]


@clause("insides.selector.nonsense")
def test_nonsense_is_refused(loop):
    with pytest.raises(TypeError):
        loop._selector.select("x")
    with pytest.raises(TypeError):
        loop._process_events(42)


@clause("insides.selector.replaced")
def test_a_selection_that_somebody_put_in_its_place_is_made(loop, run):
    asked, original = [], loop._selector.select

    def select(timeout):
        asked.append(timeout)
        return original(timeout)

    loop._selector.select = select

    async def main():
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        ours, theirs = peers.pair()
        with ours, theirs:
            ours.setblocking(False)
            loop.call_later(0.01, theirs.send, b"x")
            assert await loop.sock_recv(ours, 9) == b"x"

    run(main())
    assert 0 in asked, "callbacks were ready"
    assert any(timeout is not None and 0 < timeout < 1 for timeout in asked), "a timer was waited for"


@clause("insides.selector.replaced")
def test_time_may_be_made_to_pass_by_it(loop):
    """As the plug-ins do that have tests sleep for hours: no file is ready, so the time-out has passed."""
    now, original = [0.0], loop._selector.select

    def select(timeout):
        events = original(0)
        if not events and timeout:
            now[0] += timeout
        return events

    loop._selector.select = select
    loop.time = lambda: now[0]

    async def main():
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.sleep(86400)
        return loop.time()

    assert loop.run_until_complete(main()) == 3660
    del loop.time
