"""Rules about what surrounds a transport: its extra information, contexts, references and warnings."""

from __future__ import annotations

import contextvars
import gc
import weakref

import pytest

from ..recording import BufferedRecorder, Recorder
from ..stream import aside, close_with_a_transport_open, drain, rule, turns

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


@rule("info.default", needs="")
def get_extra_info_returns_the_default_for_what_it_does_not_know(stream, loop, run):
    async def main():
        transport, _ = await stream(Recorder(loop))
        marker = object()
        return transport.get_extra_info("no such thing"), transport.get_extra_info("no such thing", marker) is marker

    assert run(main()) == (None, True)


@rule("context.of-creation", needs="read")
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def callbacks_run_in_the_context_that_made_the_transport(stream, loop, run, kind):
    async def main():
        seen = {}
        protocol = kind(loop)
        for name in ("connection_made", "data_received", "get_buffer", "buffer_updated", "eof_received"):
            protocol.hooks[name] = lambda *_, name=name: seen.update({name: VARIABLE.get()})
        VARIABLE.set("maker")
        _, peer = await stream(protocol)
        VARIABLE.set("later")

        def send_and_close():
            peer.sendall(b"x")
            peer.close()

        await aside(send_and_close)
        await protocol.lost
        return seen

    seen = run(main())
    assert {"connection_made", "eof_received"} < seen.keys()
    assert set(seen.values()) == {"maker"}, seen


@rule("context.one", needs="read")
def callbacks_see_what_earlier_ones_set(stream, loop, run):
    async def main():
        seen = []
        protocol = Recorder(loop)

        def note(*_):
            seen.append(VARIABLE.get())
            VARIABLE.set(f"after {len(seen)}")

        for name in ("connection_made", "data_received", "eof_received", "connection_lost"):
            protocol.hooks[name] = note
        transport, peer = await stream(protocol)
        transport.pause_reading()
        transport.resume_reading()

        def send_and_close():
            peer.sendall(b"x")
            peer.close()

        await aside(send_and_close)
        await protocol.lost
        return seen, VARIABLE.get()

    assert run(main()) == (["unset", "after 1", "after 2", "after 3"], "unset")


@rule("lifetime.freed-after-close", needs="")
@pytest.mark.parametrize("end", ["close", "abort"])
def a_closed_transport_and_its_protocol_are_collected(maker, loop, run, tick, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await maker.connect(loop, protocol)
        references = [weakref.ref(protocol), *_weak(transport)]
        getattr(transport, end)()
        await protocol.lost
        peer.close()
        return references

    references = run(main())
    tick(3)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


@rule("lifetime.open-needs-no-reference", needs="read write full_duplex")
def an_open_connection_that_nobody_refers_to_goes_on(maker, loop, run):
    async def opened():
        protocol = Recorder(loop)
        transport, peer = await maker.connect(loop, protocol)
        protocol.hooks["data_received"] = transport.write
        return peer

    peer = run(opened())
    gc.collect()

    def exchange():
        peer.sendall(b"still there?")
        got = peer.recv(100)
        peer.close()
        return got

    assert run(aside(exchange)) == b"still there?"
    run(turns(20))


@rule("lifetime.unclosed-warns", needs="read")
def a_transport_left_open_by_a_closed_loop_warns_and_frees_its_descriptor(maker, new_loop):
    loop = new_loop()

    async def opened():
        protocol = Recorder(loop)
        transport, peer = await maker.connect(loop, protocol)
        return transport.get_extra_info("socket").fileno(), peer

    fd, peer = loop.run_until_complete(opened())
    close_with_a_transport_open(loop, fd)
    assert drain(peer) == b""
    peer.close()


def _weak(thing):
    """A list of one weak reference, or none: a transport type need not support them, and its protocol does."""
    try:
        return [weakref.ref(thing)]
    except TypeError:
        return []
