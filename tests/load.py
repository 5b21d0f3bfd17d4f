"""A load of plain blocking sockets in threads: as many exchanges as fit into a time, each answer checked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

Exchange = Callable[[socket.socket, int], None]
"""A request and its answer on a connected socket, by the exchange's number; raises where the answer is wrong."""

TIMEOUT = 15.0
"""Seconds a socket of the load waits for an answer."""


def run(port: int, exchange: Exchange, *, connections: int, seconds: float, reconnect_every: int = 0) -> int:
    """Exchange on `connections` sockets for `seconds`; how many exchanges were right. Raises the first that was wrong.

    With `reconnect_every`, a connection is closed after that many exchanges and a new one is made.
    """
    deadline = time.monotonic() + seconds
    counts = [0] * connections
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while time.monotonic() < deadline and not errors:
                with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    here = 0
                    while time.monotonic() < deadline and not errors:
                        exchange(sock, number + connections * counts[number])
                        counts[number] += 1
                        here += 1
                        if here == reconnect_every:
                            break
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 2 * TIMEOUT)
        if thread.is_alive():
            raise TimeoutError(f"a connection still waits {2 * TIMEOUT} s after the load ended")
    if errors:
        raise errors[0]
    return sum(counts)


def http(sock: socket.socket, number: int) -> None:
    """A GET, a POST or (rarely) a large GET by `number`, on a kept-alive connection, with its body checked."""
    path = f"/path/{number}"
    if number % 100 == 99:
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: here\r\n\r\n")
        body, expected = _answer(sock), b"".join(bytes([65 + part % 26]) * 65_536 for part in range(16))
    elif number % 3 == 2:
        expected = path.encode() * (1 + number % 3000)
        head = f"POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: {len(expected)}\r\n\r\n".encode()
        sock.sendall(head + expected)
        body = _answer(sock)
    else:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: here\r\n\r\n".encode())
        body, expected = _answer(sock), path.encode()
    if body != expected:
        raise AssertionError(f"exchange {number}: got {body[:100]!r}, expected {expected[:100]!r}")


def _answer(sock: socket.socket) -> bytes:
    with sock.makefile("rb", buffering=-1) as file:
        status = file.readline()
        if b" 200 " not in status:
            raise AssertionError(f"status line {status!r}")
        length = None
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length is None:
            raise AssertionError("an answer without content-length")
        return file.read(length)


def line(sock: socket.socket, number: int) -> None:
    """A line of 1 B to 64 KiB, to be echoed."""
    sent = (b"%d." % number) * (1 + (number * 7919) % 8000) + b"\n"
    sock.sendall(sent)
    got = bytearray()
    while not got.endswith(b"\n"):
        chunk = sock.recv(1 << 16)
        if not chunk:
            raise AssertionError(f"exchange {number}: end of stream after {len(got)} of {len(sent)} bytes")
        got += chunk
    if got != sent:
        raise AssertionError(f"exchange {number}: {len(got)} bytes differ from the {len(sent)} sent")
