"""Programs for `tests/test_real_programs.py`: ordinary asyncio programs that know nothing of the loop they run on."""
