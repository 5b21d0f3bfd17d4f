"""How a loop is made, run, shared between threads and processes, and ended."""
