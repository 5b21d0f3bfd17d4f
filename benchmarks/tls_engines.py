"""CPU time of two ways to drive an `ssl.SSLContext`, without an event loop around it.

    python tls_engines.py [--seconds 1] [--rounds 5]

`memory`: an `ssl.SSLObject` between two `ssl.MemoryBIO`s; the server receives and sends the ciphertext itself, in one
call each where the kernel has it. `socket`: OpenSSL receives and sends by the socket's file descriptor (an
`ssl.SSLSocket`), a record at a time: header, body. It reads until OpenSSL says that it would have to wait, as it must
where readiness is edge-triggered (Tokio's is); `level` does not, as `poll(2)` will tell again. The server of a pair of
processes echoes messages; the figure is its CPU time per echo (user and system).
"""

import argparse
import os
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import certificate

SIZES = (1024, 10 * 1024, 100 * 1024)
RECORD = 16 * 1024


class Memory:
    """An SSL object between memory BIOs."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.scratch = bytearray(256 * 1024)
        self.view = memoryview(self.scratch)
        sock.setblocking(True)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(self.outgoing.read())
                self.incoming.write(sock.recv(RECORD))
            else:
                break
        sock.sendall(self.outgoing.read())
        sock.setblocking(False)
        self.core = self.tls._sslobj

    def read(self) -> list[bytes]:
        """What is there, decrypted; empty when a record is not whole."""
        n = self.sock.recv_into(self.scratch)
        if n == 0:
            raise ConnectionResetError
        found = []
        for start in range(0, n, 2 * RECORD):
            self.incoming.write(self.view[start : min(n, start + 2 * RECORD)])
            try:
                while self.incoming.pending:
                    found.append(self.core.read(RECORD + 1))
            except ssl.SSLWantReadError:
                pass
        return found

    def write(self, data: bytes) -> None:
        """Encrypt and send all of it."""
        view, done = memoryview(data), 0
        while done < len(data):
            done += self.core.write(view[done : done + RECORD])
        ciphertext = memoryview(self.outgoing.read())
        while ciphertext:
            try:
                ciphertext = ciphertext[self.sock.send(ciphertext) :]
            except BlockingIOError:
                select.select([], [self.sock], [])


class Level:
    """OpenSSL on the file descriptor, level-triggered."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        sock.setblocking(True)
        self.sock = context.wrap_socket(sock, server_side=True)
        self.sock.setblocking(False)
        self.core = self.sock._sslobj

    def read(self) -> list[bytes]:
        """One record, and what OpenSSL has besides."""
        found = []
        try:
            found.append(self.core.read(RECORD + 1))
            while self.core.pending():
                found.append(self.core.read(RECORD + 1))
        except ssl.SSLWantReadError:
            pass
        return found

    def write(self, data: bytes) -> None:
        """Encrypt and send all of it."""
        view, done = memoryview(data), 0
        while done < len(data):
            try:
                done += self.core.write(view[done : done + RECORD])
            except ssl.SSLWantWriteError:
                select.select([], [self.sock], [])


class Socket(Level):
    """OpenSSL on the file descriptor, edge-triggered."""

    def read(self) -> list[bytes]:
        """All records that are there."""
        found = []
        try:
            while True:
                found.append(self.core.read(RECORD + 1))
                if not found[-1]:
                    break
        except ssl.SSLWantReadError:
            pass
        return found


WAYS = (Memory, Socket, Level)


def client(address: tuple[str, int], size: int, seconds: float) -> None:
    """Send messages and take the echoes, for so long."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    message, buffer = bytes(size), bytearray(size)
    end = time.monotonic() + seconds
    with socket.create_connection(address) as plain, context.wrap_socket(plain) as sock:
        while time.monotonic() < end:
            sock.sendall(message)
            got = 0
            while got < size:
                got += sock.recv_into(memoryview(buffer)[got:])


def serve(engine: Callable[[ssl.SSLContext, socket.socket], Memory | Level], size: int, seconds: float) -> float:
    """CPU time per echo, microseconds."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        pem = Path(folder, "server.pem")
        certificate.write(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        child = os.fork()
        if child == 0:
            try:
                client(listener.getsockname()[:2], size, seconds)
            finally:
                os._exit(0)
        sock, _ = listener.accept()
        end = engine(context, sock)
        poll = select.poll()
        poll.register(end.sock, select.POLLIN)
        echoes, parts, begun = 0, bytearray(), time.process_time()
        while True:
            poll.poll()
            try:
                found = end.read()
            except (ssl.SSLError, ConnectionError):
                break
            if found and not found[-1]:
                break
            parts += b"".join(found)
            if len(parts) >= size:
                end.write(bytes(parts))
                parts.clear()
                echoes += 1
        spent = time.process_time() - begun
        end.sock.close()
        os.waitpid(child, 0)
    return spent / max(echoes, 1) * 1e6


def main() -> None:
    """Print CPU time per echo of both, and the ratio."""
    parser = argparse.ArgumentParser(description="Compare two ways to drive an SSLContext.")
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement (1)")
    parser.add_argument("--rounds", type=int, default=5, help="both take turns so often (5)")
    options = parser.parse_args()
    names = [way.__name__.lower() for way in WAYS]
    print(f"us of CPU per echo, median of {options.rounds}, and the ratio to {names[0]}")
    print(f"{'message':>10}" + "".join(f"{name:>16}" for name in names))
    for size in SIZES:
        rounds = [[serve(way, size, options.seconds) for way in WAYS] for _ in range(options.rounds)]
        cells = []
        for way in range(len(WAYS)):
            ratio = median(spent[way] / spent[0] for spent in rounds)
            cells.append(f"{median(spent[way] for spent in rounds):>10.1f} {ratio:>5.2f}")
        print(f"{size // 1024:>6} KiB{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
