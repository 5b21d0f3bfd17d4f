//! CPython: pyclasses over the machines of `core` and the reactor of `io`. Thin: it decides nothing itself.
//!
//! The rule of this layer: a borrow of state never spans a call into Python, nor a drop of an object whose finalizer
//! may be user code. So user code may call back into the same object from anywhere.
//!
//! Unsafe code lives in two fenced files: `cell` and `ffi`.

mod cell;
#[deny(unsafe_code)]
mod chunk;
#[deny(unsafe_code)]
mod datagram;
#[deny(unsafe_code)]
mod errors;
#[deny(unsafe_code)]
mod event_loop;
#[deny(unsafe_code)]
mod face;
mod ffi;
#[deny(unsafe_code)]
mod listener;
#[deny(unsafe_code)]
mod sock;
#[deny(unsafe_code)]
mod stream;
#[deny(unsafe_code)]
mod tls;
#[deny(unsafe_code)]
mod transport;
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
    use super::event_loop::handle::Handle;
    #[pymodule_export]
    use super::event_loop::lent::{queue_handle, take_back};
    #[pymodule_export]
    use super::event_loop::loop_core::LoopCore;
    #[pymodule_export]
    use super::event_loop::run::{expect_turns, look, look_by_selector};
    #[pymodule_export]
    use super::event_loop::threadsafe::ThreadSafeHandle;
    #[pymodule_export]
    use super::event_loop::timer::TimerHandle;
    #[pymodule_export]
    use super::listener::Listener;
    #[pymodule_export]
    use super::sock::SockOperation;
    #[pymodule_export]
    use super::stream::StreamTransport;
    #[pymodule_export]
    use super::stream::pipe::{ReadPipeTransport, WritePipeTransport};
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
        super::event_loop::schedule::define_fast_methods(module.py())?;
        super::stream::pipe::take_foreign_methods(module.py())?;
        super::tls::define_feed(module.py());
        super::datagram::define_fast_methods(module.py())?;
        super::stream::define_fast_methods(module.py())?;
        super::event_loop::lent::deque_class(module.py())?;
        super::event_loop::handle::Call::formatter(module.py())?;
        super::event_loop::patched::prepare(module.py())?;
        super::errors::socket_class(module.py()).map(drop)
    }
}
