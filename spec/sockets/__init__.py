"""Clauses and tests of the `sock_*` operations."""
