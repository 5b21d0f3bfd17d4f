"""The two states of the C library's allocator, in which a loop costs very different times.

asyncio, uvloop (TLS) and others allocate 256 KiB per read and shrink what they got. glibc maps blocks of 128 KiB and
more anew each time: three system calls, and a page fault for each page touched. But once a program has freed such a
block, what is smaller comes from the heap from then on (the threshold is dynamic, mallopt(3): it rises to the size of
the freed block, at most 32 MiB), and the same read costs no system call. So a program that once parsed a large file
serves faster than a fresh one, and every row is measured in both states:

- `fresh`: the process has just started.
- `freed`: one block of 16 MiB has been allocated and freed before serving.

    python allocator.py STATE        prints whether 256 KiB are mapped anew in that state
"""

import ctypes
import os
import signal
import sys

FRESH, FREED = STATES = ("fresh", "freed")
# Below the 32 MiB above which a freed block changes nothing.
LARGE_BLOCK = 16 * 1024 * 1024
READ = 256 * 1024
# What a measured server says once its block is freed.
SAID = b"freed a large block\n"


class _Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def free_large_block() -> None:
    """Allocate a large block and free it. No page of it is touched: it costs what is little even beside one echo."""
    bytes(LARGE_BLOCK)


def maps_reads() -> bool | None:
    """Whether a buffer of 256 KiB is mapped anew in the present state; None where only glibc >= 2.33 could say.

    It frees that buffer whole, which loops that shrink theirs do not: the process is no longer fresh.
    """
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    mallinfo2.restype = _Mallinfo2
    before = mallinfo2().hblks
    block = bytearray(READ)
    after = mallinfo2().hblks
    del block
    return after > before


def free_at_signal() -> None:
    """Have SIGUSR1 free a large block, and stdout tell of it: one server is measured in both states."""

    def handler(*_: object) -> None:
        free_large_block()
        os.write(1, SAID)

    signal.signal(signal.SIGUSR1, handler)


def main() -> None:
    """Show a state."""
    (state,) = sys.argv[1:]
    if state == FREED:
        free_large_block()
    print({True: "mapped anew", False: "taken from the heap", None: "not known"}[maps_reads()])


if __name__ == "__main__":
    main()
