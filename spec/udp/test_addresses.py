"""Addresses of sendto() that are no address: the special hosts of the socket module."""

from __future__ import annotations

import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import aside
from .recording import LOCALHOST, endpoint

NOBODY = 9
"""The port of the discard protocol: what is refused beforehand is sent to nobody."""


@clause("udp.send.special-hosts")
@pytest.mark.parametrize("host", ["<broadcast>", "255.255.255.255"])
def test_the_broadcast_host_is_the_broadcast_address(loop, run, host):
    """It is not allowed here, which the kernel says before it sends anything."""

    async def main():
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(b"to all", (host, NOBODY))
            await protocol.called("error_received")
            return protocol.failures

    (failure,) = run(main())
    assert isinstance(failure, PermissionError)


@clause("udp.send.special-hosts")
def test_the_empty_host_is_this_machine(loop, run):
    async def main(far):
        async with endpoint(loop, local_addr=(LOCALHOST, 0)) as protocol:
            protocol.transport.sendto(b"to me", ("", far.getsockname()[1]))
            return await aside(far.recv, 100)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("", 0))
        far.settimeout(peers.TIMEOUT)
        assert run(main(far)) == b"to me"
