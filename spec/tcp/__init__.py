"""Clauses and tests of TCP: transports, protocols, servers and connections."""
