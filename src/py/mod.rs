//! CPython: pyclasses over the machines of `core` and the reactor of `io`. Thin: it decides nothing itself.
//!
//! The rule of this layer: a borrow of state never spans a call into Python, nor a drop of an object whose finalizer
//! may be user code. So user code may call back into the same object from anywhere.
//!
//! Unsafe code lives in two fenced files: `cell` and `ffi`.

#[deny(unsafe_code)]
mod address;
#[deny(unsafe_code)]
mod call_soon;
mod cell;
#[deny(unsafe_code)]
mod chunk;
#[deny(unsafe_code)]
mod coalesce;
#[deny(unsafe_code)]
mod datagram;
#[deny(unsafe_code)]
mod datagram_host;
#[deny(unsafe_code)]
mod datagram_io;
#[deny(unsafe_code)]
mod datagram_send;
#[deny(unsafe_code)]
mod errors;
#[deny(unsafe_code)]
mod face;
mod ffi;
#[deny(unsafe_code)]
mod handle;
#[deny(unsafe_code)]
mod lent;
#[deny(unsafe_code)]
mod listener;
#[deny(unsafe_code)]
mod loop_core;
#[deny(unsafe_code)]
mod marks;
#[deny(unsafe_code)]
mod patched;
#[deny(unsafe_code)]
mod pipe;
#[deny(unsafe_code)]
mod plain;
#[deny(unsafe_code)]
mod protocol;
#[deny(unsafe_code)]
mod run;
#[deny(unsafe_code)]
mod slots;
#[deny(unsafe_code)]
mod sockops;
#[deny(unsafe_code)]
mod stats;
#[deny(unsafe_code)]
mod stream;
#[deny(unsafe_code)]
mod stream_host;
#[deny(unsafe_code)]
mod stream_io;
#[deny(unsafe_code)]
mod stream_make;
#[deny(unsafe_code)]
mod threadsafe;
#[deny(unsafe_code)]
mod timer;
#[deny(unsafe_code)]
mod tls;
#[deny(unsafe_code)]
mod tls_engine;
#[deny(unsafe_code)]
mod tls_host;
#[deny(unsafe_code)]
mod tls_io;
#[deny(unsafe_code)]
mod tls_lower;
#[deny(unsafe_code)]
mod transport;
#[deny(unsafe_code)]
mod transport_base;
#[deny(unsafe_code)]
mod waiter;
#[deny(unsafe_code)]
mod watch;
#[deny(unsafe_code)]
mod watchdog;

use pyo3::prelude::*;

/// The extension module; `tokioloop` is its public face.
#[pymodule(gil_used = true)]
mod _tokioloop {
    use pyo3::prelude::*;
    use pyo3::types::PyType;

    #[pymodule_export]
    use super::datagram::DatagramTransport;
    #[pymodule_export]
    use super::handle::Handle;
    #[pymodule_export]
    use super::lent::{queue_handle, take_back};
    #[pymodule_export]
    use super::listener::Listener;
    #[pymodule_export]
    use super::loop_core::LoopCore;
    #[pymodule_export]
    use super::pipe::{ReadPipeTransport, WritePipeTransport};
    #[pymodule_export]
    use super::run::{expect_turns, look, look_by_selector};
    #[pymodule_export]
    use super::sockops::SockOperation;
    #[pymodule_export]
    use super::stream::StreamTransport;
    #[pymodule_export]
    use super::threadsafe::ThreadSafeHandle;
    #[pymodule_export]
    use super::timer::TimerHandle;
    #[pymodule_export]
    use super::tls::{TlsProtocol, TlsTransport};
    #[pymodule_export]
    use super::watchdog::Watchdog;

    /// Makes the methods of `LoopCore` the class's own: CPython calls those faster than inherited ones.
    #[pyfunction]
    #[pyo3(signature = (class, /))]
    fn adopt_methods(class: &Bound<'_, PyType>) -> PyResult<()> {
        super::ffi::adopt_methods(class, &class.py().get_type::<LoopCore>())
    }

    /// Has the transport's next I/O event panic inside Rust: for the test that no panic crosses into Python.
    #[cfg(feature = "failpoints")]
    #[pyfunction]
    fn panic_next_event(transport: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = transport.py();
        match transport.cast::<DatagramTransport>() {
            Ok(datagram) => datagram.get().base.state.with(py, |state| state.failpoint = true),
            Err(_) => transport.cast::<StreamTransport>()?.get().base.state.with(py, |state| state.failpoint = true),
        }
        Ok(())
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::call_soon::define_fast_methods(module.py())?;
        super::pipe::take_foreign_methods(module.py())?;
        super::tls::define_feed(module.py());
        super::datagram::define_fast_methods(module.py())?;
        super::stream::define_fast_methods(module.py())?;
        super::lent::deque_class(module.py())?;
        super::handle::Call::formatter(module.py())?;
        super::patched::prepare(module.py())?;
        super::errors::socket_class(module.py()).map(drop)
    }
}
