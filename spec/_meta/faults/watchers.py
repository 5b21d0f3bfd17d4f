"""Whole loops that are wrong about descriptors: when a watcher is called, and whose."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import heapq
import os
import select
import selectors

Epoll = getattr(selectors, "EpollSelector", selectors.DefaultSelector)


class _Hopeful(selectors.DefaultSelector):
    """Finds what was registered ready once, whatever the kernel says."""

    def __init__(self):
        super().__init__()
        self._new = set()

    def register(self, fileobj, events, data=None):
        key = super().register(fileobj, events, data)
        self._new.add(key.fd)
        return key

    def select(self, timeout=None):
        new, self._new = self._new, set()
        keys = [key for key in self.get_map().values() if key.fd in new]
        found = super().select(0 if keys else timeout)
        known = {key.fd for key, _ in found}
        return [*found, *((key, key.events) for key in keys if key.fd not in known)]


class SpecAssumesReady(asyncio.SelectorEventLoop):
    """Calls the reader or writer of a descriptor that is new to it at once.

    Stands for drivers that assume readiness until a call would block, as Tokio's does.
    """

    def __init__(self):
        super().__init__(_Hopeful())


class _Lazy(Epoll):
    """Tells the kernel of removals when it waits, and not at all where the number is watched again by then."""

    def __init__(self):
        super().__init__()
        self._gone = {}

    def unregister(self, fileobj):
        key = selectors._BaseSelectorImpl.unregister(self, fileobj)
        self._gone[key.fd] = key.events
        return key

    def register(self, fileobj, events, data=None):
        fd = self._fileobj_lookup(fileobj)
        if self._gone.get(fd) == events:
            del self._gone[fd]
            return selectors._BaseSelectorImpl.register(self, fileobj, events, data)
        self._forget(fd)
        return super().register(fileobj, events, data)

    def select(self, timeout=None):
        for fd in list(self._gone):
            self._forget(fd)
        return super().select(timeout)

    def _forget(self, fd):
        if self._gone.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                self._selector.unregister(fd)


class SpecLazyChanges(asyncio.SelectorEventLoop):
    """Does not notice that another file has the number of one that it watched a moment ago.

    Stands for loops that collect changes until they wait: libuv has uv__platform_invalidate_fd() against it.
    """

    def __init__(self):
        super().__init__(_Lazy())


class SpecGoesByNumber(asyncio.SelectorEventLoop):
    """Calls the old watcher of a number for the new file that has it.

    Stands for loops over poll() or select(), which know numbers and not files.
    """

    def __init__(self):
        super().__init__(selectors.PollSelector())


class _NoHangUp(Epoll):
    """Finds a descriptor writable only by EPOLLOUT."""

    def select(self, timeout=None):
        wait = -1 if timeout is None else max(timeout, 0)
        found = []
        for fd, event in self._selector.poll(wait, max(len(self._fd_to_key), 1)):
            key = self._fd_to_key.get(fd)
            if key is None:
                continue
            mask = selectors.EVENT_WRITE if event & select.EPOLLOUT else 0
            mask |= selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
            if mask & key.events:
                found.append((key, mask & key.events))
        return found


class SpecOverlooksHangUps(asyncio.SelectorEventLoop):
    """Does not call the writer of what has hung up.

    Stands for drivers that take EPOLLHUP and EPOLLERR for readable only.
    """

    def __init__(self):
        super().__init__(_NoHangUp())


class _Keeping(Epoll):
    """Leaves what is not watched any more registered, for no event."""

    def __init__(self):
        super().__init__()
        self._kept = set()

    def unregister(self, fileobj):
        key = selectors._BaseSelectorImpl.unregister(self, fileobj)
        try:
            self._selector.modify(key.fd, 0)
            self._kept.add(key.fd)
        except OSError:
            pass  # closed
        return key

    def register(self, fileobj, events, data=None):
        fd = self._fileobj_lookup(fileobj)
        if fd in self._kept:
            self._kept.discard(fd)
            with contextlib.suppress(OSError):  # closed meanwhile
                self._selector.unregister(fd)
        return super().register(fileobj, events, data)


class SpecKeepsWatching(asyncio.SelectorEventLoop):
    """Wakes for ever because of what has hung up, though nobody watches it any more.

    Stands for loops that set the events of a descriptor to none, which still reports EPOLLHUP.
    """

    def __init__(self):
        super().__init__(_Keeping())


class SpecDropsFailing(asyncio.SelectorEventLoop):
    """Removes a reader that has raised.

    Stands for loops in which the error of a callback ends what called it.
    """

    def add_reader(self, fd, callback, *args):
        @functools.wraps(callback)
        def guarded(*args):
            try:
                callback(*args)
            except Exception:
                self.remove_reader(fd)
                raise

        super().add_reader(fd, guarded, *args)


class SpecTimersWhenQuiet(asyncio.SelectorEventLoop):
    """Looks for due timers only where a poll has found nothing.

    Stands for loops that take the end of a wait for the one moment at which timers are due.
    """

    _put_off = ()

    def _process_events(self, event_list):
        if event_list:
            self._put_off, self._scheduled = self._scheduled, []
        super()._process_events(event_list)

    def _run_once(self):
        try:
            super()._run_once()
        finally:
            self._scheduled.extend(self._put_off)
            self._put_off = ()
            heapq.heapify(self._scheduled)


class SpecForgetsContext(asyncio.SelectorEventLoop):
    """Calls readers in an empty context.

    Stands for loops that copy no context where a watcher is added.
    """

    def add_reader(self, fd, callback, *args):
        contextvars.Context().run(super().add_reader, fd, callback, *args)


class _Conflating(Epoll):
    """Finds what is ready one way ready both ways."""

    def select(self, timeout=None):
        return [(key, key.events) for key, _ in super().select(timeout)]


class SpecConflates(asyncio.SelectorEventLoop):
    """Calls reader and writer of a descriptor whichever way it is ready.

    Stands for loops that keep one callback for each descriptor.
    """

    def __init__(self):
        super().__init__(_Conflating())


class SpecTakesFiles(asyncio.SelectorEventLoop):
    """Takes a regular file to watch, and never calls for it.

    Stands for loops that ignore the EPERM of epoll_ctl().
    """

    def add_reader(self, fd, callback, *args):
        with contextlib.suppress(PermissionError):
            super().add_reader(fd, callback, *args)


class SpecStumblesOverClosed(asyncio.SelectorEventLoop):
    """Raises where the descriptor of a watcher that is to be removed was closed.

    Stands for loops that ask the kernel before they look at what they have themselves.
    """

    def remove_reader(self, fd):
        os.fstat(fd if isinstance(fd, int) else fd.fileno())
        return super().remove_reader(fd)
