//! The life of a [`DatagramTransport`]: registration, events, and carrying out the steps of `core::datagram`.
//!
//! Every function here takes what it needs out of the state, lets go of the borrow, then calls Python or the kernel.
//! Before each system call a socket that the user handed in is asked for its fd: closed under the transport it has none,
//! and the number may be another file's by then.
//!
//! What asyncio does with exceptions: an `OSError` of a send or a receive goes to `error_received`, and the transport stays
//! open; what `sendto` raises for other reasons (an address of the wrong type) is fatal; what the protocol raises is
//! reported, or, from within `sendto`, raised there.

use std::any::Any;
use std::io;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::address::{self, Peers};
use super::cell::GilCell;
use super::datagram::{Arrival, DatagramTransport, Received, State};
use super::datagram_send::{WRITE_ERROR, would_block};
use super::errors::{close_unclosed, fault_error, io_error, passes_through, report};
use super::event_loop::{LoopCore, SCRATCH};
use super::ffi;
use super::slots::Endpoint;
use super::stats::{Counters, Kind};
use super::stream::{address_or_none, transport_socket};
use super::tables::{Entry, Life};
use super::waiter::settle;
use crate::core::datagram::{BATCH, Datagram, Policy, Step};
use crate::core::fault::Fault;
use crate::io::datagram::Family;
use crate::io::source::{self, Source};
use crate::io::sys::{self, BorrowedRawFd, address_bytes};
use crate::log_debug;

/// After so many errors in a row that were none, the kernel's word for errors is not taken any more: somebody else takes
/// them, or never does (`IP_RECVERR`), and asking would not end.
const FRUITLESS_MAX: u8 = 8;

const READ_ERROR: &str = "Fatal read error on datagram transport";

impl DatagramTransport {
    pub fn create(
        owner: &Bound<'_, LoopCore>,
        sock: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        address: Option<&Bound<'_, PyAny>>,
        waiter: Option<&Bound<'_, PyAny>>,
        extra: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        owner.get().check_open()?;
        let private = owner.get().private_datagrams.swap(false, Ordering::Relaxed);
        let fileno = sock.getattr(intern!(py, "fileno"))?;
        let file = ffi::file_of(sock)?;
        let fd = file.number().map_err(|error| io_error(py, &error))?;
        super::watch::check_no_transport(owner, fd, sock)?;
        // A protocol without it is refused here, before anything is scheduled.
        protocol.getattr(intern!(py, "connection_made"))?;
        let extra = match extra {
            Some(extra) => extra.copy()?,
            None => PyDict::new(py),
        };
        extra.set_item(intern!(py, "socket"), transport_socket(sock)?)?;
        extra.set_item(intern!(py, "sockname"), address_or_none(sock, "getsockname")?)?;
        if !extra.contains(intern!(py, "peername"))? {
            extra.set_item(intern!(py, "peername"), address_or_none(sock, "getpeername")?)?;
        }
        let peer = extra.get_item(intern!(py, "peername"))?;
        let connected = peer.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)?;
        let paired = !connected && peer.is_some_and(|peer| !peer.is_none());
        let address = match address {
            Some(address) if address.is_truthy()? => Some(address.clone().unbind()),
            _ => None,
        };
        let header = if py.version_info() >= (3, 13) { 8 } else { 0 };
        let policy = Policy { header, batches: !connected && !paired, fixed: address.is_some() };
        let context = ffi::copy_context(py)?;
        let slot = owner.get().io.with(py, |io| io.slots.reserve());
        let state = State {
            machine: Datagram::new(policy),
            source: None,
            sock: Some(sock.clone().unbind()),
            fileno: (!private).then(|| fileno.unbind()),
            protocol: Some(protocol.clone().unbind()),
            extra: Some(extra.unbind()),
            address,
            waiter: waiter.map(|waiter| waiter.clone().unbind()),
            context: Some(context),
            error: None,
            peers: Peers::default(),
            arrivals: Vec::new(),
            watches_write: false,
            read_queued: false,
            unasked: false,
            errored: false,
            fruitless: 0,
            failpoint: false,
        };
        let family = Family::of(file);
        let counters = Counters::new(fd, Kind::Udp);
        let (owned, state) = (owner.clone().unbind(), GilCell::new(state));
        let this = Self { owner: owned, slot, fd, file, family, connected, paired, counters, state };
        let transport = ffi::make_with_dict(py, this)?.unbind();
        match transport.get().register(py, false) {
            Ok(source) => transport.get().state.with(py, |state| state.source = Some(source)),
            Err(error) => {
                transport.get().withdraw(py);
                return Err(io_error(py, &error));
            }
        }
        let endpoint = Endpoint::Datagram(transport.clone_ref(py));
        owner.get().io.with(py, |io| io.slots.fill(slot, fd, endpoint));
        owner.get().push(py, Entry::Datagram(Life::Made, transport.clone_ref(py)));
        Ok(transport)
    }

    fn register(&self, py: Python<'_>, write: bool) -> io::Result<Source> {
        self.owner.get().io.with(py, |io| match &io.reactor {
            Some(reactor) => reactor.register(self.file, self.slot, !write),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// Registers the socket anew, for writability, too, or for reading and errors only.
    fn renew(&self, py: Python<'_>, write: bool) -> io::Result<()> {
        let fd = self.live_fd(py);
        let old = self.state.with(py, |state| state.source.take());
        if let Some(source) = old {
            source.release(fd.is_ok());
        }
        fd?;
        let source = self.register(py, write)?;
        let (readable, writable) = (source.arm_read(), source.arm_write());
        self.state.with(py, |state| {
            state.source = Some(source);
            state.watches_write = write;
        });
        if writable {
            self.owner.get().push(py, Entry::Io(source::token(self.slot, true)));
        }
        self.read_on(py, readable);
        Ok(())
    }

    /// It came to nothing: deregisters it, and the socket stays the caller's.
    fn withdraw(&self, py: Python<'_>) {
        self.orphan(py);
        let sock = self.state.with(py, |state| state.sock.take());
        let endpoint = self.owner.get().io.with(py, |io| io.slots.remove(self.slot, self.fd));
        drop((sock, endpoint));
    }

    /// True when the socket object still has the fd that was registered.
    pub fn owns_fd(&self, py: Python<'_>) -> bool {
        let (open, fileno) = self
            .state
            .with(py, |state| (state.sock.is_some(), state.fileno.as_ref().map(|fileno| fileno.clone_ref(py))));
        let Some(fileno) = fileno else { return open };
        open && { fileno.bind(py).call0().and_then(|fd| fd.extract::<i64>()).is_ok_and(|fd| fd == i64::from(self.fd)) }
    }

    pub fn live_fd(&self, py: Python<'_>) -> io::Result<BorrowedRawFd> {
        if self.owns_fd(py) { Ok(self.file) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }

    pub fn callee(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        self.state
            .with(py, |state| Some((state.protocol.as_ref()?.clone_ref(py), state.context.as_ref()?.clone_ref(py))))
    }

    /// Calls the protocol from the loop: what it raises is reported.
    pub fn call(&self, slf: &Bound<'_, Self>, method: &str, arg: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let Some((protocol, context)) = self.callee(py) else { return Ok(()) };
        match ffi::in_context(py, &context, || protocol.bind(py).call_method1(method, (arg,)).map(drop)) {
            Err(error) => self.callback_failed(slf, method, error),
            Ok(()) => Ok(()),
        }
    }

    #[cold]
    pub fn callback_failed(&self, slf: &Bound<'_, Self>, method: &str, error: PyErr) -> PyResult<()> {
        if passes_through(slf.py(), &error) {
            return Err(error);
        }
        self.report(slf, &format!("Exception in callback protocol.{method}()"), &error)
    }

    // ---- events, called by the turn

    pub fn handle_made(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        log_debug!("made fd={}", this.fd);
        let waiter = this.state.with(py, |state| state.waiter.take());
        let result = this.call(slf, "connection_made", slf.as_any());
        // Before anything is received: what wakes the write waker is an error.
        let errored = this.state.with(py, |state| state.source.as_ref().is_some_and(Source::arm_write));
        if errored {
            this.owner.get().push(py, Entry::Io(source::token(this.slot, true)));
        }
        let step = this.state.with(py, |state| state.machine.handle_open());
        let result = result.and(Self::run_step(slf, step));
        let told = waiter.map_or(Ok(()), |waiter| settle(waiter.bind(py), None));
        result.and(told)
    }

    pub fn handle_io(slf: &Bound<'_, Self>, write: bool) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if cfg!(feature = "failpoints") {
            assert!(
                !this.state.with(py, |state| std::mem::take(&mut state.failpoint)),
                "failpoint: the next event of fd={} was to panic",
                this.fd
            );
        }
        if !write {
            return Self::handle_readable(slf);
        }
        let (step, errored, context) = this.state.with(py, |state| {
            let step = state.machine.handle_writable();
            let errored = step.is_none() && !state.watches_write;
            state.errored |= errored;
            (step, errored, state.context.as_ref().map(|context| context.clone_ref(py)))
        });
        match context {
            _ if errored => Self::handle_readable(slf),
            Some(context) => ffi::in_context(py, &context, || Self::run_step(slf, step)),
            None => Ok(()),
        }
    }

    fn handle_readable(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (wants, undelivered, errored, unasked) = this.state.with(py, |state| {
            state.read_queued = false;
            let (wants, undelivered) = (state.machine.wants_read(), state.machine.has_undelivered());
            let asks = wants && !undelivered;
            let errored = asks && std::mem::take(&mut state.errored);
            (wants, undelivered, errored, asks && std::mem::take(&mut state.unasked) || errored)
        });
        if !wants {
            return Ok(());
        }
        if undelivered {
            let result = Self::deliver(slf);
            this.read_on(py, true);
            return result;
        }
        if let Err(error) = this.live_fd(py) {
            return Self::error_reported(slf, &io_error(py, &error));
        }
        let received = if this.family == Family::Other {
            Self::receive_by_python(slf, unasked)
        } else {
            Self::receive(slf, unasked)
        };
        // Asks the kernel anew before user code runs: what that brings about must not be missed.
        let found = !matches!(received, Ok((0, _, None)));
        if found {
            this.handle_found(py);
        }
        if errored {
            this.handle_errored(py, found);
        }
        let (more, error) = match received {
            Ok((_, more, error)) => (more, error),
            Err(error) => return Self::fatal(slf, error, READ_ERROR),
        };
        let mut result = Self::deliver(slf);
        if let Some(error) = error
            && !this.is_closing_now(py)
        {
            result = result.and(Self::error_reported(slf, &error));
        }
        this.read_on(py, more || result.is_err());
        result
    }

    /// The kernel had something to say: its word for errors counts again.
    #[inline]
    pub fn handle_found(&self, py: Python<'_>) {
        if self.state.with(py, |state| std::mem::take(&mut state.fruitless)) >= FRUITLESS_MAX {
            self.handle_errored(py, true);
        }
    }

    /// The kernel said that there is an error, which it says once per registration.
    #[cold]
    fn handle_errored(&self, py: Python<'_>, found: bool) {
        let renews = self.state.with(py, |state| {
            state.fruitless = if found { 0 } else { state.fruitless.saturating_add(1) };
            state.fruitless < FRUITLESS_MAX && !state.watches_write
        });
        if renews && let Err(error) = self.renew(py, false) {
            // Without resources to register nothing more will be received; sends still say what is wrong.
            log_debug!("lost its registration fd={} {error}", self.fd);
        }
    }

    /// A batch of datagrams, by `recvfrom(2)`: as fast as `recvmmsg(2)` for ten of them, and faster for one.
    fn receive(slf: &Bound<'_, Self>, unasked: bool) -> PyResult<(usize, bool, Option<PyErr>)> {
        let (py, this) = (slf.py(), slf.get());
        let ((count, more, error), arrivals) = this.owner.get().scratch.with(py, |scratch| {
            if scratch.is_empty() {
                scratch.resize(SCRATCH, 0);
            }
            this.state.with(py, |state| {
                let State { machine, source, peers, arrivals, .. } = state;
                let drained = source.as_ref().map_or((0, false, None), |source| {
                    source.drain(BATCH, unasked, |fd| {
                        let (n, address) = sys::recv_from(fd, scratch.as_mut_slice().into())?;
                        let known = peers.shown(address_bytes(&address)).map(|shown| shown.clone_ref(py));
                        let data = PyBytes::new(py, &scratch[..n]).unbind();
                        match known {
                            Some(from) if arrivals.is_empty() => {
                                machine.handle_received(std::iter::once(Received { data, from }));
                            }
                            known => arrivals.push(Arrival { data, from: known.ok_or_else(|| Box::new(address)) }),
                        }
                        Ok(())
                    })
                });
                (drained, std::mem::take(arrivals))
            })
        });
        // From a sender who is new on, in their order.
        for Arrival { data, from } in arrivals {
            let from = match from {
                Ok(known) => known,
                Err(address) => {
                    // Tuples are the garbage collector's business, which may run user code before Python 3.12.
                    let shown = address::to_python(py, &address)?.unbind();
                    let kept = shown.clone_ref(py);
                    drop(this.state.with(py, |state| state.peers.keep(*address, kept)));
                    shown
                }
            };
            this.state.with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
        }
        Ok((count, more, error.map(|error| io_error(py, &error))))
    }

    /// One datagram by `socket.recvfrom`, which knows the addresses of every family.
    fn receive_by_python(slf: &Bound<'_, Self>, unasked: bool) -> PyResult<(usize, bool, Option<PyErr>)> {
        let (py, this) = (slf.py(), slf.get());
        let sock = this.state.with(py, |state| {
            let ready = state.source.as_ref().is_some_and(Source::arm_read) || unasked;
            state.sock.as_ref().filter(|_| ready).map(|sock| sock.clone_ref(py))
        });
        let Some(sock) = sock else { return Ok((0, false, None)) };
        match sock.bind(py).call_method1(intern!(py, "recvfrom"), (SCRATCH,)) {
            Ok(pair) => {
                let (data, from): (Py<PyBytes>, Py<PyAny>) = pair.extract()?;
                this.state.with(py, |state| state.machine.handle_received(std::iter::once(Received { data, from })));
                Ok((1, true, None))
            }
            Err(error) if would_block(py, &error) => {
                Ok((0, this.state.with(py, |state| state.source.as_ref().is_some_and(Source::clear_read)), None))
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => Ok((0, true, Some(error))),
            Err(error) => Err(error),
        }
    }

    /// Hands out what was received, as long as the protocol wants it.
    fn deliver(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        loop {
            let next = this.state.with(py, |state| {
                let (protocol, context) = (state.protocol.as_ref()?, state.context.as_ref()?);
                let received = state.machine.poll_deliver()?;
                Some((received, protocol.clone_ref(py), context.clone_ref(py)))
            });
            let Some((Received { data, from }, protocol, context)) = next else { return Ok(()) };
            this.counters.received(data.as_bytes(py).len());
            let called = ffi::in_context(py, &context, || {
                protocol.bind(py).call_method1(intern!(py, "datagram_received"), (data, from)).map(drop)
            });
            if let Err(error) = called {
                this.callback_failed(slf, "datagram_received", error)?;
            }
        }
    }

    /// There may be more to read: next turn, so that others get theirs first. Once, however often it is asked for.
    fn read_on(&self, py: Python<'_>, more: bool) {
        let wants = |state: &mut State| state.machine.wants_read() && !std::mem::replace(&mut state.read_queued, true);
        if more && self.state.with(py, wants) {
            self.owner.get().push(py, Entry::Io(source::token(self.slot, false)));
        }
    }

    pub fn handle_lost(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let fault = this.state.with(py, |state| state.machine.fault());
        let kept = this.state.with(py, |state| state.error.take());
        let error = kept.map(|kept| PyErr::from_value(kept.into_bound(py).into_any()));
        let error = error.or_else(|| fault_error(py, fault));
        log_debug!("lost fd={} {}", this.fd, error.as_ref().map_or_else(String::new, ToString::to_string));
        let arg = match &error {
            Some(error) => error.value(py).clone().into_any(),
            None => py.None().into_bound(py),
        };
        let result = this.call(slf, "connection_lost", &arg);
        this.state.with(py, |state| state.machine.handle_lost());
        result.and(Self::dispose(slf))
    }

    /// Deregisters and closes the socket, and lets go of everything.
    fn dispose(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.orphan(py);
        let (sock, rest) = this.state.with(py, |state| {
            let rest =
                (state.fileno.take(), state.protocol.take(), state.context.take(), std::mem::take(&mut state.peers));
            (state.sock.take(), rest)
        });
        let endpoint = this.owner.get().io.with(py, |io| io.slots.remove(this.slot, this.fd));
        drop((endpoint, rest));
        match sock.map_or(Ok(()), |sock| sock.bind(py).call_method0(intern!(py, "close")).map(drop)) {
            Err(error) if !passes_through(py, &error) => this.report(slf, "Closing a socket failed", &error),
            result => result,
        }
    }

    /// Deregisters it, and no callback will come: the loop closes with the endpoint open.
    pub fn orphan(&self, py: Python<'_>) {
        let ours = self.owns_fd(py);
        if let Some(source) = self.state.with(py, |state| state.source.take()) {
            source.release(ours);
        }
    }

    // ---- steps

    /// Carries out a step, in the order of its flags.
    ///
    /// # Errors
    /// What passes through the loop.
    pub fn run_step(slf: &Bound<'_, Self>, step: Step) -> PyResult<()> {
        if step.is_none() {
            return Ok(());
        }
        let (py, this) = (slf.py(), slf.get());
        if step.has(Step::SEND) {
            Self::flush(slf)?;
        }
        if step.has(Step::CORK) {
            this.owner.get().coalesce.cork(py, Endpoint::Datagram(slf.clone().unbind()));
        }
        if step.has(Step::WATCH_WRITE) {
            // Readiness that came in between may be an error's, which only a new registration takes away.
            let renews = this
                .state
                .with(py, |state| !state.watches_write || state.source.as_ref().is_some_and(Source::clear_write));
            if renews && let Err(error) = this.renew(py, true) {
                Self::fatal(slf, io_error(py, &error), WRITE_ERROR)?;
            }
        }
        if step.has(Step::UNWATCH_WRITE)
            && !step.has(Step::LOSE)
            && let Err(error) = this.renew(py, false)
        {
            Self::fatal(slf, io_error(py, &error), WRITE_ERROR)?;
        }
        if step.has(Step::AGAIN) {
            this.owner.get().push(py, Entry::Io(source::token(this.slot, true)));
        }
        if step.has(Step::WATCH_READ) {
            let ready = this.state.with(py, |state| {
                let armed = state.source.as_ref().is_some_and(Source::arm_read);
                armed || state.unasked || state.machine.has_undelivered()
            });
            this.read_on(py, ready);
        }
        let mut result = Ok(());
        if step.has(Step::PAUSE) {
            log_debug!("paused fd={}", this.fd);
            result = Self::tell(slf, "pause_writing");
        }
        if step.has(Step::RESUME) {
            log_debug!("resumed fd={}", this.fd);
            result = result.and(Self::tell(slf, "resume_writing"));
        }
        if step.has(Step::DISCARD) {
            drop(this.state.with(py, |state| state.machine.take_dropped()));
        }
        if step.has(Step::LOSE) {
            this.owner.get().check_open()?;
            this.owner.get().push(py, Entry::Datagram(Life::Lost, slf.clone().unbind()));
        }
        result
    }

    fn tell(slf: &Bound<'_, Self>, method: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let Some((protocol, _)) = this.callee(py) else { return Ok(()) };
        match protocol.bind(py).call_method0(method) {
            Ok(_) => Ok(()),
            Err(error) if passes_through(py, &error) => Err(error),
            Err(error) => this.report(slf, &format!("protocol.{method}() failed"), &error),
        }
    }

    /// Ends the endpoint because of an exception: reports it, unless the network is to blame, and closes.
    ///
    /// # Errors
    /// The exception itself when it passes through the loop.
    pub fn fatal(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if passes_through(py, &error) {
            return Err(error);
        }
        if error.is_instance_of::<PyOSError>(py) {
            if this.owner.get().is_debug() {
                this.owner.bind(py).call_method1(intern!(py, "_log_fatal"), (slf, message, error.value(py)))?;
            }
        } else {
            this.report(slf, message, &error)?;
        }
        Self::fail_with(slf, error)
    }

    /// Closes at once; `connection_lost` gets the exception.
    fn fail_with(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let error = error.into_value(slf.py());
        // Lost before: the exception is dropped outside the borrow, as it may hold anything.
        let (step, _unwanted) = slf.get().state.with(slf.py(), |state| {
            let step = state.machine.fail(Fault::User);
            (step, if step.has(Step::LOSE) { state.error.replace(error) } else { Some(error) })
        });
        Self::run_step(slf, step)
    }

    /// A panic of ours: reported, and the endpoint closed.
    ///
    /// # Errors
    /// Only what passes through.
    pub fn panicked(slf: &Bound<'_, Self>, payload: &(dyn Any + Send)) -> PyResult<()> {
        let error = super::errors::panic_error(payload);
        slf.get().report(slf, super::errors::PANIC, &error)?;
        Self::fail_with(slf, error)
    }

    fn report(&self, slf: &Bound<'_, Self>, message: &str, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let protocol = self.state.with(py, |state| state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)));
        let more = [
            ("transport", Some(slf.clone().into_any())),
            ("protocol", protocol.map(|protocol| protocol.into_bound(py))),
        ];
        report(self.owner.bind(py), message, Some(error), &more)
    }

    /// The transport goes with its socket open: says so, as asyncio does, and closes it.
    ///
    /// # Errors
    /// As [`close_unclosed`].
    pub fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        self.orphan(py);
        let (sock, rest) = self
            .state
            .with(py, |state| (state.sock.take(), (state.fileno.take(), state.protocol.take(), state.context.take())));
        drop(rest);
        sock.map_or(Ok(()), |sock| close_unclosed(sock.bind(py), &format!("DatagramTransport fd={}", self.fd)))
    }
}
