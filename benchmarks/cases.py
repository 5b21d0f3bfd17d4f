"""Single operations of an event loop, each a function of a loop, a count and a meter.

A case runs at least `count` operations and returns how many it ran, or a Lateness. Only what runs inside `with meter`
is measured, so that connecting, arming and cleaning up cost nothing. Both ends of every connection live on the loop
under test: what they exchange is the loop's work and nobody else's.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

Loop = asyncio.AbstractEventLoop


class Meter:
    """CPU time inside `with meter`, in nanoseconds: of this thread, and of the whole process."""

    def __init__(self) -> None:
        self.thread = self.process = 0

    def __enter__(self) -> None:
        self.process -= time.process_time_ns()
        self.thread -= time.thread_time_ns()

    def __exit__(self, *_: object) -> None:
        self.thread += time.thread_time_ns()
        self.process += time.process_time_ns()


@dataclass(frozen=True)
class Lateness:
    """How late timers fired, in microseconds; negative is early."""

    samples: list[float]


@dataclass(frozen=True)
class Case:
    """A case, its title in the report, and how many operations one sample runs at least."""

    title: str
    run: Callable[[Loop, int, Meter], int | Lateness]
    count: int
    # What the figure counts: the loop's thread, or all threads where the work needs two.
    clock: str = "thread"
    # There is much to set up, so one sample is one run.
    heavy: bool = False


CASES: dict[str, Case] = {}


def case(title: str, count: int, clock: str = "thread", *, heavy: bool = False) -> Callable:
    """Register a case under the name of its function."""

    def register(run: Callable) -> Callable:
        CASES[run.__name__] = Case(title, run, count, clock, heavy)
        return run

    return register


def nothing() -> None:
    """A callback that costs as little as one can."""


@case("`call_soon`, each callback schedules the next", 20_000)
def call_soon_chain(loop: Loop, count: int, meter: Meter) -> int:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    with meter:
        loop.run_forever()
    return count


@case("`call_soon`, bursts of 1000", 20_000)
def call_soon_burst(loop: Loop, count: int, meter: Meter) -> int:
    return bursts(loop, count, meter, 1000)


@case("`call_soon`, bursts of 100,000", 100_000)
def call_soon_burst_100_000(loop: Loop, count: int, meter: Meter) -> int:
    return bursts(loop, count, meter, 100_000)


def bursts(loop: Loop, count: int, meter: Meter, size: int) -> int:
    """Callbacks that do nothing, `size` of them per turn."""
    number = -(-count // size)

    async def main() -> None:
        call_soon = loop.call_soon
        for _ in range(number):
            for _ in range(size):
                call_soon(nothing)
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return number * size


@case("`sleep(0)`, 1 task", 10_000)
def sleep_0_1_task(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return count


@case("`sleep(0)`, 100 tasks", 20_000)
def sleep_0_100_tasks(loop: Loop, count: int, meter: Meter) -> int:
    each = -(-count // 100)

    async def worker() -> None:
        for _ in range(each):
            await asyncio.sleep(0)

    async def main() -> None:
        tasks = [loop.create_task(worker()) for _ in range(100)]
        with meter:
            for task in tasks:
                await task

    loop.run_until_complete(main())
    return each * 100


@case("future made, set by a callback, awaited", 10_000)
def future_wake(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    with meter:
        loop.run_until_complete(main())
    return count


@case("item through an `asyncio.Queue` to a task that waits", 10_000)
def queue(loop: Loop, count: int, meter: Meter) -> int:
    async def take(items: asyncio.Queue) -> None:
        for _ in range(count):
            await items.get()

    async def main() -> None:
        items: asyncio.Queue = asyncio.Queue(1)
        taker = loop.create_task(take(items))
        with meter:
            for number in range(count):
                await items.put(number)
            await taker

    loop.run_until_complete(main())
    return count


async def child() -> None:
    """A coroutine that ends at once."""


def gathers(loop: Loop, count: int, meter: Meter, size: int) -> int:
    """Coroutines that end at once, `size` of them gathered at a time."""
    groups = -(-count // size)

    async def main() -> None:
        for _ in range(groups):
            await asyncio.gather(*[child() for _ in range(size)])

    with meter:
        loop.run_until_complete(main())
    return groups * size


@case("`gather` of 100, per coroutine", 10_000)
def gather(loop: Loop, count: int, meter: Meter) -> int:
    return gathers(loop, count, meter, 100)


@case("`gather` of 10,000, per coroutine", 10_000)
def gather_10_000(loop: Loop, count: int, meter: Meter) -> int:
    return gathers(loop, count, meter, 10_000)


@case("`TaskGroup` of 100, per task", 10_000)
def task_group(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 100)

    async def main() -> None:
        for _ in range(groups):
            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(child())

    with meter:
        loop.run_until_complete(main())
    return groups * 100


@case("`asyncio.timeout` round a `sleep(0)`", 10_000)
def timeout(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        for _ in range(count):
            async with asyncio.timeout(60):
                await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return count


@case("`call_later` and `cancel`", 10_000)
def call_later_cancel(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            for _ in range(1000):
                loop.call_later(60, nothing).cancel()
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return groups * 1000


@case("1000 due timers run", 10_000)
def due_timers(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            done = loop.create_future()
            for _ in range(999):
                loop.call_later(0.003, nothing)
            loop.call_later(0.004, done.set_result, None)
            time.sleep(0.006)  # noqa: ASYNC251 - all of them fall due while the loop is busy
            with meter:
                await done

    loop.run_until_complete(main())
    return groups * 1000


@case("`call_later` and `cancel` beside a million standing timers", 10_000, heavy=True)
def standing_timers(loop: Loop, count: int, meter: Meter) -> int:
    # Hours apart in no order, as those of connections are.
    for number in range(1_000_000):
        loop.call_later(3600 + number * 0.618034 % 1 * 3600, nothing)
    return call_later_cancel(loop, count, meter)


@case("timer lateness", 50)
def timer_lateness(loop: Loop, count: int, meter: Meter) -> Lateness:
    late = []

    async def main() -> None:
        done = loop.create_future()

        def fired(due: float) -> None:
            late.append((time.monotonic() - due) * 1e6)
            if len(late) == count:
                done.set_result(None)

        for number in range(count):
            # Spread unevenly over 1 to 60 ms, so that hardly two fall due together.
            delay = 0.001 + (number * 0.618034 % 1) * 0.059
            loop.call_later(delay, fired, time.monotonic() + delay)
        with meter:
            await done

    loop.run_until_complete(main())
    return Lateness(late)


@case("thread-safe wake-up of an idle loop and back (both threads)", 4_000, clock="process")
def threadsafe_wake(loop: Loop, count: int, meter: Meter) -> int:
    answered = threading.Semaphore(0)

    def other() -> None:
        with meter_of_process:
            for _ in range(count):
                loop.call_soon_threadsafe(answered.release)
                answered.acquire()
        loop.call_soon_threadsafe(loop.stop)

    meter_of_process = Meter()
    thread = threading.Thread(target=other)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    meter.thread, meter.process = meter_of_process.thread, meter_of_process.process
    return count


@case("`call_soon_threadsafe` from its own thread", 20_000)
def threadsafe_own(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    async def main() -> None:
        for _ in range(groups):
            for _ in range(1000):
                loop.call_soon_threadsafe(nothing)
            await asyncio.sleep(0)

    with meter:
        loop.run_until_complete(main())
    return groups * 1000


@case("`call_soon_threadsafe` from another thread, bursts of 1000 (both threads)", 10_000, clock="process")
def threadsafe_other(loop: Loop, count: int, meter: Meter) -> int:
    groups = -(-count // 1000)

    def other(done: asyncio.Future) -> None:
        for _ in range(999):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(done.set_result, None)

    async def main() -> None:
        for _ in range(groups):
            done = loop.create_future()
            thread = threading.Thread(target=other, args=[done])
            with meter:
                thread.start()
                await done
            thread.join()

    loop.run_until_complete(main())
    return groups * 1000


@case("`run_in_executor`, awaited one by one (both threads)", 2_000, clock="process")
def executor(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        await loop.run_in_executor(None, nothing)
        with meter:
            for _ in range(count):
                await loop.run_in_executor(None, nothing)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    return count


@case("`getaddrinfo` of a number (all threads)", 1_000, clock="process")
def getaddrinfo(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        with meter:
            for _ in range(count):
                await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    return count


@case("`add_reader` and `remove_reader`", 5_000)
def add_remove_reader(loop: Loop, count: int, meter: Meter) -> int:
    async def main(fd: int) -> None:
        with meter:
            for _ in range(count):
                loop.add_reader(fd, nothing)
                loop.remove_reader(fd)

    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        loop.run_until_complete(main(near.fileno()))
    return count
