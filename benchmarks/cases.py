"""Single operations of an event loop, each a function of a loop, a count and a meter.

A case runs at least `count` operations and returns how many it ran, or a Lateness. Only what runs inside `with meter`
is measured, so that connecting, arming and cleaning up cost nothing. Both ends of every connection live on the loop
under test: what they exchange is the loop's work and nobody else's.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

Loop = asyncio.AbstractEventLoop


class Meter:
    """CPU time inside `with meter`, in nanoseconds: of this thread, and of the whole process."""

    def __init__(self) -> None:
        self.thread = self.process = 0

    def __enter__(self) -> None:
        self.process -= time.process_time_ns()
        self.thread -= time.thread_time_ns()

    def __exit__(self, *_: object) -> None:
        self.thread += time.thread_time_ns()
        self.process += time.process_time_ns()


@dataclass(frozen=True)
class Lateness:
    """How late timers fired, in microseconds; negative is early."""

    samples: list[float]


@dataclass(frozen=True)
class Case:
    """A case, its title in the report, and how many operations one sample runs at least."""

    title: str
    run: Callable[[Loop, int, Meter], int | Lateness]
    count: int
    # What the figure counts: the loop's thread, or all threads where the work needs two.
    clock: str = "thread"


CASES: dict[str, Case] = {}


def case(title: str, count: int, clock: str = "thread") -> Callable:
    """Register a case under the name of its function."""

    def register(run: Callable) -> Callable:
        CASES[run.__name__] = Case(title, run, count, clock)
        return run

    return register


def nothing() -> None:
    """A callback that costs as little as one can."""


@case("`call_soon`, each callback schedules the next", 50_000)
def call_soon_chain(loop: Loop, count: int, meter: Meter) -> int:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    with meter:
        loop.run_forever()
    return count


@case("`call_soon`, bursts of 1000", 50_000)
def call_soon_burst(loop: Loop, count: int, meter: Meter) -> int:
    bursts = -(-count // 1000)

    async def main() -> None:
        call_soon = loop.call_soon
        for _ in range(bursts):
            for _ in range(1000):
                call_soon(nothing)
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return bursts * 1000


@case("`sleep(0)`, 1 task", 20_000)
def sleep_0_1_task(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return count


@case("`sleep(0)`, 100 tasks", 40_000)
def sleep_0_100_tasks(loop: Loop, count: int, meter: Meter) -> int:
    each = -(-count // 100)

    async def worker() -> None:
        for _ in range(each):
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [loop.create_task(worker()) for _ in range(100)]
        with meter:
            for task in tasks:
                await task

    loop.run_until_complete(main())
    return each * 100


@case("future made, set by a callback, awaited", 20_000)
def future_wake(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    with meter:
        loop.run_until_complete(main())
    return count


@case("`gather` of 100, per coroutine", 20_000)
def gather(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 100)

    async def child() -> None:
        pass

    async def main() -> None:
        for _ in range(groups):
            await asyncio.gather(*[child() for _ in range(100)])

    with meter:
        loop.run_until_complete(main())
    return groups * 100


@case("`call_later` and `cancel`", 20_000)
def call_later_cancel(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            for _ in range(1000):
                loop.call_later(60, nothing).cancel()
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return groups * 1000


@case("1000 due timers run", 10_000)
def due_timers(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            done = loop.create_future()
            for _ in range(999):
                loop.call_later(0.003, nothing)
            loop.call_later(0.004, done.set_result, None)
            time.sleep(0.006)  # noqa: ASYNC251 - all of them fall due while the loop is busy
            with meter:
                await done

    loop.run_until_complete(main())
    return groups * 1000


@case("timer lateness", 50)
def timer_lateness(loop: Loop, count: int, meter: Meter) -> Lateness:
    late = []

    async def main() -> None:
        done = loop.create_future()

        def fired(due: float) -> None:
            late.append((time.monotonic() - due) * 1e6)
            if len(late) == count:
                done.set_result(None)

        for number in range(count):
            # Spread unevenly over 1 to 60 ms, so that hardly two fall due together.
            delay = 0.001 + (number * 0.618034 % 1) * 0.059
            loop.call_later(delay, fired, time.monotonic() + delay)
        with meter:
            await done

    loop.run_until_complete(main())
    return Lateness(late)


@case("thread-safe wake-up of an idle loop and back (both threads)", 4_000, clock="process")
def threadsafe_wake(loop: Loop, count: int, meter: Meter) -> int:
    answered = threading.Semaphore(0)

    def other() -> None:
        with meter_of_process:
            for _ in range(count):
                loop.call_soon_threadsafe(answered.release)
                answered.acquire()
        loop.call_soon_threadsafe(loop.stop)

    meter_of_process = Meter()
    thread = threading.Thread(target=other)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    meter.thread, meter.process = meter_of_process.thread, meter_of_process.process
    return count


@case("`call_soon_threadsafe` from its own thread", 20_000)
def threadsafe_own(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            for _ in range(1000):
                loop.call_soon_threadsafe(nothing)
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return groups * 1000


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected non-blocking TCP sockets over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far


@case("`sock_recv`, `sock_sendall` ping-pong, 1 KiB, per hop", 5_000)
def sock_ping_pong(loop: Loop, count: int, meter: Meter) -> int:
    rounds = -(-count // 2)
    message = bytes(1024)

    async def echo(sock: socket.socket) -> None:
        for _ in range(rounds):
            await loop.sock_sendall(sock, await loop.sock_recv(sock, 65536))

    async def main(near: socket.socket, far: socket.socket) -> None:
        other = loop.create_task(echo(far))
        await asyncio.sleep(0)
        with meter:
            for _ in range(rounds):
                await loop.sock_sendall(near, message)
                await loop.sock_recv(near, 65536)
        await other

    with tcp_pair() as (near, far):
        loop.run_until_complete(main(near, far))
    return rounds * 2


class Peer(asyncio.Protocol):
    """One end: answers each whole message until `left` messages have been answered, then resolves `done`."""

    def __init__(self, loop: Loop, pieces: list[bytes], left: int) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))
        self.left = left
        self.missing = self.size
        self.made = loop.create_future()
        self.done = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.missing = self.size
            self.left -= 1
            if self.left < 0:
                self.done.set_result(None)
            else:
                self.send()

    def send(self) -> None:
        write = self.transport.write
        for piece in self.pieces:
            write(piece)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


class BufferedPeer(asyncio.BufferedProtocol, Peer):
    """The same end as a BufferedProtocol."""

    buffer = memoryview(bytearray(256 * 1024))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self.buffer[:nbytes])


def ping_pong(loop: Loop, count: int, meter: Meter, pieces: list[bytes], kind: type[Peer] = Peer) -> int:
    """Messages of these pieces, to and fro between two transports of one loop; an operation is one way."""
    rounds = -(-count // 2)

    async def main() -> None:
        near, far = kind(loop, pieces, rounds - 1), kind(loop, pieces, rounds)
        server = await loop.create_server(lambda: far, "127.0.0.1", 0)
        await loop.create_connection(lambda: near, *server.sockets[0].getsockname())
        await far.made
        with meter:
            near.send()
            await near.done
        near.transport.close()
        far.transport.close()
        await near.lost
        await far.lost
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return rounds * 2


@case("protocol ping-pong, 1 KiB, per hop", 5_000)
def protocol_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)])


@case("buffered protocol ping-pong, 1 KiB, per hop", 5_000)
def buffered_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)], BufferedPeer)


@case("protocol ping-pong, 100 KiB, per hop", 1_000)
def protocol_100_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(100 * 1024)])


@case("protocol ping-pong, five writes of 200 B per message, per message", 3_000)
def five_writes(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(200)] * 5)


class DatagramPeer(asyncio.DatagramProtocol):
    """One end: sends back each datagram until `left` have come, then resolves `done`."""

    def __init__(self, loop: Loop, left: int) -> None:
        self.left = left
        self.done = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.left -= 1
        if self.left >= 0:
            self.transport.sendto(data, addr)
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


def datagrams(loop: Loop, count: int, meter: Meter, window: int) -> int:
    """1 KiB to and fro between two UDP sockets of one loop, `window` datagrams under way; an operation is one way."""
    rounds = -(-count // 2)

    async def main() -> None:
        near, far = DatagramPeer(loop, rounds - window), DatagramPeer(loop, rounds)
        for peer in (near, far):
            await loop.create_datagram_endpoint(lambda peer=peer: peer, local_addr=("127.0.0.1", 0))
        to = far.transport.get_extra_info("sockname")
        with meter:
            for _ in range(window):
                near.transport.sendto(bytes(1024), to)
            await near.done
        for peer in (near, far):
            peer.transport.close()
            await peer.lost

    loop.run_until_complete(main())
    return rounds * 2


@case("datagram ping-pong, 1 KiB, per hop", 5_000)
def datagram_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return datagrams(loop, count, meter, 1)


@case("datagrams, 1 KiB, ten under way, per hop", 5_000)
def datagram_10_under_way(loop: Loop, count: int, meter: Meter) -> int:
    return datagrams(loop, count, meter, 10)


@case("streams ping-pong, 1 KiB, per hop", 4_000)
def streams_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    rounds = -(-count // 2)
    message = bytes(1024)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with meter:
            for _ in range(rounds):
                writer.write(message)
                await writer.drain()
                await reader.readexactly(1024)
        writer.close()
        await reader.read()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return rounds * 2


@case("connection opened, accepted and closed (both ends)", 300)
def open_close(loop: Loop, count: int, meter: Meter) -> int:
    class Brief(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = loop.create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost.set_result(exc)

    accepted: list[Awaitable] = []

    def accept() -> Brief:
        protocol = Brief()
        accepted.append(protocol.lost)
        return protocol

    async def main() -> None:
        server = await loop.create_server(accept, "127.0.0.1", 0)
        addr = server.sockets[0].getsockname()
        with meter:
            for _ in range(count):
                _, mine = await loop.create_connection(Brief, *addr)
                mine.transport.close()
                await mine.lost
        _, waiting = await asyncio.wait(accepted, timeout=10)
        if waiting:
            raise RuntimeError("the accepted end is not told that its peer closed")
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return count


@case("child started and waited for", 60)
def spawn(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        with meter:
            for _ in range(count):
                process = await asyncio.create_subprocess_exec("/bin/true")
                if await process.wait() != 0:
                    raise RuntimeError("/bin/true failed")

    loop.run_until_complete(main())
    return count


@case("child started, `communicate` over three pipes", 60)
def communicate(loop: Loop, count: int, meter: Meter) -> int:
    pipe = asyncio.subprocess.PIPE

    async def main() -> None:
        with meter:
            for _ in range(count):
                process = await asyncio.create_subprocess_exec("/bin/cat", stdin=pipe, stdout=pipe, stderr=pipe)
                if await process.communicate(b"through") != (b"through", b""):
                    raise RuntimeError("/bin/cat lost something")

    loop.run_until_complete(main())
    return count
