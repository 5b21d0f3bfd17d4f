"""Rules about write flow control: limits, pausing, resuming, and the size of the buffer."""

from __future__ import annotations

import pytest

from ..recording import Recorder, follows_grammar, pattern, pieces
from ..stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, rule, turns

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@rule("flow.limits", needs="write")
def the_limits_are_low_and_high_in_that_order(stream, loop, run):
    async def main():
        transport, _ = await stream(Recorder(loop))
        default = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=1000, low=10)
        return default, transport.get_write_buffer_limits()

    (low, high), given = run(main())
    assert 0 <= low <= high
    assert given == (10, 1000)


@rule("flow.limits-half-given", needs="write")
def a_limit_left_out_is_chosen_to_fit_the_one_given(stream, loop, run):
    async def main():
        transport, _ = await stream(Recorder(loop))
        transport.set_write_buffer_limits(high=1000)
        high_only = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(low=1000)
        low_only = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)
        return high_only, low_only, transport.get_write_buffer_limits()

    high_only, low_only, zero = run(main())
    assert 0 <= high_only[0] <= high_only[1] == 1000
    assert 1000 == low_only[0] <= low_only[1]
    assert zero == (0, 0)


@rule("flow.limits-invalid", needs="write")
@pytest.mark.parametrize(
    "limits", [{"high": 10, "low": 11}, {"high": -1}, {"low": -1}, {"high": 5, "low": -1}], ids=str
)
def limits_that_do_not_fit_raise_value_error_and_change_nothing(stream, loop, run, limits):
    async def main():
        transport, _ = await stream(Recorder(loop))
        transport.set_write_buffer_limits(high=1000, low=10)
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(**limits)
        return transport.get_write_buffer_limits()

    assert run(main()) == (10, 1000)


@rule("flow.pause-inline", needs="write")
def pause_writing_is_called_before_write_returns(stream, loop, run):
    """Through call_soon it would come too late for an application that writes on without yielding."""

    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        before = protocol.calls.count("pause_writing")
        transport.write(BLOB)
        after = protocol.calls.count("pause_writing")
        transport.write(b"more")  # paused already: no second call
        return before, after, protocol.calls.count("pause_writing")

    assert run(main()) == (0, 1, 1)


@rule("flow.strictly-over", needs="write")
def pause_writing_is_called_strictly_over_the_high_limit(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(BLOB)
        await turns(20)
        size = transport.get_write_buffer_size()
        transport.set_write_buffer_limits(high=size)
        at_high = protocol.calls.count("pause_writing")
        transport.write(b"x")
        return size, at_high, protocol.calls.count("pause_writing")

    size, at_high, over_high = run(main())
    assert size > 0
    assert (at_high, over_high) == (0, 1)


@rule("flow.resume-at-low", needs="write")
@pytest.mark.parametrize("low", [0, 1, 5000, 65536])
def resume_writing_is_called_once_the_buffer_is_at_or_under_the_low_limit(stream, loop, run, low):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.set_write_buffer_limits(high=65536, low=low)
        sizes = []
        protocol.hooks["resume_writing"] = lambda: sizes.append(transport.get_write_buffer_size())
        transport.write(BLOB)
        await turns(50)
        early = list(sizes)
        reading = loop.create_task(aside(_read, peer, len(BLOB)))
        await protocol.called("resume_writing")
        await reading
        await turns(20)
        return early, sizes

    early, sizes = run(main())
    assert early == []  # the peer had not read
    assert len(sizes) == 1
    assert sizes[0] <= low


@rule("flow.resume-before-empty", needs="write")
def resume_writing_does_not_wait_until_nothing_is_left(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(BLOB)
        await turns(20)
        low = transport.get_write_buffer_size() - 1
        sizes = []
        protocol.hooks["resume_writing"] = lambda: sizes.append(transport.get_write_buffer_size())
        transport.set_write_buffer_limits(high=low, low=low)
        paused = protocol.calls.count("pause_writing")
        for _ in range(0, len(BLOB), 65536):
            await aside(_read, peer, 65536)
            await turns(5)
            if sizes:
                break
        transport.abort()
        return paused, sizes, low

    paused, sizes, low = run(main())
    assert paused == 1
    assert [0 < size <= low for size in sizes] == [True]


@rule("flow.paired", needs="write")
def pauses_and_resumes_alternate_while_a_paced_writer_sends(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.set_write_buffer_limits(high=65536, low=1024)
        reading = loop.create_task(aside(drain, peer))
        for piece in pieces(BLOB, 100_000):
            transport.write(piece)
            pauses = protocol.calls.count("pause_writing")
            await protocol.called("resume_writing", pauses)
        transport.close()
        got = await reading
        await protocol.lost
        return got, protocol.calls

    got, calls = run(main())
    assert got == BLOB
    assert follows_grammar(calls), calls
    assert calls.count("pause_writing") == calls.count("resume_writing")


@rule("flow.high-zero", needs="write")
def a_high_limit_of_zero_pauses_whenever_something_is_buffered(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.set_write_buffer_limits(high=0)
        sizes = []
        protocol.hooks["resume_writing"] = lambda: sizes.append(transport.get_write_buffer_size())
        transport.write(BLOB)
        paused = protocol.calls.count("pause_writing")
        await aside(_read, peer, len(BLOB))
        await protocol.called("resume_writing")
        return paused, sizes

    assert run(main()) == (1, [0])


@rule("flow.set-limits-pauses", needs="write")
def lowering_the_limit_under_what_is_buffered_pauses_at_once(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(BLOB)
        await turns(20)
        before = protocol.calls.count("pause_writing")
        transport.set_write_buffer_limits(high=100)
        after = protocol.calls.count("pause_writing")
        await aside(_read, peer, len(BLOB))
        await protocol.called("resume_writing")
        return before, after

    assert run(main()) == (0, 1)


@rule("flow.buffer-size", needs="write")
def the_buffer_size_shrinks_to_zero_as_the_peer_reads(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        sizes = [transport.get_write_buffer_size()]
        transport.write(BLOB)
        await turns(20)
        sizes.append(transport.get_write_buffer_size())
        await aside(_read, peer, len(BLOB) // 2)
        await turns(20)
        sizes.append(transport.get_write_buffer_size())
        await aside(_read, peer, len(BLOB) - len(BLOB) // 2)
        await protocol.called("resume_writing")
        await turns(20)
        sizes.append(transport.get_write_buffer_size())
        return sizes

    empty, full, half, done = run(main())
    assert empty == 0
    assert len(BLOB) >= full > half > 0
    assert done == 0


@rule("flow.write-in-resume", needs="write")
def writes_from_within_resume_and_pause_writing_keep_the_order(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        once = []

        def paused():
            if not once:
                once.append(True)
                transport.write(b" paused")

        protocol.hooks.update(pause_writing=paused, resume_writing=lambda: transport.write(b" resumed"))
        transport.write(BLOB)
        transport.write(b" more")
        reading = loop.create_task(aside(drain, peer))
        await protocol.called("resume_writing")
        transport.close()
        got = await reading
        await protocol.lost
        return got

    assert run(main()) == BLOB + b" paused" + b" more" + b" resumed"


@rule("flow.callback-raises", needs="write")
@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def an_exception_in_a_flow_callback_is_reported_and_the_transport_lives_on(stream, loop, run, errors, name, saw):
    class Boom(Exception):
        pass

    def boom():
        raise Boom

    async def main():
        protocol = Recorder(loop, **{name: boom})
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        transport.write(b"end")
        transport.close()
        got = await aside(drain, peer)
        return got, await protocol.lost, transport, protocol

    got, reason, transport, protocol = run(main())
    assert got == BLOB + b"end"
    assert reason is None
    contexts = errors.take()
    # A transport that is closing need not resume its protocol, so only the pause is sure to be reported.
    assert contexts or name == "resume_writing"
    if name == "resume_writing":
        verb = "resumes" if contexts else "does not resume"
        saw("flow.callback-raises", f"the closing transport {verb} its protocol")
    for context in contexts:
        assert isinstance(context["exception"], Boom)
        assert context["message"]
        assert context["transport"] is transport
        assert context["protocol"] is protocol


@rule("flow.writelines-pauses", needs="write")
def writelines_over_the_high_limit_pauses_like_write(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.writelines(list(pieces(BLOB, 100_000)))
        paused = protocol.calls.count("pause_writing")
        transport.abort()
        await protocol.lost
        return paused

    assert run(main()) == 1


@rule("flow.no-calls-after-lost", needs="write")
def a_paused_protocol_is_not_resumed_after_connection_lost(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.write(BLOB)
        transport.abort()
        await protocol.lost
        await turns(20)
        return protocol.calls

    calls = run(main())
    assert calls[-1] == "connection_lost"
    assert follows_grammar(calls), calls


def _read(peer, size):
    while size:
        piece = peer.recv(min(size, 262144))
        assert piece, f"the stream ended {size} bytes early"
        size -= len(piece)
