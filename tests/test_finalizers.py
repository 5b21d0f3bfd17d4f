"""The last reference to an object of the loop's may go at any moment: while an exception is on its way, too.

What the object does then (it warns, closes its socket, asks user code) must neither meet that exception nor lose it.
"""

from __future__ import annotations

import textwrap

import pytest

from tests import support

pytestmark = pytest.mark.timeout(60)

PROGRAM = textwrap.dedent(
    """
    import asyncio, gc, os, socket, sys, warnings
    from tests import support

    kind, hook = sys.argv[1:]
    said, left = [], []
    sys.unraisablehook = lambda unraisable: said.append(type(unraisable.exc_value).__name__)
    if hook == "error":
        warnings.simplefilter("error")
    else:
        warnings.simplefilter("always")

    def show(message, category, filename, lineno, file=None, line=None):
        said.append(str(message).split(" fd")[0])
        if hook == "keep":
            left.append((message, sys.exc_info(), sys._getframe()))
        if hook == "raise":
            raise LookupError("of the hook")
        if hook == "collect":
            gc.collect()
        try:
            int("y")
        except ValueError as error:
            assert error.__context__ is None, error.__context__

    warnings.showwarning = show
    files = []

    def pair():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        files.append(theirs)
        return ours

    async def make(loop):
        if kind == "stream":
            return (await loop.create_connection(asyncio.Protocol, sock=pair()))[0]
        if kind == "read pipe":
            read, write = os.pipe()
            files.append(open(write, "wb", 0))
            return (await loop.connect_read_pipe(asyncio.Protocol, open(read, "rb", 0)))[0]
        if kind == "write pipe":
            read, write = os.pipe()
            files.append(open(read, "rb", 0))
            return (await loop.connect_write_pipe(asyncio.BaseProtocol, open(write, "wb", 0)))[0]
        if kind == "datagram":
            return (await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)))[0]
        if kind == "server":
            return await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        if kind == "operation":
            operation = loop.sock_recv(pair(), 10)
            operation.send(None)
            return operation
        if kind == "handle":
            return loop.call_soon(lambda: None)
        if kind == "timer":
            return loop.call_later(100, lambda: None)
        return loop

    def main():
        loop = support.new_loop()
        held = [loop.run_until_complete(make(loop))]
        if kind != "loop":
            loop.close()
        del loop
        # Cycles go by the collector; what is left goes by its last reference.
        gc.collect()
        said.clear()
        for file in files:
            file.close()
        before = support.fds()
        try:
            # With the last reference on the stack: it goes as the exception passes.
            (held.pop(), int("x"))
        except ValueError as error:
            assert str(error) == "invalid literal for int() with base 10: 'x'", error
            assert error.__context__ is None, error.__context__
        else:
            raise AssertionError("the exception got lost")
        gc.collect()
        for number, file in support.fds().items():
            assert before.get(number) == file, (number, file)
        print(said)
        left.clear()

    main()
    """
)

WARNS = ["stream", "read pipe", "write pipe", "datagram"]
HOOKS = ["show", "keep", "raise", "collect", "error"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", [*WARNS, "server", "operation", "handle", "timer", "loop"])
def test_a_last_reference_that_goes_with_an_exception_leaves_it_as_it_was(kind: str, hook: str) -> None:
    said = support.check(PROGRAM, kind, hook, PYTHONMALLOC="debug")
    if support.OURS and kind in ("stream", "datagram"):
        assert {"raise": "LookupError", "error": "ResourceWarning"}.get(hook, "unclosed transport") in said


MAKES = textwrap.dedent(
    """
    import asyncio, gc, os, socket
    from spec.tls import certificates
    from tests import support

    async def made(loop, address):
        read, write = os.pipe()
        near, far = socket.socketpair()
        near_tls, far_tls = socket.socketpair()
        name = certificates.NAME
        connections = await asyncio.gather(
            loop.create_connection(asyncio.Protocol, *address),
            loop.create_connection(asyncio.Protocol, sock=near),
            loop.connect_accepted_socket(asyncio.Protocol, far),
            loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
            loop.connect_read_pipe(asyncio.Protocol, open(read, "rb", 0)),
            loop.connect_write_pipe(asyncio.BaseProtocol, open(write, "wb", 0)),
            loop.create_connection(asyncio.Protocol, sock=near_tls, ssl=certificates.client(), server_hostname=name),
            loop.connect_accepted_socket(asyncio.Protocol, far_tls, ssl=certificates.server()),
        )
        return [transport for transport, _ in connections]

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        gc.set_threshold(1)
        for _ in range(10):
            for transport in await made(loop, server.sockets[0].getsockname()):
                transport.close()
        assert gc.isenabled()
        server.close()

    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())
    """
)


def test_the_collector_may_run_whenever_an_object_is_made() -> None:
    support.check(MAKES, PYTHONMALLOC="debug")
