//! Socket addresses between Python and the kernel, without Python's `socket` in between.
//!
//! Only what is plain is converted here: numeric hosts, exact types, values in range. Everything else (names to
//! resolve, `<broadcast>`, scopes by name, other families, mistakes) is left to the socket's own methods, so that it
//! means, or raises, what it does there.
//!
//! The addresses met last, up to 64, are kept with their Python objects: whoever answers a datagram sends to the very
//! tuple that came with it, and most datagrams come from somebody who sent one before.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use socket2::SockAddr;

use crate::io::datagram::{self, Family, Name};
use crate::io::sys::address_bytes;

/// Addresses in a bucket.
const WAYS: usize = 8;

/// Buckets of an endpoint that has met more peers than one bucket holds.
const BUCKETS: usize = 8;

/// The addresses that an endpoint met last: one bucket, searched in order, until that is full; then several, by a hash
/// of the address's bytes.
#[derive(Debug, Default)]
pub struct Peers {
    /// Empty, or [`WAYS`] for each bucket.
    kept: Vec<Option<(SockAddr, Py<PyAny>)>>,
    /// Where the last one was found: mostly, it is the next one, too.
    last: usize,
    next: usize,
    /// By the address in memory of a Python object: where it may be.
    by_object: Vec<u8>,
}

/// Which of `count` places, a power of two.
#[inline]
fn place(words: impl Iterator<Item = u64>, count: usize) -> usize {
    // Fibonacci hashing: the upper bits are the mixed ones.
    let hash = words.fold(0u64, |hash, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    #[allow(clippy::cast_possible_truncation)] // 16 bits
    let hash = (hash >> 48) as usize;
    hash & (count - 1)
}

fn words(name: &[u8]) -> impl Iterator<Item = u64> + '_ {
    name.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    })
}

fn object_place(shown: *const pyo3::ffi::PyObject) -> usize {
    place(std::iter::once(shown.addr() as u64), WAYS * BUCKETS * 2)
}

impl Peers {
    /// Where the bucket begins that an address with these bytes belongs to.
    #[inline]
    fn bucket(&self, name: &[u8]) -> usize {
        let buckets = self.kept.len() / WAYS;
        if buckets > 1 { place(words(name), buckets) * WAYS } else { 0 }
    }

    /// The Python object of the address with these bytes.
    #[inline]
    pub fn shown(&mut self, name: &[u8]) -> Option<&Py<PyAny>> {
        let is = |kept: &Option<(SockAddr, _)>| kept.as_ref().is_some_and(|(at, _)| address_bytes(at) == name);
        if !self.kept.get(self.last).is_some_and(is) {
            let begin = self.bucket(name);
            self.last = begin + self.kept.get(begin..begin + WAYS)?.iter().position(is)?;
        }
        self.kept[self.last].as_ref().map(|(_, shown)| shown)
    }

    /// The address of this very object.
    #[inline]
    pub fn address(&mut self, shown: &Bound<'_, PyAny>) -> Option<&SockAddr> {
        let is = |kept: &Option<(_, Py<PyAny>)>| kept.as_ref().is_some_and(|(_, object)| object.is(shown));
        if !self.kept.get(self.last).is_some_and(is) {
            self.last = match self.by_object.get(object_place(shown.as_ptr())) {
                Some(&at) if self.kept.get(usize::from(at)).is_some_and(is) => usize::from(at),
                _ => self.kept.iter().position(is)?,
            };
        }
        self.kept[self.last].as_ref().map(|(address, _)| address)
    }

    /// Keeps one; gives back the one that leaves for it, to be dropped outside the caller's borrow.
    pub fn keep(&mut self, address: SockAddr, shown: Py<PyAny>) -> Option<(SockAddr, Py<PyAny>)> {
        match self.kept.len() {
            0 => self.kept.resize_with(WAYS, || None),
            WAYS if self.next == WAYS => self.grow(),
            _ => {}
        }
        let begin = self.bucket(address_bytes(&address));
        let bucket = &self.kept[begin..begin + WAYS];
        self.last = begin + bucket.iter().position(Option::is_none).unwrap_or(self.next % WAYS);
        self.next += 1;
        self.note(shown.as_ptr(), self.last);
        self.kept[self.last].replace((address, shown))
    }

    /// The only bucket is full: from now on there are several.
    fn grow(&mut self) {
        let met = std::mem::take(&mut self.kept);
        self.kept.resize_with(WAYS * BUCKETS, || None);
        self.by_object = vec![0; WAYS * BUCKETS * 2];
        for (address, shown) in met.into_iter().flatten() {
            // What was in one bucket fits into any.
            let begin = self.bucket(address_bytes(&address));
            let free = self.kept[begin..begin + WAYS].iter().position(Option::is_none).unwrap_or(0);
            self.note(shown.as_ptr(), begin + free);
            self.kept[begin + free] = Some((address, shown));
        }
    }

    fn note(&mut self, shown: *const pyo3::ffi::PyObject, at: usize) {
        if let (Some(place), Ok(at)) = (self.by_object.get_mut(object_place(shown)), u8::try_from(at)) {
            *place = at;
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.kept.iter().flatten().try_for_each(|(_, shown)| visit.call(shown))
    }
}

/// An address as Python's `socket` shows it.
///
/// # Errors
/// `MemoryError`.
pub fn to_python<'py>(py: Python<'py>, address: &SockAddr) -> PyResult<Bound<'py, PyAny>> {
    Ok(match datagram::name_of(address) {
        Name::Inet(ip, port) => (ip.to_string(), port).into_pyobject(py)?.into_any(),
        Name::Inet6(ip, port, flow, scope) => {
            (datagram::ipv6_text(ip), port, flow, scope).into_pyobject(py)?.into_any()
        }
        Name::Path(path) => OsStr::from_bytes(path).into_pyobject(py)?.into_any(),
        Name::Abstract(name) => PyBytes::new(py, name).into_any(),
        Name::Nobody | Name::Other => py.None().into_bound(py),
    })
}

/// A plain address of this family; `None` for what is left to Python's `socket`.
pub fn from_python(family: Family, address: &Bound<'_, PyAny>) -> Option<SockAddr> {
    match family {
        Family::Inet => {
            let (host, port, []) = host_and_port::<0>(address)?;
            datagram::inet(host.to_str().ok()?, port)
        }
        Family::Inet6 => {
            let (host, port, flow, scope) = match address.cast_exact::<PyTuple>().ok()?.len() {
                2 => host_and_port::<0>(address).map(|(host, port, [])| (host, port, 0, 0))?,
                3 => host_and_port::<1>(address).map(|(host, port, [flow])| (host, port, flow, 0))?,
                4 => host_and_port::<2>(address).map(|(host, port, [flow, scope])| (host, port, flow, scope))?,
                _ => return None,
            };
            datagram::inet6(host.to_str().ok()?, port, flow, scope)
        }
        Family::Unix => {
            // What the file system's encoding makes of other characters is Python's business.
            let path = address.cast_exact::<PyString>().ok()?.to_str().ok().filter(|path| path.is_ascii())?;
            datagram::unix(path.as_bytes())
        }
        Family::Other => None,
    }
}

/// A tuple of a host, a port and `N` more numbers.
fn host_and_port<'py, const N: usize>(address: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, u16, [u32; N])> {
    let tuple = address.cast_exact::<PyTuple>().ok().filter(|tuple| tuple.len() == 2 + N)?;
    let number = |at: usize| tuple.get_item(at).ok()?.cast_into_exact::<PyInt>().ok();
    let host = tuple.get_item(0).ok()?.cast_into_exact::<PyString>().ok()?;
    let port = number(1)?.extract().ok()?;
    let mut more = [0; N];
    for (at, place) in more.iter_mut().enumerate() {
        *place = number(2 + at)?.extract().ok()?;
    }
    Some((host, port, more))
}
