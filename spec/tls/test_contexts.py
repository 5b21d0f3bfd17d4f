"""The user's SSLContext is the one that is used: what it verifies, whom it calls, and what is made of it."""

from __future__ import annotations

import socket
import ssl
import sys

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside
from ..tcp.serving import LOCALHOST, Echo
from . import certificates, peer
from .certificates import NAME, V1_2
from .helpers import ask, connect, dial, serving

SIDES = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
VERSIONS = pytest.mark.parametrize("version", certificates.VERSIONS.values(), ids=certificates.VERSIONS)


def serve_once(loop, run, context, client_context, factory=Echo, **options):
    """Let a blocking client exchange a ping with a server of the loop; the client's SSLSocket, closed."""

    def talk(addr):
        with peer.wrap(dial(addr), client_context, **options) as tls:
            tls.sendall(b"ping")
            assert peers.recv_exactly(tls, 4) == b"ping"
            facts = (tls.getpeercert(), tls.selected_alpn_protocol(), tls.session, tls.session_reused)
            peer.part(tls)
            return facts

    async def main():
        async with serving(loop, factory, ssl=context) as addr:
            return await aside(talk, addr)

    return run(main())


def connect_once(loop, run, context, server_context, handler=peer.echo, **options):
    """Let a client of the loop exchange a ping with a blocking server; what get_extra_info("ssl_object") was."""

    async def main(addr):
        protocol = Recorder(loop)
        transport = await connect(loop, addr, protocol, ssl=context, **options)
        assert await ask(transport, protocol) == (b"ping", None)
        return transport.get_extra_info("ssl_object")

    with peer.serve(server_context, handler) as addr:
        return run(main(addr))


def names_of(certificate):
    return [value for kind, value in certificate["subjectAltName"] if kind == "DNS"]


class SeenEcho(Echo):
    """An echo that keeps its SSL object."""

    seen: list

    def connection_made(self, transport):
        super().connection_made(transport)
        self.seen.append(transport.get_extra_info("ssl_object"))


def seeing():
    """A protocol class, and the list of the SSL objects of its connections."""
    seen = []
    return type("Seeing", (SeenEcho,), {"seen": seen}), seen


@clause("tls.context.true")
def test_ssl_true_is_the_default_context(loop, run, monkeypatch, tmp_path):
    """It trusts what the system trusts; OpenSSL has a variable for that."""
    authorities = tmp_path / "authorities.pem"
    certificates.AUTHORITY.cert_pem.write_to_path(str(authorities))

    async def main(addr):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, addr, Recorder(loop), ssl=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
        protocol = Recorder(loop)
        transport = await connect(loop, addr, protocol, ssl=True)
        context = transport.get_extra_info("sslcontext")
        assert await ask(transport, protocol) == (b"ping", None)
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, addr, Recorder(loop), ssl=True, server_hostname="other.example")
        return context

    def talk(conn):
        try:
            tls = peer.wrap(conn, certificates.server(), server_side=True, suppress_ragged_eofs=False)
        except OSError:
            return
        with tls:
            peer.echo(tls)

    with peers.serve(talk) as addr:
        context = run(main(addr))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@clause("tls.context.server-needs-one")
@pytest.mark.parametrize("method", ["create_server", "connect_accepted_socket"])
def test_a_server_without_a_context_of_its_own_is_an_error(loop, run, method, saw):
    async def main():
        ours, theirs = peers.pair()
        with ours, theirs:
            if method == "create_server":
                with pytest.raises(TypeError):
                    await loop.create_server(Echo, LOCALHOST, 0, ssl=True)
            else:
                with pytest.raises((TypeError, ValueError), match="SSLContext") as caught:
                    await loop.connect_accepted_socket(Echo, ours, ssl=True)
                value = isinstance(caught.value, ValueError)
                saw("tls.context.server-needs-one", f"{'ValueError' if value else 'TypeError'} of the latter")

    run(main())


@clause("tls.hostname.of-the-host")
def test_the_host_is_the_name_that_is_verified(loop, run):
    context = certificates.server()
    names = []
    context.sni_callback = lambda tls, name, context: names.append(name)

    async def main(addr):
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, NAME, addr[1], ssl=certificates.client(), family=socket.AF_INET
        )
        return await ask(transport, protocol)

    with peer.serve(context, peer.echo) as addr:
        assert run(main(addr)) == (b"ping", None)
    assert names == [NAME]


@clause("tls.hostname.overrides")
def test_server_hostname_takes_the_place_of_the_host(loop, run):
    async def main(addr):
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            NAME,
            addr[1],
            ssl=certificates.client(),
            family=socket.AF_INET,
            server_hostname="other.example",
        )
        return await ask(transport, protocol)

    with peer.serve(certificates.server("other name"), peer.echo) as addr:
        assert run(main(addr)) == (b"ping", None)


@clause("tls.hostname.empty")
def test_an_empty_server_hostname_matches_any_certificate_of_a_known_authority(loop, run):
    context = certificates.client()
    context.check_hostname = False
    tls = connect_once(loop, run, context, certificates.server("other name"), server_hostname="")
    assert names_of(tls.getpeercert()) == ["other.example"]

    async def main(addr):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, addr, Recorder(loop), ssl=context, server_hostname="")

    with peer.serve_refused(certificates.server("stranger")) as (addr, _):
        run(main(addr))


@clause("tls.hostname.needs-ssl")
def test_server_hostname_without_ssl_raises_value_error(loop, run, tmp_path):
    async def main():
        ours, theirs = peers.pair()
        with ours, theirs:
            for made in (
                loop.create_connection(Echo, LOCALHOST, 1, server_hostname=NAME),
                loop.create_connection(Echo, sock=ours, server_hostname=NAME),
                loop.create_connection(Echo, LOCALHOST, 1, server_hostname="", ssl=None),
                loop.create_unix_connection(Echo, str(tmp_path / "s"), server_hostname=NAME),
            ):
                with pytest.raises(ValueError, match="server_hostname is only meaningful with ssl"):
                    await made

    run(main())


@clause("tls.hostname.required")
def test_without_a_host_server_hostname_is_required(loop, run, tmp_path):
    context = certificates.client()

    async def main():
        ours, theirs = peers.pair()
        with ours, theirs:
            with pytest.raises(ValueError, match="server_hostname"):
                await loop.create_connection(Echo, sock=ours, ssl=context)
            with pytest.raises(ValueError, match="server_hostname"):
                await loop.create_connection(Echo, "", 1, ssl=context)
        ours, theirs = peers.unix_pair()
        with ours, theirs:
            with pytest.raises(ValueError, match="server_hostname"):
                await loop.create_unix_connection(Echo, str(tmp_path / "s"), ssl=context)
            with pytest.raises(ValueError, match="server_hostname"):
                await loop.create_unix_connection(Echo, sock=ours, ssl=context)

    run(main())


@clause("tls.sni.name")
def test_the_callback_of_a_server_gets_the_name_that_the_client_asks_for(loop, run):
    context = certificates.server()
    calls = []
    context.sni_callback = lambda tls, name, given: calls.append((isinstance(tls, ssl.SSLObject), name, given))
    factory, seen = seeing()
    serve_once(loop, run, context, certificates.client(), factory)
    serve_once(loop, run, context, certificates.client(verify=False), factory, name=None)
    assert calls == [(True, NAME, context), (True, None, context)]
    assert len(seen) == 2


@clause("tls.sni.swap")
@VERSIONS
def test_the_callback_of_a_server_may_put_another_context_in_place(loop, run, version):
    other = certificates.server("other name")
    context = certificates.server(version=version)

    def choose(tls, name, _context):
        if name == "other.example":
            tls.context = other

    context.sni_callback = choose
    factory, seen = seeing()
    first, *_ = serve_once(loop, run, context, certificates.client(), factory)
    second, *_ = serve_once(loop, run, context, certificates.client(), factory, name="other.example")
    assert [names_of(first), names_of(second)] == [[NAME], ["other.example"]]
    assert [tls.context for tls in seen] == [context, other]


@clause("tls.sni.refuses")
@pytest.mark.parametrize("how", ["returns", "raises"])
def test_a_callback_that_refuses_a_name_fails_the_handshake_and_the_server_goes_on(loop, run, monkeypatch, how):
    context = certificates.server()
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    made = []

    def choose(_tls, name, _context):
        if name != NAME:
            if how == "raises":
                raise LookupError(name)
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        return None

    def factory():
        made.append(Recorder(loop))
        return made[-1]

    context.sni_callback = choose

    def talk(addr):
        refused = peer.refusal(dial(addr), certificates.client(), name="unknown.example")
        with peer.wrap(dial(addr), certificates.client()) as tls:
            tls.sendall(b"ping")
            peer.part(tls)
        return refused

    async def main():
        async with serving(loop, factory, ssl=context) as addr:
            return await aside(talk, addr)

    assert isinstance(run(main()), OSError)
    assert [bytes(protocol.data) for protocol in made] == [b"", b"ping"]
    assert made[0].calls == []
    assert [entry.exc_type for entry in unraisable] == ([LookupError] if how == "raises" else [])


@clause("tls.alpn.selected")
@VERSIONS
@SIDES
def test_both_sides_know_the_protocol_that_alpn_selects(loop, run, version, server_side):
    theirs, ours = ["h3", "h2", "http/1.1"], ["h2", "http/1.1"]
    client, server = (theirs, ours) if server_side else (ours, theirs)
    client_context = certificates.client(version=version, alpn=client)
    server_context = certificates.server(alpn=server)
    selected = []

    def handler(tls):
        selected.append(tls.selected_alpn_protocol())
        peer.echo(tls)

    if server_side:
        factory, seen = seeing()
        selected.append(serve_once(loop, run, server_context, client_context, factory)[1])
        (tls,) = seen
    else:
        tls = connect_once(loop, run, client_context, server_context, handler)
    assert tls.selected_alpn_protocol() == "h2"
    assert selected == ["h2"]


@clause("tls.alpn.no-overlap")
@SIDES
def test_a_connection_without_a_common_protocol_is_made_with_none_selected(loop, run, server_side):
    client_context, server_context = certificates.client(alpn=["h2"]), certificates.server(alpn=["http/1.1"])
    if server_side:
        factory, seen = seeing()
        assert serve_once(loop, run, server_context, client_context, factory)[1] is None
        (tls,) = seen
    else:
        tls = connect_once(loop, run, client_context, server_context)
    assert tls.selected_alpn_protocol() is None


@clause("tls.client-certificate.accepted")
@VERSIONS
@SIDES
def test_a_client_shows_its_certificate_to_a_server_that_asks(loop, run, version, server_side):
    client_context = certificates.client("client", version=version)
    server_context = certificates.server(clients=ssl.CERT_REQUIRED)
    shown = []

    def handler(tls):
        shown.append(tls.getpeercert())
        peer.echo(tls)

    if server_side:
        factory, seen = seeing()
        serve_once(loop, run, server_context, client_context, factory)
        shown.append(seen[0].getpeercert())
    else:
        connect_once(loop, run, client_context, server_context, handler)
    (certificate,) = shown
    assert ("email", "someone@client.example") in certificate["subjectAltName"]


@clause("tls.client-certificate.optional")
@pytest.mark.parametrize("certificate", [None, "client"])
def test_a_server_that_merely_asks_for_a_certificate_serves_clients_without(loop, run, certificate):
    factory, seen = seeing()
    serve_once(loop, run, certificates.server(clients=ssl.CERT_OPTIONAL), certificates.client(certificate), factory)
    assert bool(seen[0].getpeercert()) == (certificate is not None)


@clause("tls.session.server")
@VERSIONS
def test_a_server_resumes_the_session_that_a_client_brings_back(loop, run, version):
    context = certificates.server()
    client_context = certificates.client(version=version)
    factory, seen = seeing()
    *_, session, reused = serve_once(loop, run, context, client_context, factory)
    assert not reused
    *_, reused = serve_once(loop, run, context, client_context, factory, session=session)
    assert reused
    assert [tls.session_reused for tls in seen] == [False, True]


class Resuming(ssl.SSLContext):
    """A context that gives every connection the session of the last one: nothing in asyncio takes a session."""

    resumed = None

    def wrap_bio(self, *args, **kwargs):
        kwargs["session"] = self.resumed
        return super().wrap_bio(*args, **kwargs)


@clause("tls.session.client", "tls.context.wrap-bio")
@VERSIONS
def test_a_client_resumes_the_session_that_its_context_brings_back(loop, run, version):
    context = certificates.client(version=version, kind=Resuming)
    server_context = certificates.server()
    first = connect_once(loop, run, context, server_context)
    context.resumed = first.session
    second = connect_once(loop, run, context, server_context)
    assert [first.session_reused, second.session_reused] == [False, True]


@clause("tls.context.wrap-bio")
@SIDES
def test_wrap_bio_of_a_subclass_makes_the_object_that_the_connection_uses(loop, run, server_side):
    class Noting(ssl.SSLContext):
        made = ()

        def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None, session=None):
            tls = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
            self.made = (*self.made, (tls, server_side, server_hostname))
            return tls

    if server_side:
        context = certificates.server(kind=Noting)
        factory, seen = seeing()
        serve_once(loop, run, context, certificates.client(), factory)
        assert context.made == ((seen[0], True, None),)
    else:
        context = certificates.client(kind=Noting)
        tls = connect_once(loop, run, context, certificates.server())
        assert context.made == ((tls, False, NAME),)


@clause("tls.context.sslobject-class")
@SIDES
@pytest.mark.parametrize("of", ["instance", "class"])
def test_a_class_for_ssl_objects_is_used_with_all_its_methods(loop, run, server_side, of):
    calls = set()

    class Noting(ssl.SSLObject):
        def do_handshake(self):
            calls.add("do_handshake")
            return super().do_handshake()

        def read(self, *args):
            calls.add("read")
            return super().read(*args)

        def write(self, data):
            calls.add("write")
            return super().write(data)

        def unwrap(self):
            calls.add("unwrap")
            return super().unwrap()

    kind = type("Context", (ssl.SSLContext,), {"sslobject_class": Noting} if of == "class" else {})
    context = certificates.server(kind=kind) if server_side else certificates.client(kind=kind)
    if of == "instance":
        context.sslobject_class = Noting
    if server_side:
        factory, seen = seeing()
        serve_once(loop, run, context, certificates.client(), factory)
        (tls,) = seen
    else:
        tls = connect_once(loop, run, context, certificates.server())
    assert type(tls) is Noting
    assert calls == {"do_handshake", "read", "write", "unwrap"}


@clause("tls.context.keylog")
@SIDES
def test_secrets_are_written_to_the_context_s_key_log(loop, run, tmp_path, server_side):
    path = tmp_path / "keys"
    context = certificates.server() if server_side else certificates.client()
    context.keylog_filename = str(path)
    if server_side:
        serve_once(loop, run, context, certificates.client())
    else:
        connect_once(loop, run, context, certificates.server())
    words = {line.split()[0] for line in path.read_text().splitlines() if not line.startswith("#")}
    assert {"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"} <= words


@clause("tls.context.psk")
@SIDES
def test_pre_shared_keys_take_the_place_of_certificates(loop, run, server_side):
    asked = []
    client_context = certificates.client(version=V1_2, verify=False, ciphers="PSK")
    client_context.set_psk_client_callback(lambda hint: asked.append(hint) or ("someone", b"key"))
    server_context = certificates.server(None, version=V1_2, ciphers="PSK")
    server_context.set_psk_server_callback(lambda name: asked.append(name) or b"key", "hint")
    if server_side:
        serve_once(loop, run, server_context, client_context)
    else:
        connect_once(loop, run, client_context, server_context)
    assert asked == ["hint", "someone"]


@clause("tls.context.psk")
@SIDES
def test_a_wrong_pre_shared_key_fails_the_handshake(loop, run, server_side):
    client_context = certificates.client(version=V1_2, verify=False, ciphers="PSK")
    client_context.set_psk_client_callback(lambda hint: ("someone", b"right"))
    server_context = certificates.server(None, version=V1_2, ciphers="PSK")
    server_context.set_psk_server_callback(lambda name: b"wrong", "hint")

    async def main(addr):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await connect(loop, addr, Recorder(loop), ssl=client_context)

    async def serve():
        async with serving(loop, lambda: Recorder(loop), ssl=server_context) as addr:
            await aside(lambda: peer.refusal(dial(addr), client_context))

    if server_side:
        run(serve())
    else:
        with peer.serve_refused(server_context) as (addr, _):
            run(main(addr))


@clause("tls.context.shared")
def test_one_context_serves_any_number_of_connections_and_may_be_changed_between_them(loop, run):
    context = certificates.server(alpn=["h2"])
    factory, seen = seeing()
    client_context = certificates.client(alpn=["h2", "http/1.1"])
    serve_once(loop, run, context, client_context, factory)
    context.set_alpn_protocols(["http/1.1"])
    context.maximum_version = V1_2
    serve_once(loop, run, context, client_context, factory)
    assert [(tls.selected_alpn_protocol(), tls.version()) for tls in seen] == [
        ("h2", "TLSv1.3"),
        ("http/1.1", "TLSv1.2"),
    ]
