"""What handles are made of, and how they are run."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import turns


@clause("insides.handle.run")
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_a_handle_runs_by_hand_and_reports_what_its_callback_raises(loop, errors, method):
    ran, first = [], (3600,) if method == "call_later" else ()
    handle = getattr(loop, method)(*first, ran.append, 1)
    handle._run()
    assert ran == [1]
    failing = getattr(loop, method)(*first, int, "x")
    failing._run()
    context = errors.only()
    assert isinstance(context["exception"], ValueError) and context["handle"] is failing
    for each in (handle, failing):
        each.cancel()


@clause("insides.handle.run")
def test_what_passes_through_a_loop_passes_through_a_handle(loop):
    handle = loop.call_soon(exec, "raise SystemExit(3)")
    with pytest.raises(SystemExit):
        handle._run()
    handle.cancel()


@clause("insides.handle.repr-info")
def test_a_handle_says_what_its_repr_is_made_of(loop):
    handle = loop.call_soon(len, ())
    assert f"<{' '.join(handle._repr_info())}>" == repr(handle)
    timer = loop.call_at(10**9, len, ())
    assert f"<{' '.join(timer._repr_info())}>" == repr(timer) and "when=1000000000" in timer._repr_info()
    timer.cancel()
    assert timer._repr_info()[1] == "cancelled"


@clause("insides.handle.patched")
def test_handles_are_run_by_what_somebody_put_in_the_place_of_asyncios_run(loop, run):
    seen, received, original = [], [], asyncio.events.Handle._run

    def patched(self):
        seen.append(self._callback)
        return original(self)

    class Peer(asyncio.Protocol):
        def data_received(self, data):
            received.append(data)

    def marker():
        pass

    async def main():
        asyncio.events.Handle._run = patched
        try:
            loop.call_soon(marker)
            loop.call_later(0.001, marker)
            loop.call_soon_threadsafe(marker)
            cancelled = loop.call_soon(received.append, "cancelled")
            cancelled.cancel()
            while seen.count(marker) < 3:
                await asyncio.sleep(0)
            ours, theirs = peers.pair()
            with ours, theirs:
                ours.setblocking(False)
                transport, _ = await loop.create_connection(Peer, sock=ours)
                before = len(seen)
                theirs.send(b"x")
                while not received:
                    await asyncio.sleep(0)
                assert any(callback not in seen[:before] for callback in seen[before:])
                transport.close()
                await asyncio.sleep(0)
        finally:
            asyncio.events.Handle._run = original
        count = len(seen)
        await turns()
        assert len(seen) == count

    run(main())
    assert received == [b"x"]


@clause("insides.signals.handles")
def test_the_handlers_of_signals_are_handles(loop, tick):
    ran = []
    loop.add_signal_handler(signal.SIGUSR1, ran.append, 1)
    handle = loop._signal_handlers[signal.SIGUSR1]
    assert isinstance(handle, asyncio.Handle) and handle._callback == ran.append and handle._args == (1,)
    loop._handle_signal(signal.SIGUSR1)
    loop._handle_signal(signal.SIGUSR2)
    tick(2)
    assert ran == [1]
    handle.cancel()
    loop._handle_signal(signal.SIGUSR1)
    tick(2)
    assert ran == [1] and signal.SIGUSR1 not in loop._signal_handlers


@clause("insides.watchers.unchecked")
def test_a_watcher_by_its_private_name_is_a_handle(loop, tick):
    ran = []
    ours, theirs = peers.pair()
    with ours, theirs:
        ours.setblocking(False)
        handle = loop._add_reader(ours.fileno(), lambda: ran.append(ours.recv(9)))
        assert isinstance(handle, asyncio.Handle) and not handle.cancelled()
        theirs.send(b"x")
        tick(2)
        assert ran == [b"x"]
        assert loop._remove_reader(ours.fileno()) is True and handle.cancelled()
        assert loop._remove_reader(ours.fileno()) is False
        handle = loop._add_writer(ours.fileno(), ran.append, "w")
        tick(2)
        assert ran[1] == "w" and loop._remove_writer(ours.fileno()) is True
