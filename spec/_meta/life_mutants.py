"""Loops with one defect each in look-ups, in what they report, and in how they begin and end."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import selectors
import socket
import threading
from asyncio import events

from spec._meta.patience import Hang


class SpecBlocks(asyncio.SelectorEventLoop):
    """Looks names up in its own thread."""

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class SpecOwnThreads(asyncio.SelectorEventLoop):
    """Looks names up in a thread of its own making, not in the default executor."""

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        future = self.create_future()

        def look_up():
            try:
                found = socket.getaddrinfo(host, port, family, type, proto, flags)
            except Exception as error:
                self.call_soon_threadsafe(self._settle, future.set_exception, error, future)
            else:
                self.call_soon_threadsafe(self._settle, future.set_result, found, future)

        threading.Thread(target=look_up, daemon=True).start()
        return await future

    @staticmethod
    def _settle(method, outcome, future):
        if not future.done():
            method(outcome)


class SpecPlainNumbers(asyncio.SelectorEventLoop):
    """Gives families and types as plain numbers."""

    async def getaddrinfo(self, host, port, **options):
        found = await super().getaddrinfo(host, port, **options)
        return [(int(family), int(kind), *rest) for family, kind, *rest in found]


class SpecNoFlags(asyncio.SelectorEventLoop):
    """Does not hand the flags of a look-up on."""

    async def getaddrinfo(self, host, port, *, flags=0, **options):
        return await super().getaddrinfo(host, port, **options)


class SpecNumbersOnly(asyncio.SelectorEventLoop):
    """Names no services."""

    async def getnameinfo(self, sockaddr, flags=0):
        return await super().getnameinfo(sockaddr, flags | socket.NI_NUMERICSERV)


class SpecHidesReason(asyncio.SelectorEventLoop):
    """Raises OSError where a name is unknown."""

    async def getaddrinfo(self, host, port, **options):
        try:
            return await super().getaddrinfo(host, port, **options)
        except socket.gaierror as error:
            raise OSError(str(error)) from error


class SpecEagerLookup(asyncio.SelectorEventLoop):
    """Looks a name up before that is awaited."""

    def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        found = socket.getaddrinfo(host, port, family, type, proto, flags)
        return asyncio.sleep(0, found)


class SpecStubborn(asyncio.SelectorEventLoop):
    """Does not let a look-up be cancelled before it has its answer."""

    async def getaddrinfo(self, host, port, **options):
        answer = self.create_task(super().getaddrinfo(host, port, **options))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await answer
            raise


class SpecAddressesOnly(asyncio.SelectorEventLoop):
    """Asks for the addresses of a connection without asking its own getaddrinfo()."""

    async def _ensure_resolved(self, address, *, family=0, type=0, proto=0, flags=0, loop):
        call = functools.partial(socket.getaddrinfo, *address[:2], family, type, proto, flags)
        return await self.run_in_executor(None, call)


class SpecRaisesOn(asyncio.SelectorEventLoop):
    """Has the exception of a handler leave the run."""

    def call_exception_handler(self, context):
        if self._exception_handler is None:
            self.default_exception_handler(context)
        else:
            self._exception_handler(self, context)


class SpecForgetsFirst(asyncio.SelectorEventLoop):
    """Does not tell what a handler was called for that failed."""

    def default_exception_handler(self, context):
        context.pop("context", None)
        super().default_exception_handler(context)


class SpecTerse(asyncio.SelectorEventLoop):
    """Logs the message of an error only."""

    def default_exception_handler(self, context):
        kept = {key: value for key, value in context.items() if key in ("message", "exception")}
        super().default_exception_handler(kept)


class SpecAlwaysTraces(asyncio.SelectorEventLoop):
    """Logs whatever exception is being handled."""

    def default_exception_handler(self, context):
        logger = logging.getLogger("asyncio")
        logger.error(context.get("message") or "Unhandled", exc_info=True)  # noqa: LOG014 - that is the defect


class SpecOneHandler(asyncio.SelectorEventLoop):
    """Has one exception handler for all loops of the class."""

    handlers: list[object] = []  # noqa: RUF012 - it is to be shared

    @property
    def _exception_handler(self):
        return self.handlers[-1] if self.handlers else None

    @_exception_handler.setter
    def _exception_handler(self, handler):
        self.handlers.append(handler)


class SpecPlainContext(asyncio.SelectorEventLoop):
    """Calls the handler in whatever context there is."""

    def call_exception_handler(self, context):
        if self._exception_handler is None:
            super().call_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except Exception as error:
            context = {"message": "Unhandled error in exception handler", "exception": error, "context": context}
            self.default_exception_handler(context)


class SpecCopiesError(asyncio.SelectorEventLoop):
    """Raises another exception of the same kind out of run_until_complete()."""

    def run_until_complete(self, future):
        try:
            return super().run_until_complete(future)
        except Exception as error:
            raise type(error)(*error.args) from None


class SpecUnfinished(asyncio.SelectorEventLoop):
    """Reports nothing of generators that fail while they are shut down."""

    async def shutdown_asyncgens(self):
        generators = list(self._asyncgens)
        self._asyncgens.clear()
        await asyncio.gather(*[generator.aclose() for generator in generators], return_exceptions=True)


class SpecFastIsSlow(asyncio.SelectorEventLoop):
    """Takes what is slow from the start of each run."""

    def _run_once(self):
        self.__dict__.setdefault("_slow", self.slow_callback_duration)
        self.slow_callback_duration = self._slow
        super()._run_once()


class SpecAnonymous(asyncio.SelectorEventLoop):
    """Tells nothing of its state."""

    def __repr__(self):
        return f"<{type(self).__name__}>"


class SpecWaitsOnClose(asyncio.SelectorEventLoop):
    """Waits for the default executor when it is closed."""

    def close(self):
        if not self.is_running() and self._default_executor is not None:
            self._default_executor.shutdown(wait=True)
        super().close()


class SpecTellsOnClose(asyncio.SelectorEventLoop):
    """Calls connection_lost() of what is open when it is closed."""

    def close(self):
        if not self.is_running() and not self.is_closed():
            for transport in list(self._transports.values()):
                transport.get_protocol().connection_lost(None)
        super().close()


class SpecForkBlind(asyncio.SelectorEventLoop):
    """Takes itself for running in the child of a fork, too."""

    def _run_once(self):
        if not hasattr(self, "_hooked"):
            self._hooked = True
            os.register_at_fork(after_in_child=lambda: events._set_running_loop(self))
        super()._run_once()


class SpecThreadBound(asyncio.SelectorEventLoop):
    """Can be run and closed by the thread only that made it."""

    def __init__(self):
        super().__init__()
        self._maker = threading.get_ident()

    def _check_thread(self):
        if threading.get_ident() != self._maker:
            raise RuntimeError("the loop is another thread's")

    def run_forever(self):
        self._check_thread()
        super().run_forever()

    def close(self):
        self._check_thread()
        super().close()


class SpecForgetsBetween(asyncio.SelectorEventLoop):
    """Drops what was scheduled between two runs, but for the last."""

    def run_forever(self):
        while len(self._ready) > 1:
            self._ready.popleft()
        super().run_forever()


class SpecLeaksRuns(asyncio.SelectorEventLoop):
    """Keeps a descriptor for each run that was not the first."""

    runs = 0

    def run_forever(self):
        self.runs += 1
        if 20 < self.runs < 60:
            os.dup(0)
        super().run_forever()


class SpecStopsLater(asyncio.SelectorEventLoop):
    """Leaves its callback on a future that was not done when its run was stopped."""

    def run_until_complete(self, future):
        future = asyncio.ensure_future(future, loop=self)
        future.add_done_callback(lambda _: self.stop())
        self.run_forever()
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()


class SpecNoGenerators(asyncio.SelectorEventLoop):
    """Does not know which generators are open."""

    def _asyncgen_firstiter_hook(self, agen):
        pass


class SpecWorksClosed(asyncio.SelectorEventLoop):
    """Lets functions run in an executor when it is closed."""

    def run_in_executor(self, executor, func, *args):
        if not self.is_closed():
            return super().run_in_executor(executor, func, *args)
        future = self.create_future()
        future.set_result(func(*args))
        return future


class SpecCloses(asyncio.SelectorEventLoop):
    """Closes itself though it runs in another thread."""

    def close(self):
        if self.is_running():
            self.call_soon_threadsafe(self.stop)
            return
        super().close()


class SpecQuietlyGone(asyncio.SelectorEventLoop):
    """Goes without a warning where nobody closed it."""

    def __del__(self):
        if not self.is_closed():
            self.close()


class SpecTwoTurns(asyncio.SelectorEventLoop):
    """Runs what callbacks schedule within the turn."""

    def _run_once(self):
        super()._run_once()
        if self._ready and not self._stopping:
            super()._run_once()


class SpecOwnQueue(asyncio.SelectorEventLoop):
    """Shows a copy of its queue."""

    def __init__(self):
        self.queue = None
        super().__init__()

    @property
    def _ready(self):
        return self.queue if self.is_running() or not isinstance(self.queue, list) else self.queue[:]

    @_ready.setter
    def _ready(self, queue):
        if self.queue is None:
            self.queue = queue


class SpecOwnClock(asyncio.SelectorEventLoop):
    """Goes by its own clock, whatever is put in its place."""

    def _run_once(self):
        replaced, cls = self.__dict__.pop("time", None), type(self)
        patched, cls.time = cls.__dict__.get("time"), asyncio.BaseEventLoop.time
        try:
            super()._run_once()
        finally:
            del cls.time
            if patched is not None:
                cls.time = patched
            if replaced is not None:
                self.time = replaced


class _Once(selectors.DefaultSelector):
    """Finds what is ready once, and then when it is ready anew."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def select(self, timeout=None):
        found = super().select(timeout)
        new = [(key, mask) for key, mask in found if key.fd not in self.found]
        self.found = {key.fd for key, _ in found}
        return new


class SpecFindsOnce(asyncio.SelectorEventLoop):
    """Finds what is ready once, be it processed or not."""

    def __init__(self):
        super().__init__(_Once())


class SpecNoHandle(asyncio.SelectorEventLoop):
    """Gives no handle for a watcher."""

    def _add_reader(self, fd, callback, *args):
        super()._add_reader(fd, callback, *args)


class SpecSealed(asyncio.SelectorEventLoop):
    """Has transports that take no attributes."""

    def _make_socket_transport(self, *args, **kwargs):
        made = super()._make_socket_transport(*args, **kwargs)
        made.__class__ = _sealed(type(made))
        return made


def _sealed(cls):
    def refuse(self, name, value):
        if not name.startswith("_"):
            raise AttributeError(name)
        object.__setattr__(self, name, value)

    return type(cls.__name__, (cls,), {"__setattr__": refuse})


LOOKUPS = "dns/test_lookups.py::test_"
ADDRESSES = "dns/test_getaddrinfo.py::test_"
HANDLERS = "errors/test_handlers.py::test_"
DEFAULT = "errors/test_default_handler.py::test_"
CLOSE = "lifecycle/test_close.py::test_"
REUSE = "lifecycle/test_reuse.py::test_"
THREADS = "lifecycle/test_threads.py::test_"
QUEUE = "insides/test_queue.py::test_"
CAUGHT_BY = {
    "SpecBlocks": [Hang(LOOKUPS + "callbacks_and_timers_run_while_a_lookup_waits[{}-getaddrinfo]")],
    "SpecOwnThreads": [LOOKUPS + "names_are_looked_up_in_the_default_executor[{}-getaddrinfo]"],
    "SpecPlainNumbers": [ADDRESSES + "families_and_types_are_enumerations[{}-localhost]"],
    "SpecNoFlags": [ADDRESSES + "a_service_name_where_numbers_are_asked_for_raises_gaierror[{}-localhost]"],
    "SpecNumbersOnly": ["dns/test_getnameinfo.py::test_the_service_is_named_for_its_protocol[{}-tcp-22]"],
    "SpecHidesReason": [ADDRESSES + "an_unknown_name_raises_gaierror[{}]"],
    "SpecEagerLookup": [
        ADDRESSES + "getaddrinfo_returns_a_coroutine_that_does_nothing_before_it_is_awaited[{}]",
    ],
    "SpecStubborn": [
        Hang(LOOKUPS + "a_lookup_that_waits_can_be_cancelled_and_its_late_result_is_dropped[{}-getaddrinfo]")
    ],
    "SpecAddressesOnly": [LOOKUPS + "connections_are_made_where_getaddrinfo_of_the_loop_says[{}]"],
    "SpecRaisesOn": [HANDLERS + "the_log_of_a_failing_handler_has_its_exception_and_the_first_context[{}]"],
    "SpecForgetsFirst": [HANDLERS + "the_log_of_a_failing_handler_has_its_exception_and_the_first_context[{}]"],
    "SpecTerse": [DEFAULT + "the_other_keys_follow_by_name_a_line_each_with_their_repr[{}]"],
    "SpecAlwaysTraces": [DEFAULT + "without_an_exception_there_is_no_traceback[{}-context0]"],
    "SpecOneHandler": [HANDLERS + "each_loop_has_a_handler_of_its_own[{}]"],
    "SpecPlainContext": ["errors/test_futures.py::test_the_handler_runs_in_the_context_of_the_task[{}]"],
    "SpecCopiesError": [HANDLERS + "run_until_complete_raises_the_exception_itself_with_its_traceback[{}]"],
    "SpecUnfinished": [
        "errors/test_futures.py::test_a_generator_that_fails_while_shut_down_is_reported_and_costs_no_other[{}]",
    ],
    "SpecFastIsSlow": ["errors/test_debug.py::test_what_is_slow_may_be_changed_while_the_loop_runs[{}]"],
    "SpecAnonymous": ["errors/test_debug.py::test_the_repr_of_a_loop_tells_its_state[{}]"],
    "SpecWaitsOnClose": [Hang(CLOSE + "close_does_not_wait_for_the_executor[{}]")],
    "SpecTellsOnClose": [CLOSE + "the_protocols_of_open_connections_are_not_called_any_more[{}]"],
    "SpecForkBlind": ["lifecycle/test_fork.py::test_no_loop_runs_in_the_child[{}]"],
    "SpecThreadBound": [
        THREADS + "a_loop_is_closed_in_another_thread_than_it_ran_in[{}]",
        THREADS + "a_loop_is_made_run_and_closed_in_three_threads[{}]",
    ],
    "SpecForgetsBetween": [Hang(REUSE + "a_task_goes_on_in_the_next_run_where_it_was[{}]")],
    "SpecLeaksRuns": [REUSE + "a_thousand_runs_leave_neither_descriptors_nor_threads[{}]"],
    "SpecStopsLater": [REUSE + "a_future_that_outlived_its_run_stops_no_later_one[{}]"],
    "SpecNoGenerators": ["lifecycle/test_runner.py::test_open_asynchronous_generators_are_closed_within_the_loop[{}]"],
    "SpecWorksClosed": [CLOSE + "coroutines_of_a_closed_loop_raise_and_leave_nothing[{}-run_in_executor]"],
    "SpecCloses": [THREADS + "a_loop_that_runs_elsewhere_is_neither_run_nor_closed[{}]"],
    "SpecQuietlyGone": [CLOSE + "the_warning_of_an_unclosed_loop_has_it_as_its_source[{}]"],
    "SpecTwoTurns": [QUEUE + "a_turn_runs_what_is_ready_and_returns[{}]"],
    "SpecOwnQueue": [QUEUE + "a_queue_that_somebody_put_in_its_place_is_the_queue[{}]"],
    "SpecOwnClock": [
        "insides/test_timers.py::test_timers_go_by_a_clock_that_somebody_put_in_the_place_of_the_loops[{}-instance]",
    ],
    "SpecFindsOnce": ["insides/test_selector.py::test_what_was_found_and_not_processed_is_found_again[{}]"],
    "SpecNoHandle": ["insides/test_handles.py::test_a_watcher_by_its_private_name_is_a_handle[{}]"],
    "SpecSealed": ["insides/test_transports.py::test_a_writer_writes_by_the_method_that_its_transport_has[{}]"],
}
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"
