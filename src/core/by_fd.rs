//! A table by file descriptor.
//!
//! The kernel gives out the lowest free number, so most are small and dense, and index a vector. But a user may name any
//! number, of a file or of none: those from [`DENSE`] on live in a tree, so that no number sizes memory.

use std::collections::BTreeMap;

/// Numbers below this one index the vector: 128 KiB of pointers at most. Miri, which is slow, has fewer.
pub const DENSE: u32 = if cfg!(miri) { 1 << 8 } else { 1 << 14 };

/// Values by fd.
#[derive(Clone, Debug)]
pub struct ByFd<T> {
    low: Vec<Option<T>>,
    high: BTreeMap<u32, T>,
}

impl<T> Default for ByFd<T> {
    fn default() -> Self {
        Self { low: Vec::new(), high: BTreeMap::new() }
    }
}

impl<T> ByFd<T> {
    #[inline]
    #[must_use]
    pub fn at(&self, fd: u32) -> Option<&T> {
        if fd < DENSE { self.low.get(fd as usize)?.as_ref() } else { self.high.get(&fd) }
    }

    #[inline]
    pub fn at_mut(&mut self, fd: u32) -> Option<&mut T> {
        if fd < DENSE { self.low.get_mut(fd as usize)?.as_mut() } else { self.high.get_mut(&fd) }
    }

    /// What is there, or `new()`, which is then there.
    #[inline]
    pub fn at_or_insert_with(&mut self, fd: u32, new: impl FnOnce() -> T) -> &mut T {
        if fd >= DENSE {
            return self.high.entry(fd).or_insert_with(new);
        }
        self.grow(fd);
        self.low[fd as usize].get_or_insert_with(new)
    }

    /// Puts `value` in; gives back what was there.
    pub fn insert(&mut self, fd: u32, value: T) -> Option<T> {
        if fd >= DENSE {
            return self.high.insert(fd, value);
        }
        self.grow(fd);
        self.low[fd as usize].replace(value)
    }

    pub fn remove(&mut self, fd: u32) -> Option<T> {
        if fd < DENSE { self.low.get_mut(fd as usize)?.take() } else { self.high.remove(&fd) }
    }

    /// What is in the table, by its fds in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let low = (0..).zip(&self.low).filter_map(|(fd, value)| Some((fd, value.as_ref()?)));
        low.chain(self.high.iter().map(|(fd, value)| (*fd, value)))
    }

    /// How many values there is memory for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.low.capacity() + self.high.len()
    }

    fn grow(&mut self, fd: u32) {
        if self.low.len() <= fd as usize {
            self.low.resize_with(fd as usize + 1, || None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_whatever_the_numbers() {
        let mut table = ByFd::default();
        let fds = [0, 7, DENSE - 1, DENSE, 1 << 30, u32::MAX];
        for (n, fd) in fds.into_iter().enumerate() {
            assert_eq!(table.at(fd), None);
            assert_eq!(*table.at_or_insert_with(fd, || n), n);
            assert_eq!(*table.at_or_insert_with(fd, || 99), n, "what is there stays");
            assert_eq!(table.at(fd), Some(&n));
        }
        assert_eq!(table.iter().map(|(fd, _)| fd).collect::<Vec<_>>(), fds);
        for (n, fd) in fds.into_iter().enumerate() {
            assert_eq!(table.insert(fd, n + 10), Some(n));
            assert_eq!(table.at_mut(fd), Some(&mut (n + 10)));
            assert_eq!(table.remove(fd), Some(n + 10));
            assert_eq!(table.remove(fd), None);
        }
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn no_number_sizes_memory() {
        let mut table = ByFd::default();
        for fd in [u32::MAX, 1 << 30, 100_000_000, DENSE, DENSE - 1] {
            table.insert(fd, [0_u8; 64]);
            table.remove(fd);
        }
        assert!(table.room() <= DENSE as usize, "room for {}", table.room());
    }

    #[test]
    fn its_room_is_told() {
        let mut table = ByFd::default();
        table.insert(99, ());
        assert!(table.room() >= 100);
        let low = table.room();
        table.insert(u32::MAX, ());
        assert_eq!(table.room(), low + 1);
    }
}
