"""Executors and threads: `run_in_executor`, `to_thread`, `run_coroutine_threadsafe`, `wrap_future`."""
