"""Blocking, closed and wrong sockets; addresses and ports that are none."""

from __future__ import annotations

import asyncio
import socket
import ssl

from spec._kit import peers
from tests.bad_input import attempt, case, run

# ---- sockets


def every_operation(loop, step, sock, listening=None):
    """Each `sock_*` on a socket that is not fit for any; `listening` is to accept, if it is another one."""
    attempt(step, run, loop, loop.sock_recv(sock, 1))
    attempt(step, run, loop, loop.sock_recv_into(sock, bytearray(1)))
    attempt(step, run, loop, loop.sock_recvfrom(sock, 1))
    attempt(step, run, loop, loop.sock_recvfrom_into(sock, bytearray(1)))
    attempt(step, run, loop, loop.sock_sendall(sock, b"x"))
    attempt(step, run, loop, loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)))
    attempt(step, run, loop, loop.sock_accept(listening or sock))
    attempt(step, run, loop, loop.sock_connect(sock, ("127.0.0.1", 1)))


@case
def blocking_sockets(loop, step):
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    with ours, theirs, listening:
        for debug in (True, False):
            loop.set_debug(debug)
            step(debug)
            if debug:
                every_operation(loop, step, ours, listening)


@case
def closed_sockets(loop, step):
    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    every_operation(loop, step, sock)


@case
def sockets_that_are_not_connected_or_do_not_listen(loop, step):
    with socket.socket() as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.sock_recv(sock, 1))
        attempt(step, run, loop, loop.sock_sendall(sock, b"x"))
        attempt(step, run, loop, loop.sock_accept(sock))


@case
def ssl_sockets(loop, step):
    context = ssl.create_default_context()
    context.check_hostname = False
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, context.wrap_socket(ours, do_handshake_on_connect=False) as sock:
        every_operation(loop, step, sock)
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))


@case(says_the_same=False)
def buffers_and_sizes_of_the_wrong_type(loop, step):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"data")
        attempt(step, run, loop, loop.sock_recv(ours, "1"))
        attempt(step, run, loop, loop.sock_recv(ours, -1))
        attempt(step, run, loop, loop.sock_recv(ours, None))
        attempt(step, run, loop, loop.sock_recv_into(ours, b"immutable"))
        attempt(step, run, loop, loop.sock_recv_into(ours, None))
        attempt(step, run, loop, loop.sock_recv_into(ours, "text"))
        attempt(step, run, loop, loop.sock_recvfrom_into(ours, bytearray(1), "1"))
        attempt(step, run, loop, loop.sock_sendall(ours, "text"))
        attempt(step, run, loop, loop.sock_sendall(ours, None))
        attempt(step, run, loop, loop.sock_sendall(ours, 5))
        step(run(loop, loop.sock_recv(ours, 100)))


@case(says_the_same=False)
def what_is_no_socket(loop, step):
    for make in (
        lambda: loop.sock_recv(None, 1),
        lambda: loop.sock_recv(5, 1),
        lambda: loop.sock_recv_into("x", bytearray(1)),
        lambda: loop.sock_sendall(None, b"x"),
        lambda: loop.sock_accept(None),
        lambda: loop.sock_connect(None, ("127.0.0.1", 1)),
        lambda: loop.create_connection(asyncio.Protocol, sock=5),
        lambda: loop.create_server(asyncio.Protocol, sock=5),
    ):
        attempt(step, lambda make=make: run(loop, make()))


@case
def sockets_of_the_wrong_kind(loop, step):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))


@case
def a_closed_socket_for_a_connection(loop, step):
    for _ in range(2):
        sock = socket.socket()
        sock.close()
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))


# ---- addresses and ports


@case
def a_port_that_refuses(loop, step):
    port = peers.closed_port()
    attempt(step, run, loop, loop.create_connection(asyncio.Protocol, "127.0.0.1", port))
    attempt(step, run, loop, asyncio.open_connection("127.0.0.1", port))
    with socket.socket() as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.sock_connect(sock, ("127.0.0.1", port)))


@case
def a_port_in_use(loop, step):
    with peers.listener() as listening:
        port = listening.getsockname()[1]
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, "127.0.0.1", port))
        attempt(step, run, loop, asyncio.start_server(print, "127.0.0.1", port))
        local = {"local_addr": ("127.0.0.1", port)}
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, "127.0.0.1", port, **local))


@case
def hosts_and_ports_that_are_none(loop, step):
    create = loop.create_connection
    attempt(step, run, loop, create(asyncio.Protocol))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 70_000))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", -1))
    attempt(step, run, loop, create(asyncio.Protocol, "256.256.256.256.", 1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", "no such service"))
    attempt(step, run, loop, create(asyncio.Protocol, 5, 1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, family=socket.AF_INET6))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, local_addr=("192.0.2.1", 0)))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, local_addr="text"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, sock=socket.socket()))


@case
def addresses_of_sock_connect_that_are_none(loop, step):
    for address in (None, "text", ("127.0.0.1",), ("127.0.0.1", "x"), ("127.0.0.1", 70_000), (5, 5), ("a" * 70, 1)):
        with socket.socket() as sock:
            sock.setblocking(False)
            attempt(step, lambda sock=sock, address=address: run(loop, loop.sock_connect(sock, address)))


@case
def servers_that_cannot_be(loop, step):
    create = loop.create_server
    attempt(step, run, loop, create(asyncio.Protocol))
    attempt(step, run, loop, create(asyncio.Protocol, "192.0.2.1", 0))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 70_000))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, ssl="text"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, ssl_handshake_timeout=1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, backlog="x"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, sock=socket.socket()))


@case
def tls_arguments_that_do_not_fit(loop, step):
    create = loop.create_connection
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, server_hostname="x"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, ssl_handshake_timeout=1))
    attempt(step, run, loop, create(asyncio.Protocol, sock=socket.socket(), ssl=True))
    attempt(step, run, loop, loop.start_tls(None, None, None))
    attempt(step, run, loop, loop.start_tls(None, None, ssl.create_default_context()))


@case
def a_peer_that_speaks_no_tls(loop, step):
    ours, theirs = peers.pair()
    with theirs:
        theirs.sendall(b"this is no TLS record at all")
        context = ssl.create_default_context()
        create = loop.create_connection
        attempt(step, run, loop, create(asyncio.Protocol, sock=ours, ssl=context, server_hostname="localhost"))
