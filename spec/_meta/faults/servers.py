"""Whole loops that are wrong about servers, about connections that are being made, and about names."""

from __future__ import annotations

import asyncio
import socket
from asyncio import base_events

from spec._meta.parts import EdgesFor


class SpecAcceptsOne(asyncio.SelectorEventLoop):
    """Accepts one connection each time that the kernel tells of one.

    Stands for edge-triggered loops that do not accept until there is none.
    """

    def __init__(self):
        super().__init__(EdgesFor())

    def _start_serving(self, protocol_factory, sock, *args, **options):
        self._selector.edges.add(sock.fileno())
        super()._start_serving(protocol_factory, sock, *args, **options)

    def _accept_connection(self, protocol_factory, sock, sslcontext=None, server=None, _backlog=100, *args, **options):
        super()._accept_connection(protocol_factory, sock, sslcontext, server, 1, *args, **options)


class SpecGivesUpAccepting(asyncio.SelectorEventLoop):
    """Accepts no more once it has run out of descriptors.

    Stands for loops that end the task of a listener with its first error.
    """

    def call_later(self, delay, callback, *args, context=None):
        if getattr(callback, "__name__", "") == "_start_serving":
            callback, args = int, ()
        return super().call_later(delay, callback, *args, context=context)


class SpecEndsClients(asyncio.SelectorEventLoop):
    """Aborts the connections of a server when that is closed.

    Stands for loops in which a server owns its connections.
    """

    async def create_server(self, *args, **options):
        server = await super().create_server(*args, **options)
        server.__class__ = _Owner
        return server


class _Owner(base_events.Server):
    def close(self):
        clients = list(self._clients)
        super().close()
        for client in clients:
            client.abort()


class SpecWaitsForNobody(asyncio.SelectorEventLoop):
    """Returns from wait_closed() though connections are open.

    Stands for CPython 3.11 and before, and for loops that follow it.
    """

    async def create_server(self, *args, **options):
        server = await super().create_server(*args, **options)
        server.__class__ = _Hasty
        return server


class _Hasty(base_events.Server):
    async def wait_closed(self):
        return


class SpecServesForEver(asyncio.SelectorEventLoop):
    """Goes on with serve_forever() when the server is closed.

    Stands for loops in which only a cancellation ends it.
    """

    async def create_server(self, *args, **options):
        server = await super().create_server(*args, **options)
        server.__class__ = _Stubborn
        return server


class _Stubborn(base_events.Server):
    def close(self):
        future, self._serving_forever_fut = self._serving_forever_fut, None
        super().close()
        self._serving_forever_fut = future


class SpecTriesFirstAddress(asyncio.SelectorEventLoop):
    """Tries the first address of a name.

    Stands for first versions of loops with a create_connection() of their own.
    """

    async def _ensure_resolved(self, address, *, flags=0, **options):
        found = await super()._ensure_resolved(address, flags=flags, **options)
        return found if flags & socket.AI_PASSIVE else found[:1]


class SpecKeepsCancelled(asyncio.SelectorEventLoop):
    """Keeps the socket of a create_connection() that was cancelled.

    Stands for loops over io_uring and over threads, where an attempt to connect goes on without its task.
    """

    async def sock_connect(self, sock, address):
        try:
            await super().sock_connect(sock, address)
        except asyncio.CancelledError:
            self._kept = sock.dup().detach()
            raise


class SpecResolvesInline(asyncio.SelectorEventLoop):
    """Looks names up in its own thread.

    Stands for first versions of any loop.
    """

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class SpecKnowsAddresses(asyncio.SelectorEventLoop):
    """Answers for a numeric address itself, by one entry of a stream, whatever is asked for.

    Stands for loops with a short cut past getaddrinfo().
    """

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        try:
            socket.inet_aton(host)
        except (OSError, TypeError, ValueError):
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, int(port or 0)))]


class SpecRefusesAbstract(asyncio.SelectorEventLoop):
    """Refuses an abstract address of a Unix socket.

    Stands for loops that hand paths to C as strings.
    """

    async def create_unix_server(self, protocol_factory, path=None, **options):
        if path is not None and path[:1] in ("\0", b"\0"):
            raise ValueError("embedded null byte")
        return await super().create_unix_server(protocol_factory, path, **options)


class SpecAcceptsBlocking(asyncio.SelectorEventLoop):
    """Returns blocking sockets that children inherit from sock_accept().

    Stands for loops that accept by accept(2) and leave it at that.
    """

    async def sock_accept(self, sock):
        connection, address = await super().sock_accept(sock)
        connection.setblocking(True)
        connection.set_inheritable(True)
        return connection, address


class SpecConnectsBlocking(asyncio.SelectorEventLoop):
    """Waits in connect(2), for ever if need be.

    Stands for first versions of loops, for Unix sockets above all, whose connect() is taken for immediate.
    """

    async def sock_connect(self, sock, address):
        if sock.family == socket.AF_UNIX:
            sock.setblocking(True)
            try:
                sock.connect(address)
            finally:
                sock.setblocking(False)
        else:
            await super().sock_connect(sock, address)


class SpecGivesUpItsTurn(asyncio.SelectorEventLoop):
    """Lets other callbacks run before a sock_recv() that need not wait.

    Stands for loops over completions, where every operation takes a round through the kernel.
    """

    async def sock_recv(self, sock, n):
        await asyncio.sleep(0)
        return await super().sock_recv(sock, n)


class SpecDefersAccept(asyncio.SelectorEventLoop):
    """Tells a server's protocol of its connection when that sends something.

    Stands for loops that accept with TCP_DEFER_ACCEPT, or read before they call.
    """

    async def create_server(self, *args, **options):
        server = await super().create_server(*args, **options)
        for sock in server.sockets:
            sock._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        return server


class SpecInherits(asyncio.SelectorEventLoop):
    """Accepts connections that the programs which the process starts inherit.

    Stands for loops that accept by accept(2), without SOCK_CLOEXEC.
    """

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        if options.get("server") is not None:
            sock.set_inheritable(True)
        return super()._make_socket_transport(sock, protocol, waiter, **options)


class SpecListensAtOnce(asyncio.SelectorEventLoop):
    """Listens with start_serving=False, too.

    Stands for loops that bind and listen in one step.
    """

    async def create_server(self, *args, **options):
        server = await super().create_server(*args, **options)
        if options.get("start_serving") is False:
            for sock in server._sockets:
                sock.listen(100)
        return server


class SpecSharesItsPort(asyncio.SelectorEventLoop):
    """Sets SO_REUSEADDR on endpoints, so that another program can have their datagrams.

    Stands for CPython before 3.8.1: bpo-37228.
    """

    def _make_datagram_transport(self, sock, *args, **options):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return super()._make_datagram_transport(sock, *args, **options)
