"""The same over TLS, and connections made for their handshakes."""

import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from load import Load, connect
from other_loads import Visits
from server import Addr


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


class TlsLoad(Load):
    """The same over TLS."""

    def __init__(self, addr: Addr, concurrency: int, msize: int, spin: bool = False) -> None:
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


class Handshakes(Visits):
    """Visits to a TLS server, `concurrency` at a time: connect, shake hands, have one byte echoed, close both ways.

    Each handshake is a full one, or resumes the session of the first. It looks like `Load` to `measure`.
    """

    def __init__(self, addr: Addr, concurrency: int, resumed: bool, spin: bool = False) -> None:
        super().__init__(addr, concurrency, 1, spin)
        self._resumed = resumed
        self._context = insecure_context()
        self._cipher = memoryview(bytearray(65536))
        self._session: ssl.SSLSession | None = None
        with connect(addr) as sock:
            channel = Channel(self._context, sock, self._cipher)
            channel.handshake()
            sock.sendall(channel.seal(b"?"))
            if channel.read() != b"?":
                raise ValueError("the server did not echo what it was sent")
            self.tls = describe(channel.tls)
            if resumed:  # tickets came before the echo, where they come after the handshake
                self._session = channel.tls.session

    def _visit(self, sock: socket.socket) -> Iterator[None]:
        sock.setblocking(False)
        channel = Channel(self._context, sock, self._cipher, self._session)
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


def describe(tls: ssl.SSLObject) -> str:
    """Version and cipher of a connection."""
    return f"{tls.version()} {tls.cipher()[0]}"
