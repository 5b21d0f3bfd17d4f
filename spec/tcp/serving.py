"""What tests of servers share: an echoing protocol and a blocking client."""

from __future__ import annotations

import asyncio
import socket

from .._kit import peers

LOCALHOST = "127.0.0.1"


def connect(addr):
    return socket.create_connection(addr[:2], timeout=peers.TIMEOUT)


def exchange(addr, data=b"ping"):
    with connect(addr) as sock:
        sock.sendall(data)
        return peers.recv_exactly(sock, len(data))


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
