//! Futures that somebody awaits.

use pyo3::intern;
use pyo3::prelude::*;

/// Ends a future, unless it is done: whoever awaited it may have cancelled it.
///
/// # Errors
/// What its methods raise.
pub fn settle(waiter: &Bound<'_, PyAny>, error: Option<&PyErr>) -> PyResult<()> {
    let py = waiter.py();
    if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match error {
        Some(error) => waiter.call_method1(intern!(py, "set_exception"), (error.value(py),)),
        None => waiter.call_method1(intern!(py, "set_result"), (py.None(),)),
    }
    .map(drop)
}
