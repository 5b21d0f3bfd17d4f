"""Certificates and contexts for tests of TLS.

Two authorities, one that every context of `client()` trusts and a stranger that none does, and a certificate for each
thing that may be wrong with one. They are made when this module is imported, once for all tests: tests run in forks.
Contexts are made by each test, which may then change them; this takes some 4 ms. None reads the system's certificates.
"""

from __future__ import annotations

import datetime as dt
import ssl

import trustme

NAME = "localhost"
"""The host name that the good certificate is for."""

AUTHORITY = trustme.CA(organization_name="trusted")
STRANGER = trustme.CA(organization_name="stranger")

_PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)

CERTIFICATES = {
    "good": AUTHORITY.issue_cert(NAME),
    "other name": AUTHORITY.issue_cert("other.example"),
    "expired": AUTHORITY.issue_cert(NAME, not_before=_PAST, not_after=_PAST + dt.timedelta(days=30)),
    "stranger": STRANGER.issue_cert(NAME),
    "client": AUTHORITY.issue_cert("someone@client.example"),
    "strange client": STRANGER.issue_cert("someone@client.example"),
}

V1_2 = ssl.TLSVersion.TLSv1_2
V1_3 = ssl.TLSVersion.TLSv1_3
VERSIONS = {"TLSv1.2": V1_2, "TLSv1.3": V1_3}
"""The versions of TLS that are tested, by what `SSLObject.version()` calls them."""


def server(
    certificate: str | None = "good",
    *,
    version: ssl.TLSVersion | None = None,
    clients: ssl.VerifyMode = ssl.CERT_NONE,
    alpn: list[str] | None = None,
    ciphers: str | None = None,
    kind: type[ssl.SSLContext] = ssl.SSLContext,
) -> ssl.SSLContext:
    """A server's context with one of `CERTIFICATES`; `clients` says what it asks of its clients' certificates."""
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    if clients != ssl.CERT_NONE:
        AUTHORITY.configure_trust(context)
        context.verify_mode = clients
    return _adjust(context, certificate, version, alpn, ciphers)


def client(
    certificate: str | None = None,
    *,
    version: ssl.TLSVersion | None = None,
    verify: bool = True,
    alpn: list[str] | None = None,
    ciphers: str | None = None,
    kind: type[ssl.SSLContext] = ssl.SSLContext,
) -> ssl.SSLContext:
    """A client's context that trusts `AUTHORITY`, or whoever comes where `verify` is false."""
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _adjust(context, certificate, version, alpn, ciphers)


def _adjust(
    context: ssl.SSLContext,
    certificate: str | None,
    version: ssl.TLSVersion | None,
    alpn: list[str] | None,
    ciphers: str | None,
) -> ssl.SSLContext:
    if certificate is not None:
        CERTIFICATES[certificate].configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context
