"""Loops with one defect each in how TCP and Unix connections come about: the standard library's, broken."""

from __future__ import annotations

import asyncio
import os
import socket

from spec._meta.faults import servers
from spec._meta.patience import Hang


class SpecFirstOnly(asyncio.SelectorEventLoop):
    """Tries the first address of a host only."""

    async def _ensure_resolved(self, *args, **kwargs):
        return (await super()._ensure_resolved(*args, **kwargs))[:1]


class SpecOneError(asyncio.SelectorEventLoop):
    """Raises one error where all were asked for."""

    async def create_connection(self, *args, all_errors=False, **kwargs):
        return await super().create_connection(*args, **kwargs)


class SpecKeepsRefused(asyncio.SelectorEventLoop):
    """Keeps the descriptor of a connection that failed."""

    async def sock_connect(self, sock, address):
        try:
            await super().sock_connect(sock, address)
        except OSError:
            os.dup(sock.fileno())
            raise


class SpecCycles(asyncio.SelectorEventLoop):
    """Leaves its frame in a reference cycle with the error of a connection."""

    async def create_connection(self, *args, **kwargs):
        try:
            return await super().create_connection(*args, **kwargs)
        except OSError as error:
            last = error  # noqa: F841 - the frame has it, and it has the frame
            raise


class SpecOrdered(asyncio.SelectorEventLoop):
    """Does not interleave the families of addresses."""

    async def create_connection(self, *args, interleave=None, **kwargs):
        return await super().create_connection(*args, interleave=0, **kwargs)


class SpecOneAtATime(asyncio.SelectorEventLoop):
    """Begins the next attempt when the last one has failed only."""

    async def create_connection(self, *args, happy_eyeballs_delay=None, **kwargs):
        return await super().create_connection(*args, **kwargs)


class SpecAnyPort(asyncio.SelectorEventLoop):
    """Does not bind a connection to its local address."""

    async def create_connection(self, *args, local_addr=None, **kwargs):
        return await super().create_connection(*args, **kwargs)


class SpecEagerFactory(asyncio.SelectorEventLoop):
    """Makes the protocol before there is a connection."""

    async def create_connection(self, protocol_factory, *args, **kwargs):
        protocol = protocol_factory()
        return await super().create_connection(lambda: protocol, *args, **kwargs)


class SpecStillBlocking(asyncio.SelectorEventLoop):
    """Leaves a socket that it is given blocking."""

    async def create_connection(self, *args, sock=None, **kwargs):
        blocking = sock is not None and sock.getblocking()
        made = await super().create_connection(*args, sock=sock, **kwargs)
        if blocking:
            sock.setblocking(True)
        return made


class SpecTwoOwners(asyncio.SelectorEventLoop):
    """Lets a descriptor be watched that a transport has."""

    def _ensure_fd_no_transport(self, fd):
        pass


class SpecBindsLate(asyncio.SelectorEventLoop):
    """Does not set SO_REUSEADDR."""

    async def create_server(self, *args, reuse_address=None, **kwargs):
        return await super().create_server(*args, reuse_address=bool(reuse_address), **kwargs)


class SpecNoKeepAlive(asyncio.SelectorEventLoop):
    """Does not keep connections alive."""

    async def create_server(self, *args, keep_alive=None, **kwargs):
        return await super().create_server(*args, **kwargs)


class SpecDeepBacklog(asyncio.SelectorEventLoop):
    """Has room for a hundred clients that wait, whatever the backlog."""

    async def create_server(self, *args, backlog=100, start_serving=True, **kwargs):
        return await super().create_server(*args, backlog=100, start_serving=start_serving, **kwargs)


class SpecServesAtOnce(asyncio.SelectorEventLoop):
    """Serves as soon as a server is made."""

    async def create_server(self, *args, start_serving=True, **kwargs):
        return await super().create_server(*args, **kwargs)


class SpecGivesUp(servers.SpecGivesUpAccepting):
    """Does not go on accepting once it was short of descriptors."""


class SpecHangsUp(asyncio.SelectorEventLoop):
    """Closes the connections of a server with it."""

    def _stop_serving(self, sock):
        super()._stop_serving(sock)
        for transport in list(self._transports.values()):
            if transport._server is not None:
                transport.close()


class SpecListensOn(asyncio.SelectorEventLoop):
    """Goes on listening when a server is closed."""

    def _stop_serving(self, sock):
        self._remove_reader(sock.fileno())
        self._listening = sock


class SpecOneForAll(asyncio.SelectorEventLoop):
    """Makes one protocol for all connections of a server."""

    def _start_serving(self, protocol_factory, *args, **kwargs):
        made = []

        def factory():
            made.append(made[0] if made else protocol_factory())
            return made[0]

        super()._start_serving(factory, *args, **kwargs)


class SpecFactoryEnds(asyncio.SelectorEventLoop):
    """Stops serving when a protocol factory raises."""

    def _start_serving(self, protocol_factory, sock, *args, **kwargs):
        def factory():
            try:
                return protocol_factory()
            except Exception:
                self._remove_reader(sock.fileno())
                raise

        super()._start_serving(factory, sock, *args, **kwargs)


class SpecLeavesUnmade(asyncio.SelectorEventLoop):
    """Leaves a connection open whose protocol factory raises."""

    def _start_serving(self, protocol_factory, sock, *args, **kwargs):
        super()._start_serving(protocol_factory, _Keeping(sock, self), *args, **kwargs)


class _Keeping:
    """A listener that keeps what it accepts."""

    def __init__(self, sock, loop):
        self._sock, self._loop = sock, loop
        loop.kept = []

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def accept(self):
        conn, address = self._sock.accept()
        self._loop.kept.append(conn)
        return conn, address


class _Closing(asyncio.SelectorEventLoop):
    """Has a hand in the servers that it makes."""

    def alter(self, server):
        raise NotImplementedError

    async def create_server(self, *args, **kwargs):
        server = await super().create_server(*args, **kwargs)
        self.alter(server)
        return server


class SpecWaitsForNone(_Closing):
    """Does not wait for the connections of a server."""

    def alter(self, server):
        async def wait_closed():
            return None

        server.wait_closed = wait_closed


class SpecAbortsClients(_Closing):
    """close_clients() is abort_clients()."""

    def alter(self, server):
        server.close_clients = server.abort_clients


class SpecClosesClients(_Closing):
    """abort_clients() is close_clients()."""

    def alter(self, server):
        server.abort_clients = server.close_clients


class SpecServesAgain(_Closing):
    """Lets serve_forever() be called as often as one likes."""

    def alter(self, server):
        forever = server.serve_forever

        async def serve_forever():
            if server._serving_forever_fut is not None:
                await server._serving_forever_fut
            else:
                await forever()

        server.serve_forever = serve_forever


class SpecSocketStays(asyncio.SelectorEventLoop):
    """Leaves the socket file of a server."""

    async def create_unix_server(self, *args, cleanup_socket=True, **kwargs):
        return await super().create_unix_server(*args, cleanup_socket=False, **kwargs)


class SpecUnlinksAll(asyncio.SelectorEventLoop):
    """Removes whatever is at the path of a server that it closes."""

    def _stop_serving(self, sock):
        path = sock.getsockname()
        super()._stop_serving(sock)
        if isinstance(path, str) and os.path.exists(path):
            os.unlink(path)


class SpecPathsAreText(asyncio.SelectorEventLoop):
    """Takes no path but str."""

    async def create_unix_server(self, factory, path=None, **kwargs):
        if path is not None and not isinstance(path, str):
            raise TypeError("the path must be a str")
        return await super().create_unix_server(factory, path, **kwargs)

    async def create_unix_connection(self, factory, path=None, **kwargs):
        if path is not None and not isinstance(path, str):
            raise TypeError("the path must be a str")
        return await super().create_unix_connection(factory, path, **kwargs)


class SpecNothingAbstract(asyncio.SelectorEventLoop):
    """Takes the name of an abstract address for a path."""

    async def create_unix_server(self, factory, path=None, **kwargs):
        path = path.strip("\0") if isinstance(path, str) else path
        return await super().create_unix_server(factory, path, **kwargs)


class SpecKeepsUnixRefused(asyncio.SelectorEventLoop):
    """Keeps the socket of a Unix connection that failed."""

    async def create_unix_connection(self, factory, path=None, **kwargs):
        try:
            return await super().create_unix_connection(factory, path, **kwargs)
        except OSError:
            socket.socket(socket.AF_UNIX).detach()
            raise


class SpecAnySocket(asyncio.SelectorEventLoop):
    """Takes a socket of any family for a Unix connection."""

    async def create_unix_connection(self, factory, path=None, *, sock=None, **kwargs):
        if path is None and sock is not None and sock.family != socket.AF_UNIX:
            return await self.create_connection(factory, sock=sock, **kwargs)
        return await super().create_unix_connection(factory, path, sock=sock, **kwargs)


class SpecTakesStale(asyncio.SelectorEventLoop):
    """Does not serve at a path where a socket file was left."""

    async def create_unix_server(self, factory, path=None, **kwargs):
        if path is not None and os.path.exists(path):  # noqa: ASYNC240
            raise OSError(98, "the path is in use")
        return await super().create_unix_server(factory, path, **kwargs)


class SpecNoRemotePath(asyncio.SelectorEventLoop):
    """Does not connect a datagram endpoint to its remote path."""

    async def create_datagram_endpoint(self, factory, local_addr=None, remote_addr=None, **kwargs):
        if kwargs.get("family") == socket.AF_UNIX and isinstance(remote_addr, str):
            remote_addr = None
        return await super().create_datagram_endpoint(factory, local_addr, remote_addr, **kwargs)


CONNECT = "tcp/test_connect.py::test_"
CREATE = "tcp/test_create_server.py::test_"
SERVER = "tcp/test_server.py::test_"
UNIX_CONNECT = "unix/test_connect.py::test_"
UNIX_SERVER = "unix/test_server.py::test_"
CAUGHT_BY = {
    "SpecFirstOnly": [CONNECT + "addresses_are_tried_in_order_until_one_connects[{}]"],
    "SpecOneError": [CONNECT + "all_errors_raises_an_exception_group_of_every_failure[{}]"],
    "SpecKeepsRefused": [CONNECT + "a_refused_connection_raises_connection_refused_error[{}]"],
    "SpecCycles": [CONNECT + "a_refused_connection_leaves_no_reference_cycle[{}-False-127.0.0.1]"],
    "SpecOrdered": [CONNECT + "interleave_alternates_the_families[{}]"],
    "SpecOneAtATime": [Hang(CONNECT + "happy_eyeballs_starts_the_next_attempt_after_the_delay[{}]")],
    "SpecAnyPort": [CONNECT + "local_addr_binds_the_socket_before_it_connects[{}]"],
    "SpecEagerFactory": [CONNECT + "the_factory_is_called_for_a_connection_that_exists_only[{}]"],
    "SpecStillBlocking": [CONNECT + "a_connected_socket_is_used_as_it_is_and_made_non_blocking[{}-True]"],
    "SpecTwoOwners": [CONNECT + "the_descriptor_of_an_open_transport_cannot_be_watched[{}-add_reader]"],
    "SpecBindsLate": [
        CREATE + "a_port_is_served_again_right_after_its_connections_ended[{}]",
    ],
    "SpecNoKeepAlive": [CREATE + "keep_alive_sets_the_option[{}]"],
    "SpecDeepBacklog": [CREATE + "the_backlog_bounds_the_connections_that_wait[{}]"],
    "SpecServesAtOnce": [SERVER + "a_server_made_idle_serves_once_it_is_started[{}]"],
    "SpecGivesUp": [Hang(SERVER + "running_out_of_descriptors_is_reported_and_the_server_goes_on_later[{}]")],
    "SpecHangsUp": [SERVER + "clients_live_on_when_their_server_is_closed[{}]"],
    "SpecListensOn": [SERVER + "close_closes_the_listeners_and_may_be_called_again[{}]"],
    "SpecOneForAll": [SERVER + "the_factory_is_called_once_for_each_connection[{}]"],
    "SpecFactoryEnds": [Hang(SERVER + "a_server_lives_on_when_its_protocol_factory_raises[{}]")],
    "SpecLeavesUnmade": [Hang(SERVER + "a_server_lives_on_when_its_protocol_factory_raises[{}]")],
    "SpecWaitsForNone": [SERVER + "wait_closed_waits_for_close_and_for_every_client[{}]"],
    "SpecAbortsClients": [SERVER + "close_clients_closes_every_connection_after_its_flush[{}]"],
    "SpecClosesClients": [Hang(SERVER + "abort_clients_ends_every_connection_at_once[{}]")],
    "SpecServesAgain": [Hang(SERVER + "serve_forever_twice_or_on_a_closed_server_raises_runtime_error[{}]")],
    "SpecSocketStays": [UNIX_SERVER + "the_socket_file_goes_when_the_server_closes[{}]"],
    "SpecUnlinksAll": [UNIX_SERVER + "a_file_that_is_not_the_servers_own_any_more_is_left_alone[{}-replaced]"],
    "SpecPathsAreText": [
        UNIX_SERVER + "a_server_listens_on_a_path_given_as_str_bytes_or_path_like[{}-bytes]",
        Hang(UNIX_CONNECT + "a_path_may_be_str_bytes_or_path_like[{}-PathLike]"),
    ],
    "SpecNothingAbstract": [UNIX_SERVER + "a_server_listens_on_an_abstract_address[{}-str]"],
    "SpecKeepsUnixRefused": [UNIX_CONNECT + "a_connection_that_fails_leaves_no_descriptor_open[{}]"],
    "SpecAnySocket": [UNIX_CONNECT + "a_path_or_a_unix_stream_socket_is_needed_and_not_both[{}-a TCP socket]"],
    "SpecTakesStale": [UNIX_SERVER + "a_socket_file_that_nobody_listens_on_is_replaced[{}]"],
    "SpecNoRemotePath": ["unix/test_datagrams.py::test_an_endpoint_with_a_remote_path_sends_there[{}]"],
}
HARMLESS = CONNECT + "the_transport_is_an_asyncio_transport[{}]"
