"""A load generator for echo servers: N connections, one message in flight on each, one process, one epoll.

    python client.py --addr 127.0.0.1:25000 --duration 5 --concurrency 10 --msize 1024 --output text

With `--udp` the messages are datagrams, each connection a connected socket of its own.

It uses plain sockets, never an event loop, so that every loop meets the same client. Each connection first exchanges
one message that is compared byte by byte; then the load warms up; then the window is measured. Latency is the time
from the send of a message to the arrival of the last byte of its echo. With `--server-pid` (Linux), the CPU clock of
that process is read as the window opens and as it closes, which gives the server's CPU time per request.

With `--tls` the messages go over TLS. With `--handshakes full` or `resumed` a request is a connection: TCP, the TLS
handshake, one byte echoed, and the closing of both directions; latency is the time that all of it takes.

With `--spin` the client never sleeps in its poll. A send to a process that sleeps pays for waking its CPU, and on a
virtual machine that costs the sender several times what the echo does: a figure about the machine, and one that falls
on whichever loop lets the client fall asleep more often. It takes a CPU for the client alone.
"""

import argparse
import contextlib
import functools
import gc
import json
import math
import os
import select
import signal
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from server import allow_many_files, no_delay, parse_addr, use_cpu

PERCENTILES = (50, 75, 90, 95, 99)
# Longest silence of a server, in seconds, before the client gives up.
PATIENCE = 30
DONE = object()
READABLE, WRITABLE = select.POLLIN, select.POLLOUT  # the same bits in epoll


def process_cpu_ns(pid: int) -> int | None:
    """CPU time (user and system, all threads, nanoseconds) that a process has used; None where only Linux could say.

    The clock id of another process is what clock_getcpuclockid(3) computes: the inverted pid above three bits, of
    which 2 means "scheduler's clock". /proc/PID/stat counts in ticks of 10 ms; this clock does not. Raises OSError
    when there is no such process.
    """
    if not sys.platform.startswith("linux"):
        return None
    return time.clock_gettime_ns((~pid << 3) | 2)


def connect_datagrams(addr: tuple[str, int]) -> socket.socket:
    """A connected UDP socket. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(addr)
    return sock


class Channel:
    """TLS over a connected socket, the records in memory: one system call takes or sends what there is of them.

    `cipher` is scratch space for what arrives; channels used by one thread can share it.
    """

    def __init__(
        self, context: ssl.SSLContext, sock: socket.socket, cipher: memoryview, session: ssl.SSLSession | None = None
    ) -> None:
        self.sock = sock
        self.cipher = cipher
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)

    def take(self) -> None:
        """Take what has arrived. Raises ConnectionError at the end, and OSError."""
        count = self.sock.recv_into(self.cipher)
        if not count:
            raise ConnectionError("the server closed a connection")
        self.incoming.write(self.cipher[:count])

    def flush(self) -> None:
        """Send the records of the handshake and of the closing: too few for a socket to refuse. Raises OSError."""
        self.sock.sendall(self.outgoing.read())

    def handshake(self) -> None:
        """The whole of it, on a blocking socket. Raises OSError, ConnectionError where the server leaves."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self.take()
            else:
                self.flush()
                return

    def read(self) -> bytes:
        """The next bytes, on a blocking socket. Raises OSError, ConnectionError where the server leaves."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.take()

    def receive(self, buffer: bytearray) -> int:
        """Decrypt what has arrived, each record to the start of `buffer`; how much there was, 0 for the end.

        Raises BlockingIOError where not even one record is whole, and OSError.
        """
        count = self.sock.recv_into(self.cipher)
        if not count:
            return 0
        incoming, read, total = self.incoming, self.tls.read, 0
        incoming.write(self.cipher[:count])
        # OpenSSL takes a record at a time, and `buffer` holds any record: what is left of them is in `incoming`.
        while incoming.pending:
            try:
                total += read(65536, buffer)
            except ssl.SSLWantReadError:
                break
        if not total:
            raise BlockingIOError
        return total

    def seal(self, message: bytes) -> bytes:
        """The records that carry a message."""
        self.tls.write(message)
        return self.outgoing.read()


def insecure_context() -> ssl.SSLContext:
    """Python's defaults for a client, but any certificate will do: the server's is not from a known authority."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Load:
    """`concurrency` connections that echo messages of `msize` bytes."""

    def __init__(self, addr: tuple[str, int], concurrency: int, msize: int, spin: bool = False) -> None:
        self.msize = msize
        self.spin = spin
        self.message = (bytes(range(256)) * (msize // 256 + 1))[:msize]
        self.socks: dict[int, socket.socket] = {}
        for _ in range(concurrency):
            sock = self._connect(addr)
            self.socks[sock.fileno()] = sock
            self._verify(sock)
            sock.setblocking(False)
        self._began = dict.fromkeys(self.socks, 0)
        self._missing = dict.fromkeys(self.socks, 0)
        self._unsent: dict[int, memoryview] = {}
        self._poller = select.epoll() if hasattr(select, "epoll") else select.poll()
        for fd in self.socks:
            self._poller.register(fd, READABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.socks.values():
            sock.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def _connect(self, addr: tuple[str, int]) -> socket.socket:
        """A blocking socket, connected. Raises OSError."""
        sock = socket.create_connection(addr, timeout=PATIENCE)
        no_delay(sock)
        return sock

    def _verify(self, sock: socket.socket) -> None:
        """Exchange one message and compare it. Raises ConnectionError, or ValueError for a wrong echo."""
        view, answer = memoryview(self.message), bytearray()
        sent = 0
        while len(answer) < self.msize:
            # In pieces that any socket buffers hold, so that both ends never wait in send at once.
            if sent < self.msize:
                sent += sock.send(view[sent : sent + 65536])
            data = sock.recv(self.msize)
            if not data:
                raise ConnectionError("the server closed a connection before it answered")
            answer += data
        if answer != self.message:
            raise ValueError("the server did not echo what it was sent")

    def _receivers(self) -> dict[int, Callable[[bytearray], int]]:
        """What takes the bytes that came on a connection."""
        return {fd: sock.recv_into for fd, sock in self.socks.items()}

    def _senders(self) -> dict[int, Callable[[bytes], int]]:
        """What sends a message on a connection, as much of it as goes."""
        return {fd: sock.send for fd, sock in self.socks.items()}

    def start(self) -> None:
        """Send the first message on every connection. Raises OSError."""
        for fd, send in self._senders().items():
            self._missing[fd] = self.msize
            self._began[fd] = time.perf_counter_ns()
            if (sent := send(self.message)) != self.msize:
                self._send(fd, memoryview(self.message)[sent:])

    def _send(self, fd: int, data: memoryview) -> None:
        """Send what the socket takes; the rest goes when it is writable."""
        try:
            sent = self.socks[fd].send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent[fd] = data[sent:]
            self._poller.modify(fd, READABLE | WRITABLE)
        elif self._unsent.pop(fd, None) is not None:
            self._poller.modify(fd, READABLE)

    def run(self, seconds: float) -> tuple[list[int], float]:
        """Keep the load up for that long: the latencies (nanoseconds) of the messages answered, the seconds taken.

        Messages still in flight at the end are counted by the next run. Raises ConnectionError when the server closes
        a connection, TimeoutError when it falls silent (main thread only).
        """
        latencies: list[int] = []
        # Everything the inner loop touches is a local: the client must cost less than the server it measures.
        poll, clock, record = self._poller.poll, time.perf_counter_ns, latencies.append
        if self.spin:
            poll = functools.partial(poll, 0)
        receive, send = self._receivers(), self._senders()
        began, missing, msize, message = self._began, self._missing, self.msize, self.message
        buffer = bytearray(max(msize, 65536))
        opened = now = clock()
        deadline = opened + round(seconds * 1e9)
        while now < deadline:
            for fd, mask in poll():
                if mask & ~READABLE:
                    if mask & ~(READABLE | WRITABLE) and not mask & READABLE:
                        raise ConnectionError("the server reset a connection")
                    if mask & WRITABLE and fd in self._unsent:
                        self._send(fd, self._unsent[fd])
                    if not mask & READABLE:
                        continue
                try:
                    count = receive[fd](buffer)
                except BlockingIOError:
                    continue
                rest = missing[fd] - count
                if rest > 0 and count:
                    missing[fd] = rest
                elif rest == 0:
                    now = clock()
                    record(now - began[fd])
                    began[fd] = now
                    missing[fd] = msize
                    if (sent := send[fd](message)) != msize:
                        self._send(fd, memoryview(message)[sent:])
                else:
                    raise ConnectionError("the server closed a connection" if not count else "the echo is too long")
            now = clock()
        return latencies, (now - opened) / 1e9


class DatagramLoad(Load):
    """The same with datagrams."""

    def _connect(self, addr: tuple[str, int]) -> socket.socket:
        return connect_datagrams(addr)

    def _verify(self, sock: socket.socket) -> None:
        """Exchange one datagram and compare it. Raises OSError, or ValueError for a wrong echo."""
        sock.send(self.message)
        if sock.recv(65536) != self.message:
            raise ValueError("the server did not echo what it was sent")


class TlsLoad(Load):
    """The same over TLS."""

    def __init__(self, addr: tuple[str, int], concurrency: int, msize: int, spin: bool = False) -> None:
        self._context = insecure_context()
        self._cipher = memoryview(bytearray(msize + 65536))
        self._channels: dict[int, Channel] = {}
        super().__init__(addr, concurrency, msize, spin)

    @property
    def tls(self) -> str:
        """Version and cipher of the connections."""
        return describe(next(iter(self._channels.values())).tls)

    def _verify(self, sock: socket.socket) -> None:
        """Exchange one message and compare it. Raises ConnectionError, or ValueError for a wrong echo."""
        channel = self._channels[sock.fileno()] = Channel(self._context, sock, self._cipher)
        channel.handshake()
        answer = bytearray()
        for start in range(0, self.msize, 16384):
            # In pieces that any socket buffers hold, so that both ends never wait in send at once.
            sock.sendall(channel.seal(self.message[start : start + 16384]))
            while len(answer) < min(start + 16384, self.msize):
                answer += channel.read()
        if answer != self.message:
            raise ValueError("the server did not echo what it was sent")

    def _receivers(self) -> dict[int, Callable[[bytearray], int]]:
        return {fd: channel.receive for fd, channel in self._channels.items()}

    def _senders(self) -> dict[int, Callable[[bytes], int]]:
        return {fd: functools.partial(self._seal_and_send, fd, channel) for fd, channel in self._channels.items()}

    def _seal_and_send(self, fd: int, channel: Channel, message: bytes) -> int:
        """Send a message; what the socket does not take goes when it is writable."""
        self._send(fd, memoryview(channel.seal(message)))
        return len(message)


class Handshakes:
    """Visits to a TLS server, `concurrency` at a time: connect, shake hands, have one byte echoed, close both ways.

    Each handshake is a full one, or resumes the session of the first. It looks like `Load` to `measure`.
    """

    def __init__(self, addr: tuple[str, int], concurrency: int, resumed: bool, spin: bool = False) -> None:
        self._addr, self._concurrency, self._resumed, self._spin = addr, concurrency, resumed, spin
        self._context = insecure_context()
        self._cipher = memoryview(bytearray(65536))
        self._session: ssl.SSLSession | None = None
        self._poller = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._visits: dict[int, tuple[int, socket.socket, Iterator[None]]] = {}
        with socket.create_connection(addr, timeout=PATIENCE) as sock:
            channel = Channel(self._context, sock, self._cipher)
            channel.handshake()
            sock.sendall(channel.seal(b"?"))
            if channel.read() != b"?":
                raise ValueError("the server did not echo what it was sent")
            self.tls = describe(channel.tls)
            if resumed:  # tickets came before the echo, where they come after the handshake
                self._session = channel.tls.session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, sock, _ in self._visits.values():
            sock.close()
        if hasattr(self._poller, "close"):
            self._poller.close()

    def start(self) -> None:
        """Begin the first visits. Raises OSError."""
        for _ in range(self._concurrency):
            self._begin()

    def _begin(self) -> None:
        began = time.perf_counter_ns()
        sock = socket.create_connection(self._addr, timeout=PATIENCE)  # at once: the kernel accepts, not the server
        no_delay(sock)
        sock.setblocking(False)
        visit = self._visit(Channel(self._context, sock, self._cipher, self._session))
        next(visit)
        self._visits[sock.fileno()] = began, sock, visit
        self._poller.register(sock, READABLE)

    def _visit(self, channel: Channel) -> Iterator[None]:
        """A visit; it yields where it has to wait for the server. Raises OSError, ValueError for a wrong answer."""
        tls = channel.tls

        def step(operation: Callable[[], Any]) -> Iterator[None]:
            while True:
                try:
                    done = operation()
                except ssl.SSLWantReadError:
                    channel.flush()
                    yield
                    channel.take()
                else:
                    return done

        yield from step(tls.do_handshake)
        if tls.session_reused != self._resumed:
            raise ValueError(f"the server {'did not resume' if self._resumed else 'resumed'} a session")
        tls.write(b"?")
        channel.flush()
        if (yield from step(functools.partial(tls.read, 1))) != b"?":
            raise ValueError("the server did not echo what it was sent")
        # The server may end the connection with a close_notify of its own or without.
        with contextlib.suppress(ConnectionError):
            yield from step(tls.unwrap)

    def run(self, seconds: float) -> tuple[list[int], float]:
        """Keep visiting for that long: how long each visit took (nanoseconds), the seconds taken.

        Visits that last beyond the end are counted by the next run. Raises OSError, and ValueError for a wrong answer.
        """
        latencies: list[int] = []
        poll, clock = self._poller.poll, time.perf_counter_ns
        if self._spin:
            poll = functools.partial(poll, 0)
        opened = now = clock()
        deadline = opened + round(seconds * 1e9)
        while now < deadline:
            for fd, _ in poll():
                began, sock, visit = self._visits[fd]
                if next(visit, DONE) is DONE:
                    del self._visits[fd]
                    self._poller.unregister(fd)
                    sock.close()
                    latencies.append(clock() - began)
                    self._begin()
            now = clock()
        return latencies, (now - opened) / 1e9


def describe(tls: ssl.SSLObject) -> str:
    """Version and cipher of a connection."""
    return f"{tls.version()} {tls.cipher()[0]}"


def summary(latencies: list[int], seconds: float) -> dict[str, float]:
    """Rate and latencies (microseconds; percentiles by nearest rank). Raises ValueError when nothing was answered."""
    if not latencies:
        raise ValueError("the server answered nothing in the measured window")
    ordered = sorted(latencies)
    result = {
        "requests": len(ordered),
        "seconds": round(seconds, 4),
        "requests_per_second": round(len(ordered) / seconds, 1),
        "mean_us": round(statistics.fmean(ordered) / 1e3, 2),
        "stdev_us": round(statistics.pstdev(ordered) / 1e3, 2),
        "min_us": round(ordered[0] / 1e3, 2),
        "max_us": round(ordered[-1] / 1e3, 2),
    }
    for percent in PERCENTILES:
        result[f"p{percent}_us"] = round(ordered[math.ceil(len(ordered) * percent / 100) - 1] / 1e3, 2)
    return result


def measure(load: Load | Handshakes, duration: float, warmup: float, server_pid: int | None = None) -> dict[str, Any]:
    """Warm up, then measure for `duration` seconds.

    Adds to `summary`: the CPU the server used per request (`server_cpu_us`), the share of one CPU that it used
    (`server_busy`), and that of the client (`client_busy`). Raises what `Load.run` raises.
    """

    def cpu() -> int | None:
        return None if server_pid is None else process_cpu_ns(server_pid)

    load.start()
    load.run(warmup)
    own, server = time.process_time_ns(), cpu()
    latencies, seconds = load.run(duration)
    server_end, own_end = cpu(), time.process_time_ns()
    result: dict[str, Any] = dict(summary(latencies, seconds))
    result["client_busy"] = round((own_end - own) / 1e9 / seconds, 3)
    if server is None or server_end is None:
        result["server_cpu_us"] = result["server_busy"] = None
    else:
        result["server_cpu_us"] = round((server_end - server) / 1e3 / len(latencies), 3)
        result["server_busy"] = round((server_end - server) / 1e9 / seconds, 3)
    if isinstance(load, TlsLoad | Handshakes):
        result["tls"] = load.tls
    return result


def as_text(result: dict[str, Any]) -> str:
    """The result for a reader."""
    lines = [
        f"requests      {result['requests']} in {result['seconds']} s, {result['requests_per_second']} per second",
        f"latency, us   mean {result['mean_us']}, stdev {result['stdev_us']}, {result['min_us']} to {result['max_us']}",
        "percentiles   " + ", ".join(f"{percent} %: {result[f'p{percent}_us']}" for percent in PERCENTILES),
        f"client        {result['client_busy']:.0%} of a CPU",
    ]
    if result["server_cpu_us"] is not None:
        cpu, busy = result["server_cpu_us"], result["server_busy"]
        lines.append(f"server        {cpu} us of CPU per request, {busy:.0%} of a CPU")
    if "tls" in result:
        lines.append(f"connections   {result['tls']}, {ssl.OPENSSL_VERSION}")
    return "\n".join(lines)


def silent(*_: Any) -> None:
    """Signal handler: interrupts a poll that would wait for ever."""
    raise TimeoutError("the server fell silent")


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="Load generator for echo servers.")
    parser.add_argument("--addr", default="127.0.0.1:25000", help="HOST:PORT")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds measured")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before them")
    parser.add_argument("--concurrency", type=int, default=1, help="connections")
    parser.add_argument("--msize", type=int, default=1024, help="bytes per message")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--udp", action="store_true", help="datagrams")
    kind.add_argument("--tls", action="store_true", help="over TLS; any certificate will do")
    kind.add_argument("--handshakes", choices=("full", "resumed"), help="TLS connections instead of messages")
    parser.add_argument("--output", choices=("json", "text"), default="text")
    parser.add_argument("--server-pid", type=int, help="the process whose CPU time is measured")
    parser.add_argument("--cpu", type=int, help="pin the client to this CPU")
    parser.add_argument("--batch", action="store_true", help="never preempt the server (SCHED_BATCH)")
    parser.add_argument("--spin", action="store_true", help="poll without sleeping")
    options = parser.parse_args()
    if options.concurrency < 1 or options.msize < 1 or options.duration <= 0 or options.warmup < 0:
        parser.error("--concurrency and --msize are at least 1, --duration is positive, --warmup not negative")

    use_cpu(options.cpu, batch=options.batch)
    allow_many_files()
    gc.disable()  # latencies pile up by the million, none of them in a cycle
    signal.signal(signal.SIGALRM, silent)
    signal.alarm(math.ceil(options.warmup + options.duration) + PATIENCE)
    try:
        addr = parse_addr(options.addr)
        if options.handshakes:
            load = Handshakes(addr, options.concurrency, options.handshakes == "resumed", options.spin)
        else:
            kind = DatagramLoad if options.udp else TlsLoad if options.tls else Load
            load = kind(addr, options.concurrency, options.msize, options.spin)
        with load:
            result = measure(load, options.duration, options.warmup, options.server_pid)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.addr}: {error}") from error
    print(json.dumps(result) if options.output == "json" else as_text(result))
    sys.stdout.flush()
    os._exit(0)  # freeing a million integers takes longer than a quick measurement


if __name__ == "__main__":
    main()
