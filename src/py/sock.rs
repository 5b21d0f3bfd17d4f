//! `sock_*`: one awaitable class for all operations.
//!
//! A [`SockOperation`] is a coroutine by its methods (`send`, `throw`, `close`, `__await__`;
//! `collections.abc.Coroutine` knows it by them), so `create_task` takes it. Like a coroutine it does nothing, checks
//! nothing and raises nothing until it is awaited. The system call is made when the awaiting task runs; readiness only
//! wakes the task (`core::sockop`).
//!
//! A socket that had to wait once stays registered, edge-triggered, in the loop's epoll. `core::owners` knows, by a
//! weak reference, which socket object an fd's registration belongs to.

mod plain;

use std::io;

use pyo3::exceptions::{
    PyBlockingIOError, PyGeneratorExit, PyInterruptedError, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyMemoryView, PySlice, PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::cell::GilCell;
use super::errors::io_error;
use super::ffi::{self, Lent};
use crate::core::drive::interest::{self, Waiting};
use crate::core::drive::sockop::{self as drive, Attempt, Host, Outcome};
use crate::core::interest::{Dir, WaitKey};
use crate::core::owners::Owner;
use crate::core::sockop::{Misuse, SockOp};
use crate::io::endpoint;
use crate::io::sys::{self, BorrowedRawFd, RawBuf};
use crate::py::event_loop::loop_core::{LoopCore, SCRATCH, Watcher};
use crate::py::event_loop::waiter;
use crate::py::event_loop::watch;
use plain::is_plain;

/// What is done, with its arguments.
#[derive(Debug)]
pub enum Operation {
    Recv(Py<PyAny>),
    RecvInto(Py<PyAny>),
    RecvFromInto(Py<PyAny>, Option<Py<PyAny>>),
    SendAll(Py<PyAny>),
    Accept,
    Connected,
    /// A method of the socket object that takes these arguments.
    Method(&'static str, Dir, Vec<Py<PyAny>>),
}

impl Operation {
    fn dir(&self) -> Dir {
        match self {
            Self::SendAll(_) | Self::Connected => Dir::Write,
            Self::Method(_, dir, _) => *dir,
            Self::Recv(_) | Self::RecvInto(_) | Self::RecvFromInto(..) | Self::Accept => Dir::Read,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Recv(_) => "sock_recv",
            Self::RecvInto(_) => "sock_recv_into",
            Self::RecvFromInto(..) => "sock_recvfrom_into",
            Self::SendAll(_) => "sock_sendall",
            Self::Accept => "sock_accept",
            Self::Connected => "sock_connect",
            Self::Method("recvfrom", ..) => "sock_recvfrom",
            Self::Method(..) => "sock_sendto",
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Recv(object) | Self::RecvInto(object) | Self::SendAll(object) => visit.call(object),
            Self::RecvFromInto(buf, nbytes) => {
                visit.call(buf)?;
                nbytes.as_ref().map_or(Ok(()), |nbytes| visit.call(nbytes))
            }
            Self::Accept | Self::Connected => Ok(()),
            Self::Method(_, _, args) => args.iter().try_for_each(|arg| visit.call(arg)),
        }
    }
}

/// The call that an attempt makes, with what it needs.
enum Request {
    Recv(Py<PyAny>),
    Into(Py<PyAny>),
    Method(&'static str, Vec<Py<PyAny>>),
    Accept,
    Connected,
}

#[derive(Debug)]
struct State {
    machine: SockOp,
    operation: Option<Operation>,
    sock: Option<Py<PyAny>>,
    data: Option<Py<PyBytes>>,
    wait: Option<WaitKey>,
}

/// An operation on a socket, to be awaited.
#[pyclass(module = "tokioloop._tokioloop", frozen, weakref, freelist = 64)]
#[derive(Debug)]
pub struct SockOperation {
    owner: Py<LoopCore>,
    name: &'static str,
    state: GilCell<State>,
}

impl SockOperation {
    pub fn create(owner: &Bound<'_, LoopCore>, sock: Py<PyAny>, operation: Operation) -> PyResult<Py<Self>> {
        let name = operation.name();
        let machine =
            if matches!(operation, Operation::Connected) { SockOp::connecting() } else { SockOp::new(operation.dir()) };
        let state = State { machine, operation: Some(operation), sock: Some(sock), data: None, wait: None };
        let operation =
            Bound::new(owner.py(), Self { owner: owner.clone().unbind(), name, state: GilCell::new(state) })?;
        ffi::track(&operation);
        Ok(operation.unbind())
    }

    /// One step of the coroutine: the future to wait for, or `StopIteration` with the result.
    fn step(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let sock = this.state.with(py, |state| {
            state.wait = None;
            state.sock.as_ref().map(|sock| sock.clone_ref(py))
        });
        let mut step = Step { operation: this, py, sock: sock.map(|sock| sock.into_bound(py)), plain: None };
        match drive::step(&mut step)? {
            Outcome::Waits(future) => Ok(future),
            // What a coroutine yields that goes on in the next turn.
            Outcome::Deferred => Ok(py.None()),
            // In a tuple of its own: a tuple as the value must arrive as a tuple.
            Outcome::Finished(value) => Err(PyStopIteration::new_err((value,))),
        }
    }

    /// The checks of asyncio's `sock_*`, made when the operation is first run.
    fn check(&self, owner: &Bound<'_, LoopCore>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
        static SOCKET: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = sock.py();
        if !sock.get_type().is(SOCKET.import(py, "socket", "socket")?) {
            owner.call_method1(intern!(py, "_check_socket"), (sock,))?;
        }
        if owner.get().is_debug()
            && sock.call_method0(intern!(py, "gettimeout"))?.extract::<Option<f64>>()? != Some(0.0)
        {
            return Err(PyValueError::new_err("the socket must be non-blocking"));
        }
        let data = self.state.with(py, |state| match &state.operation {
            Some(Operation::SendAll(data)) => Some(data.clone_ref(py)),
            _ => None,
        });
        if let Some(data) = data {
            let data = data.bind(py);
            // `PyBytes_FromObject` would take a list, too.
            let bytes = match data.cast_exact::<PyBytes>() {
                Ok(bytes) => bytes.clone(),
                Err(_) if pyo3::buffer::PyUntypedBuffer::get(data).is_ok() => ffi::copy_bytes(data)?,
                Err(_) => {
                    let name = data.get_type().name()?;
                    let message = format!("a bytes-like object is required, not {}", name.repr()?);
                    return Err(PyTypeError::new_err(message));
                }
            };
            let total = bytes.len()?;
            self.state.with(py, |state| {
                state.machine.set_total(total);
                state.data = Some(bytes.unbind());
            });
        }
        Ok(())
    }

    /// `plain`: the file of a socket that need not be asked by its methods.
    fn attempt(&self, sock: &Bound<'_, PyAny>, plain: Option<BorrowedRawFd>) -> PyResult<Attempt<Py<PyAny>>> {
        let py = sock.py();
        let (data, moved) =
            self.state.with(py, |state| (state.data.as_ref().map(|data| data.clone_ref(py)), state.machine.moved()));
        if let Some(data) = data {
            let rest = data.as_bytes(py).get(moved..).unwrap_or_default();
            let Some(fd) = plain else { return Self::send_by_method(sock, &data, moved) };
            let sent = endpoint::send(fd, rest).map_err(|error| io_error(py, &error))?;
            return Ok(if sent == 0 && !rest.is_empty() { Attempt::Blocked } else { Attempt::Moved(sent) });
        }
        let call = self.state.with(py, |state| match &state.operation {
            Some(Operation::Recv(n)) => Request::Recv(n.clone_ref(py)),
            Some(Operation::RecvInto(buf)) => Request::Into(buf.clone_ref(py)),
            Some(Operation::RecvFromInto(buf, nbytes)) => {
                let mut args = vec![buf.clone_ref(py)];
                args.extend(nbytes.as_ref().map(|nbytes| nbytes.clone_ref(py)));
                Request::Method("recvfrom_into", args)
            }
            Some(Operation::Method(name, _, args)) => {
                Request::Method(name, args.iter().map(|arg| arg.clone_ref(py)).collect())
            }
            Some(Operation::Accept) => Request::Accept,
            Some(Operation::Connected | Operation::SendAll(_)) | None => Request::Connected,
        });
        let fd = match (&call, plain) {
            (_, Some(fd)) => fd,
            (Request::Recv(n), None) => return Self::unless_blocked(py, sock.call_method1(intern!(py, "recv"), (n,))),
            (Request::Into(buf), None) => {
                return Self::unless_blocked(py, sock.call_method1(intern!(py, "recv_into"), (buf,)));
            }
            (Request::Connected, None) => ffi::file_of(sock)?,
            // These call methods of the socket in any case.
            (Request::Method(..) | Request::Accept, None) => BorrowedRawFd::NONE,
        };
        match call {
            Request::Recv(size) => {
                let n: isize = size.bind(py).extract()?;
                let Ok(n) = usize::try_from(n) else {
                    return Err(PyValueError::new_err("negative buffersize in recv"));
                };
                if n > SCRATCH {
                    // A message may be as long, and what does not fit of it is lost.
                    return Self::unless_blocked(py, sock.call_method1(intern!(py, "recv"), (size,)));
                }
                let received = self.owner.get().scratch.with(py, |scratch| {
                    if scratch.is_empty() {
                        scratch.resize(SCRATCH, 0);
                    }
                    recv(fd, (&mut scratch[..n]).into()).map(|got| got.map(|got| PyBytes::new(py, &scratch[..got])))
                });
                let Some(bytes) = received.map_err(|error| io_error(py, &error))? else {
                    return Ok(Attempt::Blocked);
                };
                Ok(Attempt::Done(bytes.into_any().unbind()))
            }
            Request::Into(buf) => {
                let mut lent = Lent::of(buf.bind(py))?;
                let got = recv(fd, lent.memory()).map_err(|error| io_error(py, &error))?;
                let Some(got) = got else { return Ok(Attempt::Blocked) };
                Ok(Attempt::Done(got.into_pyobject(py)?.into_any().unbind()))
            }
            Request::Method(name, args) => Self::unless_blocked(py, sock.call_method1(name, PyTuple::new(py, args)?)),
            Request::Accept => {
                let accepted = sock.call_method0(intern!(py, "accept"));
                if let Ok(pair) = &accepted {
                    pair.get_item(0)?.call_method1(intern!(py, "setblocking"), (false,))?;
                }
                Self::unless_blocked(py, accepted)
            }
            // Over loopback a connection is made before `connect(2)` returns: then nothing is registered at all. A
            // refusal is waited for, as in asyncio: who cancels the operation before the next look leaves it to the
            // next connect.
            Request::Connected => {
                let connected = sys::is_writable(fd).map_err(|error| io_error(py, &error))?;
                Ok(if connected { Attempt::Connected } else { Attempt::Blocked })
            }
        }
    }

    fn send_by_method(sock: &Bound<'_, PyAny>, data: &Py<PyBytes>, moved: usize) -> PyResult<Attempt<Py<PyAny>>> {
        let py = sock.py();
        let data = data.bind(py);
        let rest = match moved {
            0 => data.clone().into_any(),
            moved => PyMemoryView::from(data)?.get_item(PySlice::new(py, isize::try_from(moved)?, isize::MAX, 1))?,
        };
        match Self::unless_blocked(py, sock.call_method1(intern!(py, "send"), (rest,)))? {
            Attempt::Done(sent) => Ok(Attempt::Moved(sent.extract(py)?)),
            other => Ok(other),
        }
    }

    fn unless_blocked(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> PyResult<Attempt<Py<PyAny>>> {
        match result {
            Ok(value) => Ok(Attempt::Done(value.unbind())),
            Err(error)
                if error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py) =>
            {
                Ok(Attempt::Blocked)
            }
            Err(error) => Err(error),
        }
    }

    fn wait(&self, sock: &Bound<'_, PyAny>, fd: u32, dir: Dir) -> PyResult<Py<PyAny>> {
        let py = sock.py();
        let owner = self.owner.bind(py);
        owner.get().check_open()?;
        watch::check_no_transport(owner, fd, sock)?;
        let future = waiter::future_of(owner)?;
        let inode = sys::inode(fd);
        let is = |socket: &Py<PyWeakrefReference>| socket.bind(py).upgrade().is_some_and(|socket| socket.is(sock));
        let known = owner.get().io.with(py, |io| io.owners.owns(fd, inode, is));
        // Made before the borrow: a weak reference is an object of Python's.
        let newcomer =
            if known { None } else { Some(Owner { socket: PyWeakrefReference::new(sock)?.unbind(), inode }) };
        let waiter = Watcher::Future(future.clone().unbind());
        let Waiting { result, stale, dropped } =
            owner.get().io.with(py, |io| interest::wait(io, fd, dir, waiter, newcomer));
        drop(dropped);
        Watcher::end_stale(stale, py)?;
        let key = result.map_err(|error| io_error(py, &error))?;
        self.state.with(py, |state| state.wait = Some(key));
        // What `Future.__await__` does before it yields itself to the task.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future.unbind())
    }

    /// Ends the operation.
    fn finish(&self, py: Python<'_>) {
        drive::end(&mut Step { operation: self, py, sock: None, plain: None });
    }

    /// Takes a wait back and lets go of what it holds.
    fn dispose(&self, py: Python<'_>) {
        let (wait, dropped) = self
            .state
            .with(py, |state| (state.wait.take(), (state.operation.take(), state.sock.take(), state.data.take())));
        drop(dropped);
        if let Some(key) = wait {
            drop(self.owner.get().io.with(py, |io| interest::unwait(io, key)));
        }
    }
}

/// An operation of which a step is run, as the surroundings of its driver.
struct Step<'a, 'py> {
    operation: &'a SockOperation,
    py: Python<'py>,
    /// While the operation has not ended.
    sock: Option<Bound<'py, PyAny>>,
    /// The file of a socket that need not be asked by its methods.
    plain: Option<BorrowedRawFd>,
}

impl Step<'_, '_> {
    fn reused() -> PyErr {
        PyRuntimeError::new_err("cannot reuse already awaited coroutine")
    }
}

impl Host for Step<'_, '_> {
    type Error = PyErr;
    type Value = Py<PyAny>;
    type Pending = Py<PyAny>;

    fn machine<R>(&mut self, f: impl FnOnce(&mut SockOp) -> R) -> R {
        self.operation.state.with(self.py, |state| f(&mut state.machine))
    }

    fn prepare(&mut self, fresh: bool) -> PyResult<()> {
        let sock = self.sock.as_ref().ok_or_else(Self::reused)?;
        if fresh {
            self.operation.check(self.operation.owner.bind(self.py), sock)?;
        }
        // One that is asked by its methods is asked for its number only where it has to wait, as in asyncio.
        self.plain = if is_plain(sock)? { Some(ffi::file_of(sock)?) } else { None };
        Ok(())
    }

    fn attempt(&mut self) -> PyResult<Attempt<Py<PyAny>>> {
        self.operation.attempt(self.sock.as_ref().ok_or_else(Self::reused)?, self.plain)
    }

    fn wait(&mut self, dir: Dir) -> PyResult<Py<PyAny>> {
        let sock = self.sock.as_ref().ok_or_else(Self::reused)?;
        let file = self.plain.map_or_else(|| ffi::file_of(sock), Ok)?;
        let fd = file.number().map_err(|error| io_error(self.py, &error))?;
        self.operation.wait(sock, fd, dir)
    }

    fn dispose(&mut self) {
        self.operation.dispose(self.py);
    }

    fn misused(&mut self, misuse: Misuse) -> PyErr {
        match misuse {
            Misuse::Reused => Self::reused(),
            Misuse::Running => PyValueError::new_err("coroutine already executing"),
        }
    }
}

/// `None`: it would block.
fn recv(fd: BorrowedRawFd, buf: RawBuf<'_>) -> io::Result<Option<usize>> {
    if buf.is_empty() {
        return Ok(Some(0));
    }
    loop {
        match sys::recv(fd, buf) {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[pymethods]
impl SockOperation {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::step(slf)
    }

    /// Runs the operation until it must wait, as `coroutine.send`.
    fn send(slf: &Bound<'_, Self>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Self::step(slf)
    }

    /// Ends the operation and raises the exception, as `coroutine.throw`: nothing was taken from the socket.
    #[pyo3(signature = (typ, val = None, tb = None))]
    fn throw(
        slf: &Bound<'_, Self>,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        slf.get().finish(py);
        let error = match (typ.cast::<PyType>(), val) {
            (Ok(class), Some(val)) if val.is_instance(class)? => val.clone(),
            (Ok(class), Some(val)) if !val.is_none() => class.call1((val,))?,
            (Ok(class), _) => class.call0()?,
            (Err(_), _) => typ.clone(),
        };
        if let Some(tb) = tb.filter(|tb| !tb.is_none()) {
            return Err(PyErr::from_value(error.call_method1(intern!(py, "with_traceback"), (tb,))?));
        }
        Err(PyErr::from_value(error))
    }

    /// Ends the operation, as `coroutine.close`.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match Self::throw(slf, py.get_type::<PyGeneratorExit>().as_any(), None, None) {
            Err(error) if error.is_instance_of::<PyGeneratorExit>(py) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    #[getter]
    fn __name__(&self) -> &'static str {
        self.name
    }

    #[getter]
    fn __qualname__(&self) -> String {
        format!("TokioLoop.{}", self.name)
    }

    #[getter]
    fn cr_running(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.machine.is_running())
    }

    fn __repr__(&self) -> String {
        format!("<coroutine TokioLoop.{}>", self.name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        if let Some(state) = self.state.traversed(&visit) {
            if let Some(operation) = &state.operation {
                operation.traverse(&visit)?;
            }
            if let Some(sock) = &state.sock {
                visit.call(sock)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self, py: Python<'_>) {
        self.finish(py);
    }
}
