//! The stream below a TLS connection, whoever's it is.

use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::TlsTransport;
use crate::py::stream::StreamTransport;
use crate::py::transport::Transport;

/// Asyncio's high-water mark of a transport, bytes.
const LOWER_HIGH: usize = 64 * 1024;

/// The stream of ciphertext.
#[derive(Debug)]
pub enum Lower {
    Stream(Py<StreamTransport>),
    Other(Py<PyAny>),
}

impl Lower {
    pub fn new(transport: &Bound<'_, PyAny>) -> Self {
        match transport.cast_exact::<StreamTransport>() {
            Ok(stream) => Self::Stream(stream.clone().unbind()),
            Err(_) => Self::Other(transport.clone().unbind()),
        }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(stream.clone_ref(py)),
            Self::Other(transport) => Self::Other(transport.clone_ref(py)),
        }
    }

    pub fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Stream(stream) => stream.clone_ref(py).into_any(),
            Self::Other(transport) => transport.clone_ref(py),
        }
    }

    /// # Errors
    /// What `write` raises.
    pub fn write(&self, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let py = data.py();
        match self {
            Self::Stream(stream) => StreamTransport::write_now(stream.bind(py), data.as_any()),
            Self::Other(transport) => transport.bind(py).call_method1(intern!(py, "write"), (data,)).map(drop),
        }
    }

    /// What it has coalesced leaves now.
    ///
    /// # Errors
    /// An exit.
    pub fn uncork(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Stream(stream) => StreamTransport::uncork(stream.bind(py)),
            Self::Other(transport) => match transport.bind(py).cast_exact::<TlsTransport>() {
                Ok(tls) => tls.get().lower(py).map_or(Ok(()), |lower| lower.uncork(py)),
                Err(_) => Ok(()),
            },
        }
    }

    /// Bytes that it has buffered; none where it does not say.
    ///
    /// # Errors
    /// What `get_write_buffer_size` raises.
    pub fn buffered(&self, py: Python<'_>) -> PyResult<usize> {
        match self {
            Self::Stream(stream) => Ok(stream.get().base.state.with(py, |state| state.machine.buffered())),
            Self::Other(transport) => {
                let size = transport.bind(py).call_method0(intern!(py, "get_write_buffer_size"));
                has_it(py, size)?.map_or(Ok(0), |size| size.extract())
            }
        }
    }

    /// It has paused its protocol, and will tell when it takes more.
    ///
    /// # Errors
    /// What the attribute raises.
    pub fn is_write_paused(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Stream(stream) => Ok(stream.get().base.state.with(py, |state| state.machine.is_write_paused())),
            // Of asyncio's transports. One that has no such attribute has paused nobody, for all that is known.
            Self::Other(transport) => match transport.bind(py).getattr_opt(intern!(py, "_protocol_paused"))? {
                Some(paused) => paused.is_truthy(),
                None => Ok(false),
            },
        }
    }

    /// Gives it marks of writing that are no higher than those of the connection above, where it has any.
    ///
    /// # Errors
    /// What `set_write_buffer_limits` raises.
    pub fn limit(&self, py: Python<'_>, high: usize, low: usize) -> PyResult<()> {
        let marks = (high.min(LOWER_HIGH), low.min(LOWER_HIGH / 4));
        has_it(py, self.object(py).bind(py).call_method1(intern!(py, "set_write_buffer_limits"), marks)).map(drop)
    }
}

/// What a method gave; `None` where the transport has none. Asyncio's TLS asks these of no stream below it, so
/// somebody's transport may have left them as `asyncio.WriteTransport` has them.
pub fn has_it<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.is_instance_of::<PyNotImplementedError>(py) || error.is_instance_of::<PyAttributeError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
