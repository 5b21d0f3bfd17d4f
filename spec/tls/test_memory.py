"""What a TLS connection leaves behind when it has ended: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import resource
import sys
import tracemalloc
import weakref

import pytest

from .._kit import clause
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside, turns
from .connections import SIDES, Buffered, connect
from .helpers import open_files

ENDS = ["close", "abort", "end", "cut", "reset", "garbage", "timeout", "raise", "queued"]
"""How a connection ends here: by this side, by the peer, or by what goes wrong."""
BLOB = pattern(1_000_000)


async def _ended(loop, protocol, side, end):
    """A transport whose connection has ended as `end` says, and what its SSLObject was."""
    transport, peer = await connect(loop, protocol, side, ssl_shutdown_timeout=0.05 if end == "timeout" else 5)
    transport.write(b"data")
    await aside(peer.exactly, 4)
    match end:
        case "close":
            transport.close()
            await aside(peer.drain)
            peer.end()
        case "timeout":
            transport.close()
        case "abort":
            transport.abort()
        case "queued":
            transport.write(BLOB)
            transport.abort()
        case "garbage":
            peer.sock.sendall(bytes(range(256)))
        case "raise":
            protocol.hooks["data_received"] = lambda _: 1 / 0
            peer.send(b"x")
        case "end":
            await aside(peer.unwrap)
        case _:
            getattr(peer, end)()
    await protocol.lost
    await turns(3)
    peer.cut()
    return transport


@clause("tls.memory.freed")
@pytest.mark.parametrize("end", ENDS)
@SIDES
def test_an_ended_connection_is_collected(loop, run, tick, errors, side, end):
    async def main():
        await _ended(loop, Recorder(loop), side, "close")  # a loop may open files of its own for its first one
        protocol = Recorder(loop)
        opened = open_files()
        transport = await _ended(loop, protocol, side, end)
        left = open_files() - opened
        things = [protocol, transport, transport.get_extra_info("ssl_object")]
        references = []
        for thing in things:
            with contextlib.suppress(TypeError):  # no weak references to some
                references.append(weakref.ref(thing))
        return references, left

    references, left = run(main())
    errors.take()
    tick(3)
    gc.collect()
    assert left == 0
    assert references
    assert [reference() for reference in references] == [None] * len(references)


@clause("tls.memory.freed-at-once")
@SIDES
def test_what_a_closed_connection_has_buffered_is_freed_though_the_transport_is_kept(loop, run, side):
    """A program may keep a closed transport for long; not so what was read or written."""

    async def main():
        kept = []
        for _ in range(20):
            protocol = Recorder(loop)
            transport, peer = await connect(loop, protocol, side)
            transport.pause_reading()
            sending = loop.create_task(aside(_try, peer.sendall, BLOB))
            transport.writelines([BLOB] * 3)
            await turns(20)
            transport.abort()
            await protocol.lost
            peer.cut()
            await sending
            kept.append((transport, protocol))
        return kept

    gc.collect()
    tracemalloc.start()
    try:
        kept = run(main())
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == 20
    assert size < 8_000_000  # of more than 60 MB that were written


@clause("tls.memory.bounded")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", [Recorder, Buffered])
@SIDES
def test_connections_one_after_the_other_take_no_more_memory(loop, run, errors, side, kind):
    ends = [end for end in ENDS if end != "timeout"]

    async def some(count):
        for at in range(count):
            protocol = kind(loop)
            if kind is Buffered and ends[at % len(ends)] == "raise":
                protocol.hooks["buffer_updated"] = lambda _: 1 / 0
            await _ended(loop, protocol, side, ends[at % len(ends)])
            errors.take()
            if at % len(ends) == 0:
                gc.collect()

    async def main():
        await some(4 * len(ends))  # tables and pools have their sizes from then on
        before = _resident(), open_files(), len(asyncio.all_tasks())
        await some(10 * len(ends))
        return before, (_resident(), open_files(), len(asyncio.all_tasks()))

    (memory, files, tasks), after = run(main())
    assert after[1:] == (files, tasks)
    assert after[0] - memory < 8 * 1024 * 1024  # 100 KiB each; the buffers of one take more


def _resident():
    """Resident memory in bytes; what is free does not count as used because the allocator keeps it for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _try(function, *args):
    with contextlib.suppress(OSError):
        function(*args)
