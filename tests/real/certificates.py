"""An authority of the test session's own, and a server's and a client's certificate by it, as files for programs."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "one.example", "two.example")
"""Whom the server's certificate is for."""
OWNER = "someone@client.example"
"""Whom the client's certificate is for."""


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate; the server's and the client's, each with its key in a file of its own."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Certificates:
        """New ones in `folder`."""
        authority, found = trustme.CA(), cls(folder)
        authority.cert_pem.write_to_path(found.authority)
        for name, issued in (("server", authority.issue_cert(*NAMES)), ("client", authority.issue_cert(OWNER))):
            issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
            (folder / f"{name}.key").touch(mode=0o600)
            issued.private_key_pem.write_to_path(folder / f"{name}.key")
        return found

    @property
    def authority(self) -> str:
        return str(self.folder / "authority.pem")

    @property
    def cert(self) -> str:
        return str(self.folder / "server.pem")

    @property
    def key(self) -> str:
        return str(self.folder / "server.key")

    @property
    def client_cert(self) -> str:
        return str(self.folder / "client.pem")

    @property
    def client_key(self) -> str:
        return str(self.folder / "client.key")

    def server(self) -> ssl.SSLContext:
        """A server's context."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        """A context that trusts this authority alone."""
        return ssl.create_default_context(cafile=self.authority)

    def copied(self, folder: Path, user: str | None) -> Certificates:
        """Copies for a server that must own its key."""
        for file in self.folder.iterdir():
            shutil.copy(file, folder)
            if user is not None:
                shutil.chown(folder / file.name, user)
        return Certificates(folder)
