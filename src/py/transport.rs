//! What the transports of files have in common, those of streams and of datagrams: what they do for the loop, and what
//! their drivers need of it. `base` has their state.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.

pub mod base;
pub mod marks;
pub mod protocol;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::{PyTypeInfo, intern};

use super::errors::{self, culprit_message, is_exit, os_errno};
use super::ffi;
use crate::core::drive::{self, Culprit, Dir};
use crate::io::source;
use crate::log_debug;
use crate::py::event_loop::loop_core::{Entry, LoopCore};
use crate::py::event_loop::slots::{EndpointRef, Life, Ops};
use crate::py::event_loop::waiter::resolve;
use base::Base;

/// A transport of any kind, for its reports.
pub trait Connection: PyTypeInfo {
    fn owner<'a>(slf: &'a Bound<'_, Self>) -> &'a Py<LoopCore>;
    fn protocol(slf: &Bound<'_, Self>) -> Option<Py<PyAny>>;
    /// Closes at once; `connection_lost` gets the exception.
    ///
    /// # Errors
    /// Only an exit.
    fn fail(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()>;

    /// Tells the loop's exception handler.
    ///
    /// # Errors
    /// Only an exit.
    fn report(slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let protocol = Self::protocol(slf).map(|protocol| protocol.into_bound(py));
        let more = [("transport", Some(slf.as_any().clone())), ("protocol", protocol)];
        errors::report(Self::owner(slf).bind(py), message, Some(error), &more)
    }

    /// Runs a method's body; a panic in it is reported and closes the connection.
    ///
    /// # Errors
    /// Those of the body.
    #[inline]
    fn guard(slf: &Bound<'_, Self>, body: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Self::panicked(slf, payload.as_ref()))
    }

    /// A panic of ours: reported, and the connection closed.
    ///
    /// # Errors
    /// Only an exit.
    #[cold]
    fn panicked(slf: &Bound<'_, Self>, payload: &(dyn Any + Send)) -> PyResult<()> {
        let error = errors::panic_error(payload);
        let reported = Self::report(slf, errors::PANIC, &error);
        reported.and(Self::fail(slf, error))
    }

    /// Logs an error that the network is to blame for, in debug mode only.
    ///
    /// # Errors
    /// What the log raises.
    fn log_fatal(slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let (py, owner) = (slf.py(), Self::owner(slf));
        if !owner.get().is_debug() {
            return Ok(());
        }
        owner.bind(py).call_method1(intern!(py, "_log_fatal"), (slf, message, error.value(py))).map(drop)
    }
}

/// The transport of a file: what its class has its driver do, and what all classes make of that.
pub trait Transport: Connection {
    type Machine;
    type More;

    fn base<'a>(slf: &'a Bound<'_, Self>) -> &'a Base<Self::Machine, Self::More>;
    /// What reports call it: the transport of a "socket", a "pipe", a "datagram".
    fn over(slf: &Bound<'_, Self>) -> &'static str;
    fn is_closing(machine: &Self::Machine) -> bool;

    // ---- its driver

    /// # Errors
    /// An exit, or that the loop is closed.
    fn handle_made(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// # Errors
    /// Only an exit.
    fn handle_readable(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// # Errors
    /// Only an exit.
    fn handle_writable(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// # Errors
    /// Only an exit.
    fn handle_lost(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// In the child of a fork: forgets what it has coalesced, which is the parent's to send.
    ///
    /// # Errors
    /// Only an exit.
    fn handle_forked(slf: &Bound<'_, Self>) -> PyResult<()>;
    /// Sends what it has coalesced.
    ///
    /// # Errors
    /// Only an exit.
    fn uncork(slf: &Bound<'_, Self>) -> PyResult<()>;

    // ---- what all have

    const OPS: &'static Ops = &Ops {
        handle_io: |transport, write| handle_io::<Self>(transport.cast()?, write),
        handle_life: |transport, life| handle_life::<Self>(transport.cast()?, life),
        uncork: |transport, enter| uncork_in_context::<Self>(transport.cast()?, enter),
        forget_corked: |transport| Self::handle_forked(transport.cast()?),
        panicked: |transport, payload| Self::panicked(transport.cast()?, payload),
        uses_file: |transport| {
            let (py, base) = (transport.py(), Self::base(transport.cast()?));
            Ok(!base.state.with(py, |state| Self::is_closing(&state.machine)) && base.owns_fd(py))
        },
        deregister: |transport| {
            Self::base(transport.cast()?).deregister(transport.py());
            Ok(())
        },
    };

    /// What the loop knows of it.
    fn endpoint(slf: &Bound<'_, Self>) -> EndpointRef {
        EndpointRef::new(slf, Self::OPS, Self::base(slf).fd)
    }
}

/// Methods of [`Transport`] that its driver has by the same names: `drive` of the module that uses this.
macro_rules! driven {
    ($($name:ident)*) => {
        $(fn $name(slf: &Bound<'_, Self>) -> PyResult<()> {
            drive::$name(&mut &*slf)
        })*
    };
}

pub(super) use driven;

/// The file is ready.
///
/// # Errors
/// Only an exit.
pub fn handle_io<T: Transport>(slf: &Bound<'_, T>, write: bool) -> PyResult<()> {
    if cfg!(feature = "failpoints") {
        let base = T::base(slf);
        assert!(
            !base.state.with(slf.py(), |state| std::mem::take(&mut state.failpoint)),
            "failpoint: the next event of fd={} was to panic",
            base.fd
        );
    }
    if write { T::handle_writable(slf) } else { T::handle_readable(slf) }
}

/// The loop got to the beginning of the transport, or to its end.
///
/// # Errors
/// Only an exit.
pub fn handle_life<T: Transport>(slf: &Bound<'_, T>, life: Life) -> PyResult<()> {
    if life == Life::Lost {
        return T::handle_lost(slf);
    }
    let (py, base) = (slf.py(), T::base(slf));
    log_debug!("made fd={}", base.fd);
    let waiter = base.state.with(py, |state| state.waiter.take());
    let result = T::handle_made(slf);
    let told = waiter.map_or(Ok(()), |waiter| resolve(waiter.bind(py), None));
    result.and(told)
}

/// Sends what the transport has coalesced. `enter`: no callback is running, so the context can be entered.
fn uncork_in_context<T: Transport>(slf: &Bound<'_, T>, enter: bool) -> PyResult<()> {
    let (py, base) = (slf.py(), T::base(slf));
    let context = base.state.with(py, |state| state.context.as_ref().map(|context| context.clone_ref(py)));
    T::guard(slf, || match context.filter(|_| enter) {
        Some(context) => ffi::in_context(py, &context, || T::uncork(slf)),
        None => T::uncork(slf),
    })
}

/// A transport as the surroundings of whichever driver.
impl<T: Transport> drive::Host for &Bound<'_, T> {
    type Error = PyErr;

    fn is_exit(&self, error: &PyErr) -> bool {
        is_exit(self.py(), error)
    }

    fn os_errno(&self, error: &PyErr) -> Option<Option<i32>> {
        os_errno(self.py(), error)
    }

    #[cold]
    fn report(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        T::report(self, &culprit_message(culprit, T::over(self)), error)
    }

    #[cold]
    fn log_fatal(&mut self, error: &PyErr, culprit: Culprit) -> PyResult<()> {
        T::log_fatal(self, &culprit_message(culprit, T::over(self)), error)
    }

    fn keep_error(&mut self, error: PyErr) {
        let error = error.into_value(self.py());
        drop(T::base(self).state.with(self.py(), |state| state.error.replace(error)));
    }

    #[inline]
    fn turn(&self) -> u64 {
        T::base(self).owner.get().turn().unwrap_or(0)
    }

    #[inline]
    fn coalesces(&self) -> bool {
        T::base(self).owner.get().coalesce.wants_now(self.py())
    }

    fn cork(&mut self) {
        T::base(self).owner.get().coalesce.cork(self.py(), T::endpoint(self));
    }

    #[inline]
    fn queue(&mut self, dir: Dir) {
        let base = T::base(self);
        LoopCore::push(base.owner.bind(self.py()), Entry::Io(source::token(base.slot, dir == Dir::Write)));
    }

    fn queue_lost(&mut self) -> PyResult<()> {
        let owner = T::base(self).owner.bind(self.py());
        owner.get().check_open()?;
        LoopCore::push(owner, Entry::Life(Life::Lost, Box::new(T::endpoint(self))));
        Ok(())
    }

    fn in_context(&mut self, body: impl FnOnce(&mut Self) -> PyResult<()>) -> PyResult<()> {
        let py = self.py();
        let context = T::base(self).state.with(py, |state| state.context.as_ref().map(|context| context.clone_ref(py)));
        context.map_or(Ok(()), |context| ffi::in_context(py, &context, || body(self)))
    }
}

/// The methods of a class of transports: its own, and those that all have. The names `drive`, `Protocol` and so on are
/// those of the module that uses this; `owner` and `state` are fields of the class, or of its field `base`.
macro_rules! connection_methods {
    ($class:ident $(. $base:ident)?: $($own:tt)*) => {
        #[pymethods]
        impl $class {
            $($own)*

            #[getter(_loop)]
            fn owner(&self, py: Python<'_>) -> Py<LoopCore> {
                self$(.$base)?.owner.clone_ref(py)
            }

            #[getter(_extra)]
            fn extra(&self, py: Python<'_>) -> Option<Py<PyDict>> {
                self$(.$base)?.state.with(py, |state| state.extra.as_ref().map(|extra| extra.clone_ref(py)))
            }

            fn get_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self$(.$base)?.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.object.clone_ref(py)))
            }

            /// What comes in goes to `protocol` from now on.
            ///
            /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.set_protocol>
            fn set_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
                let new = Protocol::new(protocol)?;
                drop(self$(.$base)?.state.with(protocol.py(), |state| state.protocol.replace(new)));
                Ok(())
            }

            /// Stops calling the protocol with what comes in.
            fn pause_reading(&self, py: Python<'_>) {
                self$(.$base)?.state.with(py, |state| state.machine.pause_reading());
            }

            /// Goes on calling it.
            fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || drive::resume_reading(&mut &*slf))
            }

            /// Closes the transport; what is buffered is sent first, and `connection_lost(None)` follows.
            ///
            /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.BaseTransport.close>
            fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || drive::close(&mut &*slf))
            }

            /// `(low, high)`, bytes.
            fn get_write_buffer_limits(&self, py: Python<'_>) -> (usize, usize) {
                self$(.$base)?.state.with(py, |state| state.machine.limits())
            }
        }
    };
}

pub(super) use connection_methods;

/// The same of a class of transports of files.
macro_rules! transport_methods {
    ($class:ident: $($own:tt)*) => {
        $crate::py::transport::connection_methods! {
            $class.base:
            $($own)*

            #[getter(_sock)]
            fn sock(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.base.state.with(py, |state| state.sock.as_ref().map(|sock| sock.clone_ref(py)))
            }

            #[getter(_sock_fd)]
            fn sock_fd(&self) -> u32 {
                self.base.fd
            }

            #[getter(_protocol)]
            fn own_protocol(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.get_protocol(py)
            }

            #[setter(_protocol)]
            fn replace_protocol(&self, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
                self.set_protocol(protocol)
            }

            #[getter(_closing)]
            fn closing(&self, py: Python<'_>) -> bool {
                self.is_closing(py)
            }

            fn is_closing(&self, py: Python<'_>) -> bool {
                self.base.state.with(py, |state| state.machine.is_closing())
            }

            #[getter(_paused)]
            fn paused(&self, py: Python<'_>) -> bool {
                self.base.state.with(py, |state| state.machine.is_paused())
            }

            fn is_reading(&self, py: Python<'_>) -> bool {
                self.base.state.with(py, |state| state.machine.is_reading())
            }

            /// Closes the transport at once; what is buffered is lost, and `connection_lost(None)` follows.
            ///
            /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.abort>
            fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || drive::abort(&mut &*slf))
            }

            /// Bytes that are buffered; datagrams since Python 3.13 with 8 more for each, as asyncio counts them.
            fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<usize> {
                // What is coalesced waits for nothing but the end of the turn.
                Self::guard(slf, || Self::uncork(slf))?;
                Ok(slf.get().base.state.with(slf.py(), |state| state.machine.buffered()))
            }

            /// Sets the marks of write flow control, bytes.
            ///
            /// Raises `ValueError` unless `high >= low >= 0`.
            /// Source: <https://docs.python.org/3/library/asyncio-protocol.html#asyncio.WriteTransport.set_write_buffer_limits>
            #[pyo3(signature = (high = None, low = None))]
            fn set_write_buffer_limits(
                slf: &Bound<'_, Self>,
                high: Option<&Bound<'_, PyAny>>,
                low: Option<&Bound<'_, PyAny>>,
            ) -> PyResult<()> {
                let (high, low) = marks::marks(slf.py(), high, low, DEFAULT_HIGH)?;
                Self::guard(slf, || drive::set_limits(&mut &*slf, Some(high), Some(low))?.map_err(marks::refused))
            }

            // ---- what the loop calls, as callbacks for who has its queue in hand

            fn _read_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
                slf.get().base.state.with(slf.py(), |state| state.machine.forget_turn());
                Self::guard(slf, || transport::handle_io(slf, false))
            }

            fn _write_ready(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || transport::handle_io(slf, true))
            }

            fn _tell_made(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || transport::handle_life(slf, Life::Made))
            }

            fn _tell_lost(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::guard(slf, || transport::handle_life(slf, Life::Lost))
            }
        }
    };
}

pub(super) use transport_methods;
