//! `LoopCore` as Python sees it: the hot half of `TokioLoop`. Each method is carried out by the module of its part.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::datagram::DatagramTransport;
use super::ffi;
use super::listener::Listener;
use super::sock::{Operation, SockOperation};
use super::stream::StreamTransport;
use crate::core::interest::Dir;
use crate::io::counters::now;
use crate::py::event_loop::handle::{Args, Handle};
use crate::py::event_loop::loop_core::LoopCore;
use crate::py::event_loop::run;
use crate::py::event_loop::stats;
use crate::py::event_loop::timer::{Due, TimerHandle};
use crate::py::event_loop::waiter;
use crate::py::event_loop::watch;
use crate::py::stream::pipe;
use crate::py::transport::base::Parts;

#[pymethods]
impl LoopCore {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(cls: &Bound<'_, PyType>, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Self::create(cls.py())
    }

    /// As `call_soon`, from any thread; wakes the loop.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_soon_threadsafe>
    #[pyo3(signature = (callback, *args, context = None))]
    fn call_soon_threadsafe(
        slf: &Bound<'_, Self>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Self::schedule_threadsafe(slf, callback, Args::new(args), context)
    }

    /// Schedules `callback(*args)` after `delay` seconds, never earlier.
    ///
    /// Returns an `asyncio.TimerHandle`. Raises `TypeError` when `delay` is no number, `RuntimeError` as `call_soon`.
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_later>
    #[pyo3(signature = (delay, callback, *args, context = None))]
    fn call_later(
        slf: &Bound<'_, Self>,
        delay: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<TimerHandle>> {
        let when = Due::after(Self::clock(slf)?.secs(), delay)?;
        Self::schedule_at(slf, "call_later", when, callback, args, context)
    }

    /// Schedules `callback(*args)` for the moment `when`: seconds on the clock of `loop.time()`.
    ///
    /// Returns and raises as `call_later`.
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.call_at>
    #[pyo3(signature = (when, callback, *args, context = None))]
    fn call_at(
        slf: &Bound<'_, Self>,
        when: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<TimerHandle>> {
        Self::schedule_at(slf, "call_at", Due::at(when)?, callback, args, context)
    }

    /// Seconds on the monotonic clock, the one of `time.monotonic()`.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.time>
    #[allow(clippy::unused_self)] // a method of the loop in Python
    fn time(&self) -> f64 {
        now().secs()
    }

    /// A new `asyncio.Future` attached to the loop.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_future>
    pub fn create_future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        waiter::future_of(slf)
    }

    #[getter(_closed)]
    fn closed(&self) -> bool {
        self.is_closed_now()
    }

    #[setter(_closed)]
    fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.is_closed_now()
    }

    #[getter(_debug)]
    fn debug_flag(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug_flag(&self, debug: &Bound<'_, PyAny>) -> PyResult<()> {
        self.debug.store(debug.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    fn get_debug(&self) -> bool {
        self.is_debug()
    }

    /// Whether what transports write in a turn leaves when the turn ends, in one send per transport. Off: it is sent by
    /// `write()`, as with asyncio. May be switched at any moment; the truth of what it is set to counts.
    #[getter]
    fn coalesce_writes(&self, py: Python<'_>) -> bool {
        self.coalesce.is_on(py)
    }

    #[setter]
    fn set_coalesce_writes(slf: &Bound<'_, Self>, on: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().coalesce.switch(slf, on.is_truthy()?)
    }

    /// This thread forks.
    fn _before_fork(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().coalesce.leave_early(slf)
    }

    /// This process is the child of a fork.
    fn _after_fork_in_child(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().coalesce.forget_in_child(slf)
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.is_stopping()
    }

    #[setter(_stopping)]
    fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Relaxed);
    }

    #[getter(_thread_id)]
    fn thread_id(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.thread_id.with(py, |id| id.as_ref().map(|id| id.clone_ref(py)))
    }

    #[setter(_thread_id)]
    fn set_thread_id(&self, py: Python<'_>, id: Option<Py<PyAny>>) {
        self.stats.set_thread(id.as_ref().and_then(|id| id.extract(py).ok()).unwrap_or(0));
        drop(self.thread_id.replace(py, id));
    }

    /// Calls `callback(*args)` whenever `fd` (an fd or file object) is readable: level-triggered.
    ///
    /// Raises `ValueError` for an invalid fd, `RuntimeError` when the loop is closed or a transport has the fd,
    /// `OSError` when it cannot be watched (`PermissionError` for a regular file).
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.add_reader>
    #[pyo3(signature = (fd, callback, *args))]
    fn add_reader(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        watch::add(slf, fd, Dir::Read, callback, args)
    }

    /// Stops watching `fd` for reading; false when it was not watched.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.remove_reader>
    fn remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove(slf, fd, Dir::Read)
    }

    /// As `add_reader`, for writing.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.add_writer>
    #[pyo3(signature = (fd, callback, *args))]
    fn add_writer(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        watch::add(slf, fd, Dir::Write, callback, args)
    }

    /// As `remove_reader`, for writing.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.remove_writer>
    fn remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove(slf, fd, Dir::Write)
    }

    /// As `add_reader`, whoever has the fd; the handle. asyncio's own transports use it.
    #[pyo3(signature = (fd, callback, *args, context = None))]
    fn _add_reader(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        watch::check_context(slf.py(), "_add_reader", context)?;
        watch::add_unchecked(slf, fd, Dir::Read, callback, args, context)
    }

    fn _remove_reader(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove_unchecked(slf, fd, Dir::Read)
    }

    #[pyo3(signature = (fd, callback, *args, context = None))]
    fn _add_writer(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        watch::check_context(slf.py(), "_add_writer", context)?;
        watch::add_unchecked(slf, fd, Dir::Write, callback, args, context)
    }

    fn _remove_writer(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        watch::remove_unchecked(slf, fd, Dir::Write)
    }

    /// The queue of callbacks, lent: see `lent`.
    #[getter(_ready)]
    fn ready<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::lend_queue(slf)
    }

    #[setter(_ready)]
    fn set_ready(&self, py: Python<'_>, queue: Py<PyAny>) {
        self.replace_queue(py, queue);
    }

    /// The timers, lent.
    #[getter(_scheduled)]
    fn scheduled<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::lend_timers(slf)
    }

    #[setter(_scheduled)]
    fn set_scheduled(&self, py: Python<'_>, timers: Py<PyAny>) {
        self.replace_timers(py, timers);
    }

    fn __setattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        ffi::set_attribute(slf, name, Some(value))?;
        slf.get().patches.notice(name);
        Ok(())
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<()> {
        ffi::set_attribute(slf, name, None)?;
        slf.get().patches.notice(name);
        Ok(())
    }

    /// A transport over a connected stream socket: behind the hook `_make_socket_transport`.
    #[pyo3(signature = (sock, protocol, waiter = None, extra = None, server = None, private = false, context = None))]
    #[expect(clippy::too_many_arguments, reason = "as many as the hook has")]
    fn _make_stream(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
        server: Option<&Bound<'_, PyAny>>,
        private: bool,
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<StreamTransport>> {
        StreamTransport::create(slf, Parts { file: sock, protocol, waiter, extra, context }, server, private)
    }

    /// A transport of one end of a pipe: behind the hooks `_make_read_pipe_transport` and `_make_write_pipe_transport`.
    fn _make_pipe(
        slf: &Bound<'_, Self>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
        writes: bool,
        of: (bool, bool),
    ) -> PyResult<Py<StreamTransport>> {
        let (socket, device) = of;
        pipe::make(slf, Parts { file: pipe, protocol, waiter, extra, context: None }, writes, socket, device)
    }

    /// A transport over a datagram socket: the hook of `create_datagram_endpoint`.
    #[pyo3(signature = (sock, protocol, address = None, waiter = None, extra = None))]
    fn _make_datagram_transport(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        address: Option<&Bound<'_, PyAny>>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<DatagramTransport>> {
        DatagramTransport::create(slf, Parts { file: sock, protocol, waiter, extra, context: None }, address)
    }

    /// The next datagram transport's socket is one that `create_datagram_endpoint` made.
    fn _expect_private_datagrams(&self) {
        self.private_datagrams.store(true, Ordering::Relaxed);
    }

    /// Accepts connections on a listening socket: behind the hook `_start_serving`.
    fn _listen(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        backlog: u32,
        server: Option<Py<PyAny>>,
        factory: Py<PyAny>,
        accept_secure: Option<Py<PyAny>>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        Listener::start(slf, sock, backlog, server, factory, accept_secure, context)
    }

    /// Stops accepting on a listening socket: behind the hook `_stop_serving`, which then closes it.
    fn _unlisten(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        Listener::stop(slf, sock)
    }

    /// Receives up to `n` bytes; `b""` once the peer ended its half.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_recv>
    fn sock_recv(slf: &Bound<'_, Self>, sock: Py<PyAny>, n: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::Recv(n))
    }

    /// Receives into `buf`; returns the number of bytes.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_recv_into>
    fn sock_recv_into(slf: &Bound<'_, Self>, sock: Py<PyAny>, buf: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::RecvInto(buf))
    }

    /// Receives a datagram of up to `bufsize` bytes; returns `(data, address)`.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_recvfrom>
    fn sock_recvfrom(slf: &Bound<'_, Self>, sock: Py<PyAny>, bufsize: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::Method("recvfrom", Dir::Read, vec![bufsize]))
    }

    /// Receives a datagram into `buf`, up to `nbytes` (0: its length); returns `(number of bytes, address)`.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_recvfrom_into>
    #[pyo3(signature = (sock, buf, nbytes = None), text_signature = "($self, sock, buf, nbytes=0)")]
    fn sock_recvfrom_into(
        slf: &Bound<'_, Self>,
        sock: Py<PyAny>,
        buf: Py<PyAny>,
        nbytes: Option<Py<PyAny>>,
    ) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::RecvFromInto(buf, nbytes))
    }

    /// Sends all of `data`.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_sendall>
    fn sock_sendall(slf: &Bound<'_, Self>, sock: Py<PyAny>, data: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::SendAll(data))
    }

    /// Sends a datagram to `address`; returns the number of bytes.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_sendto>
    fn sock_sendto(
        slf: &Bound<'_, Self>,
        sock: Py<PyAny>,
        data: Py<PyAny>,
        address: Py<PyAny>,
    ) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::Method("sendto", Dir::Write, vec![data, address]))
    }

    /// Accepts a connection; returns `(conn, address)`, the connection non-blocking.
    ///
    /// Source: <https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_accept>
    fn sock_accept(slf: &Bound<'_, Self>, sock: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::Accept)
    }

    /// Waits until a connecting socket is writable: a part of `sock_connect`.
    fn _sock_connected(slf: &Bound<'_, Self>, sock: Py<PyAny>) -> PyResult<Py<SockOperation>> {
        SockOperation::create(slf, sock, Operation::Connected)
    }

    /// What the loop has done and is at, a dict; from any thread, and without stopping the loop.
    ///
    /// `running`, and in which `thread` (its `ident`). `parked_for` or `busy_for`: seconds that it has been waiting, or
    /// not waiting: an upper bound for the callback that runs now. Counts since the loop was made: `turns`, `callbacks`
    /// begun (I/O events included), `looks` at I/O without waiting, `parks`. Lengths: `ready` queue, `timers` set,
    /// `spare_handles`. `next_deadline`: seconds on the clock of `loop.time()`. `endpoints`: a list of dicts, each with
    /// `fd` and `kind` ("tcp", "unix", "stream" of others, "udp", "pipe", "listener", "watcher"); of a watcher whether
    /// it has a `reader` and a `writer`, of the others `since` (seconds, monotonic clock) and what went through:
    /// `messages_in` (reads, datagrams, accepted connections), `bytes_in`, `messages_out` (sends), `bytes_out`.
    fn stats<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        stats::show(slf)
    }

    /// Runs a turn: the hook that `BaseEventLoop.run_forever` calls. Called by that one, and nobody replaced it, it
    /// runs turns until the loop is to stop.
    fn _run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        run::run(slf)
    }

    /// Wakes the loop from another thread: the hook of `BaseEventLoop`.
    fn _write_to_self(&self, py: Python<'_>) {
        self.wake(py);
    }

    /// Lets go of everything scheduled and registered; the last part of `close()`.
    fn _close_core(slf: &Bound<'_, Self>) {
        Self::let_go(slf);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.traverse(&visit)
    }

    fn __clear__(slf: &Bound<'_, Self>) {
        let py = slf.py();
        drop(slf.get().future_kwargs.take(py));
        drop(slf.get().thread_id.take(py));
        Self::let_go(slf);
    }
}
