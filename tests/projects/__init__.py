"""The asyncio tests of other projects, with the event loop swapped in.

`make test-projects` runs the tests that a project's source distribution carries on stock asyncio and on our loop and
compares them test by test. `projects.toml` says which projects, and what each needs. Nothing of theirs is kept in this
repository: sources and environments are made under `target/projects`.
"""
