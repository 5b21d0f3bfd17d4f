"""Whole loops that are wrong about TLS."""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl

from spec._meta.parts import WRAPPED, Tls, WithTls


class SpecDropsLastRecords(WithTls):
    """Drops the data that comes in one segment with close_notify.

    Stands for loops that take the end, which the engine tells of, for the result of the whole read.
    """

    class protocol(Tls):  # noqa: N801
        def _do_read__copied(self):
            data = []
            with contextlib.suppress(ssl.SSLWantReadError):
                while chunk := self._sslobj.read(self.max_size):
                    data.append(chunk)
                self._call_eof_received()
                self._start_shutdown()
                return
            if data:
                self._app_protocol.data_received(b"".join(data))


class SpecIgnoresCloseNotify(WithTls):
    """Neither tells of close_notify nor answers it, and waits for the end of the connection.

    Stands for loops that look for data only in what the engine returns.
    """

    class protocol(Tls):  # noqa: N801
        def _do_read__copied(self):
            with contextlib.suppress(ssl.SSLWantReadError):
                while chunk := self._sslobj.read(self.max_size):
                    self._app_protocol.data_received(chunk)


class SpecShakesHandsAlone(WithTls):
    """Does nothing else while it is in a handshake as the server.

    Stands for loops that hand a blocking socket to the engine until that is connected.
    """

    class protocol(Tls):  # noqa: N801
        def _do_handshake(self):
            sock = getattr(self._transport, "_sock", None)
            while self._server_side and sock is not None:
                try:
                    self._sslobj.do_handshake()
                except ssl.SSLWantReadError:
                    self._process_outgoing()
                    select.select([sock], [], [])
                    data = sock.recv(65536)
                    if not data:
                        break
                    self._incoming.write(data)
                except ssl.SSLError:
                    break
                else:
                    self._process_outgoing()
                    break
            super()._do_handshake()


class SpecTrustsAnybody(asyncio.SelectorEventLoop):
    """Verifies nothing where it makes the context itself.

    Stands for loops that make SSLContext(PROTOCOL_TLS) of ssl=True.
    """

    async def create_connection(self, *args, ssl=None, **options):
        if ssl is True:
            ssl = _unverified()
        return await super().create_connection(*args, ssl=ssl, **options)


def _unverified():
    return ssl._create_unverified_context()


class SpecTakesCutForError(WithTls):
    """Takes a stream that ends without close_notify for a failure that its program is to be told of.

    Stands for loops that report every error of the engine.
    """

    class protocol(Tls):  # noqa: N801
        def eof_received(self):
            if self._state is WRAPPED:
                self._loop.call_exception_handler({"message": "unexpected EOF", "transport": self._transport})
            return super().eof_received()
