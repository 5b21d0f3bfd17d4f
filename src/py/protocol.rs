//! Calling a protocol, in the context of its connection.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// The protocol of a transport.
#[derive(Debug)]
pub struct Protocol {
    pub object: Py<PyAny>,
    /// It lends its own buffers (`asyncio.BufferedProtocol`).
    pub buffered: bool,
}

impl Protocol {
    /// # Errors
    /// Whatever the protocol's `__class__` raises.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = BUFFERED.import(object.py(), "asyncio", "BufferedProtocol")?;
        Ok(Self { buffered: object.is_instance(class)?, object: object.clone().unbind() })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), buffered: self.buffered }
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
