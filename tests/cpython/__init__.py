"""CPython's own functional asyncio tests, with the event loop swapped in.

`python -m tests.cpython --loop tokioloop` runs the interpreter's `test.test_asyncio` on stock asyncio and on a loop,
and compares them test by test. What may differ on the loop stands in `spec/deviations/<loop>.toml`, with its reason.
"""
