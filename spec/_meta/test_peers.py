"""Peers do what they are told, and do not swallow what goes wrong in them."""

from __future__ import annotations

import socket
import time

import pytest

from spec._kit import peers, timing

FAMILIES = [
    socket.AF_INET,
    pytest.param(socket.AF_INET6, marks=pytest.mark.skipif(not peers.has_ipv6(), reason="no IPv6")),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_server_runs_its_handler_per_connection(family):
    def echo(conn):
        conn.sendall(peers.recv_exactly(conn, 3))

    def talk(sock):
        sock.sendall(b"abc")
        return peers.recv_all(sock)

    with (
        peers.serve(echo, family=family) as addr,
        peers.client(addr, talk) as first,
        peers.client(addr, talk) as second,
    ):
        assert first.result() == second.result() == b"abc"


def test_an_exception_of_a_peer_is_raised_on_leaving():
    def fail(_sock):
        raise LookupError

    with pytest.raises(LookupError), peers.serve(fail) as addr, peers.client(addr, lambda sock: None):
        pass
    with pytest.raises(LookupError), peers.serve(lambda conn: None) as addr, peers.client(addr, fail):
        pass
    with pytest.raises(LookupError), peers.thread(fail, None):
        pass


def test_an_exception_of_the_test_ends_peers_that_wait():
    begun = time.monotonic()
    with (
        pytest.raises(LookupError, match="of the test"),
        peers.serve(lambda conn: conn.recv(1)) as addr,
        peers.client(addr, lambda sock: sock.recv(1)),
    ):
        raise LookupError("of the test")
    assert time.monotonic() - begun < peers.TIMEOUT / 2


def test_a_connection_nobody_accepted_yet_is_served_on_leaving():
    served = []
    with peers.serve(served.append) as addr, socket.create_connection(addr):
        pass
    assert len(served) == 1


def test_pairs_are_connected_and_non_blocking_on_our_side():
    for ours, theirs in (peers.pair(), peers.unix_pair()):
        with ours, theirs:
            assert not ours.getblocking() and theirs.gettimeout() == peers.TIMEOUT
            theirs.sendall(b"x")
            ours.settimeout(peers.TIMEOUT)
            assert ours.recv(2) == b"x"
            with pytest.raises(EOFError, match="1 of 3"):
                ours.sendall(b"y")
                ours.shutdown(socket.SHUT_WR)
                peers.recv_exactly(theirs, 3)


def test_a_reset_is_one():
    ours, theirs = peers.pair()
    with ours:
        peers.reset(theirs)
        ours.settimeout(peers.TIMEOUT)
        with pytest.raises(ConnectionResetError):
            ours.recv(1)


def test_ports_listen_or_refuse():
    with pytest.raises(ConnectionRefusedError), peers.client(("127.0.0.1", peers.closed_port()), lambda sock: None):
        pass
    with peers.listener() as listening:
        assert not listening.getblocking()
        with peers.client(listening.getsockname(), lambda sock: "connected") as peer:
            assert peer.result() == "connected"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", peers.free_port()))


def test_a_recorder_keeps_names_with_times(clock):
    recorder = timing.Recorder(clock)
    recorder("a")
    recorder.mark("b")
    assert recorder.names == ["a", "b"] and recorder.times == sorted(recorder.times)
    assert recorder.time_of("a") == recorder.times[0] and len(recorder) == 2
    assert list(recorder) == list(zip(recorder.names, recorder.times, strict=True))
    with pytest.raises(LookupError):
        recorder.time_of("c")
    with pytest.raises(RuntimeError):
        timing.Recorder()("outside of a loop")


@pytest.fixture
def clock():
    """Anything with a clock."""

    class Clock:
        @staticmethod
        def time():
            return time.monotonic()

    return Clock()
