"""Clauses and tests of names: getaddrinfo() and getnameinfo()."""
