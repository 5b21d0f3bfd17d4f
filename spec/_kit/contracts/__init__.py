"""Contracts: what any transport of a kind must do, written once and run over many makers.

A contract is a list of rules. A rule is a test that never opens its own connection: it asks the fixture `stream` for
one, and `stream` asks the area's maker. An area plugs in with one line in a test module:

    TestClient = stream.contract("tcp", ClientMaker())

and each rule becomes a test of that class, bound to the clause `<area>.<rule>` of the area's clauses.toml. The idea is
trio's `trio/testing/_check_streams.py`: one checker serves every kind of stream.
"""

import pytest

# The rules are no test modules, so pytest would not rewrite their asserts unless told before they are imported.
pytest.register_assert_rewrite(f"{__name__}.rules", f"{__name__}.recording")
