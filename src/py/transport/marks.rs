//! The marks of flow control, as a user gives them.
//!
//! Asyncio takes whatever compares with numbers, and keeps it (`sslproto.add_flowcontrol_defaults`). A buffer's size is
//! a whole number, so the floor of a mark does the same.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::core::flow::LimitsError;

/// The marks `(high, low)`, bytes; a missing one follows the other, or `default`.
///
/// # Errors
/// `ValueError` unless `high >= low >= 0`, `TypeError` for what does not compare with numbers.
pub fn marks(
    py: Python<'_>,
    high: Option<&Bound<'_, PyAny>>,
    low: Option<&Bound<'_, PyAny>>,
    default: usize,
) -> PyResult<(usize, usize)> {
    let high = match (high, low) {
        (Some(high), _) => high.clone(),
        (None, Some(low)) => 4_i32.into_pyobject(py)?.mul(low)?,
        (None, None) => default.into_pyobject(py)?.into_any(),
    };
    let low = match low {
        Some(low) => low.clone(),
        None => high.floor_div(4)?,
    };
    if high.ge(&low)? && low.ge(0)? {
        return Ok((whole(&high)?, whole(&low)?));
    }
    let message = format!("high ({}) must be >= low ({}) must be >= 0", high.repr()?, low.repr()?);
    Err(PyValueError::new_err(message))
}

/// The same of marks that a machine refused; it has none that [`marks`] lets pass.
pub fn refused(error: LimitsError) -> PyErr {
    let LimitsError { high, low } = error;
    PyValueError::new_err(format!("high ({high}) must be >= low ({low}) must be >= 0"))
}

/// The whole number below one that is not negative; no buffer reaches what does not fit.
fn whole(mark: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = mark.py();
    let overflows =
        |error: PyErr| if error.is_instance_of::<PyOverflowError>(py) { Ok(usize::MAX) } else { Err(error) };
    match py.get_type::<PyInt>().call1((mark,)) {
        Ok(mark) => mark.extract().or_else(overflows),
        // Infinity.
        Err(error) => overflows(error),
    }
}
