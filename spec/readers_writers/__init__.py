"""Clauses and tests of `add_reader`, `add_writer` and their removal."""
