"""Clauses and tests of TLS: handshakes and their failures, data and ends over TLS, and upgrades by start_tls()."""
