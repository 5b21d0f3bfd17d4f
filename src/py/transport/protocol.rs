//! Calling a protocol.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use pyo3::{PyTraverseError, PyTypeInfo, PyVisit};

/// Hands bytes to a protocol in the buffer of the loop, without a `bytes` object of their own.
pub type Feed = fn(&Bound<'_, PyAny>, &[u8]) -> PyResult<()>;

/// The class of protocols that take bytes so: that of TLS connections, of which streams know no more than this.
static FED: PyOnceLock<(Py<PyType>, Feed)> = PyOnceLock::new();

/// Has protocols of the class `T` take bytes by `feed`; called once, while the extension is imported.
pub fn define_feed<T: PyTypeInfo>(py: Python<'_>, feed: Feed) {
    FED.get_or_init(py, || (py.get_type::<T>().unbind(), feed));
}

/// The protocol of a transport.
#[derive(Debug)]
pub struct Protocol {
    pub object: Py<PyAny>,
    /// It lends its own buffers (`asyncio.BufferedProtocol`).
    pub buffered: bool,
    pub feed: Option<Feed>,
}

impl Protocol {
    /// # Errors
    /// Whatever the protocol's `__class__` raises.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = object.py();
        let class = BUFFERED.import(py, "asyncio", "BufferedProtocol")?;
        let fed = FED.get(py).filter(|(class, _)| object.get_type().is(class));
        let buffered = fed.is_none() && object.is_instance(class)?;
        Ok(Self { object: object.clone().unbind(), buffered, feed: fed.map(|(_, feed)| *feed) })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { object: self.object.clone_ref(py), ..*self }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.object)
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
