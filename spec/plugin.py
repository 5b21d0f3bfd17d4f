"""The pytest plugin under its public name, for a project's own tests: `pytest_plugins = ["loopspec.plugin"]` in the
topmost `conftest.py`, or `pytest -p loopspec.plugin`, which other plugins' fixtures of the same names come before.

It brings `--loop`, the mark `clause` and the fixtures `loop`, `new_loop`, `loop_factory`, `run`, `tick`, `errors`,
`saw` and `dice`. A test that uses a loop runs in a forked process, on each of the loops.
"""

pytest_plugins = (f"{__package__}._kit.plugin",)
