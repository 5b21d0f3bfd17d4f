"""A certificate for benchmarks over TLS.

    python certificate.py FILE

Writes the key (ECDSA, P-256) and the chain, as PEM, for `server.py --tls FILE`. The authority is forgotten: the client
does not verify.
"""

import argparse
from pathlib import Path

import trustme


def write(path: Path) -> None:
    """A new key and certificate for localhost, in one file that only its owner may read. Raises OSError."""
    path.touch(mode=0o600)
    trustme.CA().issue_cert("localhost", "127.0.0.1", "::1").private_key_and_cert_chain_pem.write_to_path(path)


def main() -> None:
    """Write a certificate."""
    parser = argparse.ArgumentParser(description="Make a certificate for server.py --tls.")
    parser.add_argument("file", type=Path)
    write(parser.parse_args().file)


if __name__ == "__main__":
    main()
