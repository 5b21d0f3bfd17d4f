"""The pytest plugin under its public name, for a project's own tests: `pytest -p loopspec.plugin`.

Or `pytest_plugins = ["loopspec.plugin"]` in the topmost `conftest.py`. It brings `--loop`, the mark `clause` and the
fixtures `loop`, `new_loop`, `loop_factory`, `run`, `tick` and `errors`. A test that uses them runs in a forked process,
on each of the loops.
"""

pytest_plugins = (f"{__package__}._kit.plugin",)
