//! The life of a [`DatagramTransport`]: registration, events, its end. `host` has what its driver needs.

use std::io;
use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;

use super::address::Peers;
use super::{DatagramTransport, More, Packet, Received};
use crate::core::datagram::{Datagram, Policy};
use crate::core::drive::datagram as drive;
use crate::io::counters::EndpointKind;
use crate::io::datagram::Family;
use crate::py::errors::{io_error, is_exit};
use crate::py::event_loop::loop_core::{Entry, LoopCore};
use crate::py::event_loop::slots::Life;
use crate::py::ffi;
use crate::py::transport::base::{Base, Parts};
use crate::py::transport::{Connection, Transport, driven};

impl Connection for DatagramTransport {
    fn owner<'a>(slf: &'a Bound<'_, Self>) -> &'a Py<LoopCore> {
        &slf.get().base.owner
    }

    fn protocol(slf: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        slf.get().base.protocol(slf.py())
    }

    fn fail(slf: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        drive::fail(&mut &*slf, error)
    }
}

impl Transport for DatagramTransport {
    type Machine = Datagram<Received, Packet>;
    type More = More;

    #[inline]
    fn base<'a>(slf: &'a Bound<'_, Self>) -> &'a Base<Self::Machine, More> {
        &slf.get().base
    }

    fn over(_: &Bound<'_, Self>) -> &'static str {
        "datagram"
    }

    fn is_closing(machine: &Self::Machine) -> bool {
        machine.is_closing()
    }

    driven! { handle_made handle_readable handle_writable handle_lost handle_forked uncork }
}

impl DatagramTransport {
    /// Over a datagram socket, to the one `address` if there is one.
    ///
    /// # Errors
    /// `RuntimeError` when the loop is closed or a transport has the fd, `OSError` when it cannot be registered.
    pub fn create(
        owner: &Bound<'_, LoopCore>,
        parts: Parts<'_, '_>,
        address: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Self>> {
        let py = owner.py();
        let private = owner.get().private_datagrams.swap(false, Ordering::Relaxed);
        let checked = parts.check_socket(owner)?;
        let peer = checked.extra.get_item(intern!(py, "peername"))?;
        let connected = peer.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)?;
        let paired = !connected && peer.is_some_and(|peer| !peer.is_none());
        let address = match address {
            Some(address) if address.is_truthy()? => Some(address.clone().unbind()),
            _ => None,
        };
        let header = if py.version_info() >= (3, 13) { 8 } else { 0 };
        let policy = Policy { header, batches: !connected && !paired, fixed: address.is_some() };
        let (file, family) = (checked.file, Family::of(checked.file));
        let more = More { address, peers: Peers::default(), arrivals: Vec::new() };
        let base = Base::new(owner, parts, checked, private, EndpointKind::Udp, (Datagram::new(policy), more))?;
        match base.register(py, file, false) {
            Ok(source) => base.state.with(py, |state| state.source = Some(source)),
            Err(error) => {
                base.free_slot(py);
                return Err(io_error(py, &error));
            }
        }
        let transport = ffi::make_with_dict(py, Self { base, family, connected, paired })?;
        let base = &transport.get().base;
        owner.get().io.with(py, |io| io.slots.fill(base.slot, &base.counters, Self::endpoint(&transport)));
        LoopCore::push(owner, Entry::Life(Life::Made, Box::new(Self::endpoint(&transport))));
        Ok(transport.unbind())
    }

    /// Registers the socket anew, for writability, too, or for reading and errors only: whether it is readable and
    /// writable; otherwise the wakers are armed.
    ///
    /// # Errors
    /// That it was closed, or the kernel's.
    pub fn register_anew(&self, py: Python<'_>, write: bool) -> io::Result<(bool, bool)> {
        let fd = self.base.live_fd(py);
        let old = self.base.state.with(py, |state| state.source.take());
        if let Some(source) = old {
            source.deregister(fd.is_ok());
        }
        let source = self.base.register(py, fd?, write)?;
        let ready = (source.arm_read(), source.arm_write());
        self.base.state.with(py, |state| state.source = Some(source));
        Ok(ready)
    }

    /// Deregisters and closes the socket, and lets go of everything.
    ///
    /// # Errors
    /// Only an exit.
    pub fn dispose(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, base) = (slf.py(), &slf.get().base);
        let sock = base.take_file(py);
        base.free_slot(py);
        drop(base.state.with(py, |state| std::mem::take(&mut state.more.peers)));
        match sock.map_or(Ok(()), |sock| sock.bind(py).call_method0(intern!(py, "close")).map(drop)) {
            Err(error) if !is_exit(py, &error) => Self::report(slf, "Closing a socket failed", &error),
            result => result,
        }
    }
}
