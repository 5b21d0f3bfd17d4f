"""`loop.sendfile()` over a TCP transport."""

import asyncio
import tempfile

from .._kit import clause, peers

SIZE = 300_000
CONTENT = bytes(range(250)) * (SIZE // 250)


def sent(loop, run, job):
    """Runs `job(transport, file)` on a connection to a peer; gives its result and all that the peer received."""
    got = []

    async def main(addr, file):
        transport, _ = await loop.create_connection(asyncio.Protocol, *addr)
        try:
            return await job(transport, file)
        finally:
            transport.close()

    with tempfile.TemporaryFile() as file:
        file.write(CONTENT)
        file.seek(0)
        with peers.serve(lambda conn: got.append(peers.recv_all(conn))) as addr:
            result = run(main(addr, file))
            run(asyncio.sleep(0))
        return result, got[0], file.tell()


@clause("tcp.sendfile.after-writes")
def test_sendfile_sends_the_file_between_the_writes_around_it(loop, run):
    async def job(transport, file):
        transport.write(b"one")
        transport.write(b"two")
        count = await loop.sendfile(transport, file)
        transport.write(b"three")
        return count

    count, got, position = sent(loop, run, job)
    assert count == SIZE
    assert got == b"onetwo" + CONTENT + b"three"
    assert position == SIZE


@clause("tcp.sendfile.after-writes")
def test_sendfile_waits_for_a_full_buffer_and_sends_behind_it(loop, run):
    before = b"x" * 4_000_000

    async def job(transport, file):
        transport.write(before)
        return await loop.sendfile(transport, file)

    count, got, _ = sent(loop, run, job)
    assert count == SIZE
    assert got == before + CONTENT


@clause("tcp.sendfile.part")
def test_sendfile_sends_a_part_and_updates_the_position(loop, run):
    count, got, position = sent(loop, run, lambda transport, file: loop.sendfile(transport, file, 1000, 70_000))
    assert count == 70_000
    assert got == CONTENT[1000:71_000]
    assert position == 71_000


@clause("tcp.sendfile.native")
def test_sendfile_without_fallback_is_native_or_not_available(loop, run, saw):
    async def job(transport, file):
        return await loop.sendfile(transport, file, fallback=False)

    try:
        count, got, _ = sent(loop, run, job)
    except asyncio.SendfileNotAvailableError:
        saw("tcp.sendfile.native", "SendfileNotAvailableError is raised")
        return
    assert count == SIZE
    assert got == CONTENT
    saw("tcp.sendfile.native", "the file is sent")


@clause("tcp.sendfile.after-writes")
def test_the_protocol_reads_on_after_sendfile(loop, run):
    received = loop.create_future()

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            received.set_result(data)

    async def main(addr, file):
        transport, protocol = await loop.create_connection(Protocol, *addr)
        assert await loop.sendfile(transport, file) == SIZE
        assert transport.get_protocol() is protocol
        data = await received
        transport.close()
        return data

    def handler(conn):
        assert peers.recv_exactly(conn, SIZE) == CONTENT
        conn.sendall(b"thanks")
        peers.recv_all(conn)

    with tempfile.TemporaryFile() as file, peers.serve(handler) as addr:
        file.write(CONTENT)
        file.seek(0)
        assert run(main(addr, file)) == b"thanks"
        run(asyncio.sleep(0))
