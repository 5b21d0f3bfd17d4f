"""Clauses and tests of datagrams: create_datagram_endpoint(), its transports and protocols."""
