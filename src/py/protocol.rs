//! Calling a protocol, in the context of its connection.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use pyo3::{PyTraverseError, PyVisit};

use super::tls::{TlsProtocol, TlsTransport};

/// The protocol of a transport.
#[derive(Debug)]
pub struct Protocol {
    pub object: Py<PyAny>,
    /// It lends its own buffers (`asyncio.BufferedProtocol`).
    pub buffered: bool,
    /// It is ours, of a TLS connection above.
    pub tls: Option<Py<TlsTransport>>,
}

impl Protocol {
    /// # Errors
    /// Whatever the protocol's `__class__` raises.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = BUFFERED.import(object.py(), "asyncio", "BufferedProtocol")?;
        let tls = object.cast_exact::<TlsProtocol>().ok().map(|protocol| protocol.get().tls.clone_ref(object.py()));
        Ok(Self { buffered: tls.is_none() && object.is_instance(class)?, object: object.clone().unbind(), tls })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        let tls = self.tls.as_ref().map(|tls| tls.clone_ref(py));
        Self { object: self.object.clone_ref(py), buffered: self.buffered, tls }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)?;
        // A reference of its own: one that the collector is not told of keeps all alive.
        self.tls.as_ref().map_or(Ok(()), |tls| visit.call(tls))
    }

    /// Calls a method without arguments.
    ///
    /// # Errors
    /// What the method raises.
    pub fn call0<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.object.bind(name.py()).call_method0(name)
    }

    /// Calls a method with one argument. Looked up each time, as asyncio does: a protocol may be patched.
    ///
    /// # Errors
    /// What the method raises.
    pub fn call1<'py>(&self, name: &Bound<'py, PyString>, arg: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.object.bind(name.py()).call_method1(name, (arg,))
    }
}
