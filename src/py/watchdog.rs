//! The watchdog's face in Python: see `io::watchdog`.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use super::errors::io_error;
use crate::io::watchdog;

/// A thread that writes reports of loops that are busy for longer than `busy` seconds to the descriptor `fd`.
#[pyclass(module = "tokioloop._tokioloop", frozen)]
#[derive(Debug)]
pub struct Watchdog(watchdog::Watchdog);

#[pymethods]
impl Watchdog {
    #[new]
    fn new(py: Python<'_>, busy: f64, fd: RawFd) -> PyResult<Self> {
        watchdog::Watchdog::new(busy, fd).map(Self).map_err(|error| io_error(py, &error))
    }

    /// For `faulthandler.register()`: the signal at which stacks are to be written, and the descriptor they go to.
    fn stacks(&self) -> (i32, RawFd) {
        self.0.stacks()
    }

    /// Starts the thread, unless there is one. `OSError` where there can be none.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.0.start().map_err(|error| io_error(py, &error))
    }

    /// Ends the thread, if there is one, and waits for its end.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}
