//! Futures that somebody awaits.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::loop_core::LoopCore;

/// A new future of the loop.
///
/// # Errors
/// `AttributeError` when it has none; what the class raises.
pub fn future_of<'py>(slf: &Bound<'py, LoopCore>) -> PyResult<Bound<'py, PyAny>> {
    static FUTURES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let py = slf.py();
    // Looked up each time, as asyncio does: programs put another class in its place.
    let futures = FUTURES.get_or_try_init(py, || py.import("asyncio.futures").map(|module| module.dict().unbind()))?;
    let name = intern!(py, "Future");
    let Some(class) = futures.bind(py).get_item(name)? else {
        return Err(PyAttributeError::new_err("module 'asyncio.futures' has no attribute 'Future'"));
    };
    let kwargs = slf.get().future_kwargs.with(py, |kwargs| kwargs.as_ref().map(|kwargs| kwargs.clone_ref(py)));
    let kwargs = if let Some(kwargs) = kwargs {
        kwargs.into_bound(py)
    } else {
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "loop"), slf)?;
        drop(slf.get().future_kwargs.replace(py, Some(kwargs.clone().unbind())));
        kwargs
    };
    class.call((), Some(&kwargs))
}

/// Gives a future its result, or an exception, unless it is done: who awaited it may have cancelled it.
///
/// # Errors
/// What its methods raise.
pub fn resolve(waiter: &Bound<'_, PyAny>, error: Option<&PyErr>) -> PyResult<()> {
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
