//! What was written and not yet sent: a queue of chunks and an offset into the first.
//!
//! Theory: chunks are kept as they came (no copy, no joining) and sent by vectored sends; only the front chunk can be
//! partly sent. `size` is the sum of what is left, kept as a number so that flow control never walks the queue.

use std::collections::VecDeque;

/// How many slices one vectored send takes at most: more writes of a turn are more sends. Linux allows 1024 (`IOV_MAX`).
pub const SLICES_MAX: usize = 64;

/// A queue of byte chunks.
#[derive(Debug)]
pub struct Outbox<C> {
    chunks: VecDeque<C>,
    /// Bytes of the front chunk that are sent already; always less than its length.
    offset: usize,
    size: usize,
}

impl<C> Default for Outbox<C> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), offset: 0, size: 0 }
    }
}

impl<C: AsRef<[u8]>> Outbox<C> {
    /// Bytes left to send.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Appends a chunk of which the first `sent` bytes went out already. A chunk with nothing left is dropped.
    pub fn push(&mut self, chunk: C, sent: usize) {
        let left = chunk.as_ref().len().saturating_sub(sent);
        if left == 0 {
            return;
        }
        if self.chunks.is_empty() {
            self.offset = sent;
        }
        debug_assert!(sent == 0 || self.chunks.is_empty(), "only the front chunk can be partly sent");
        self.size += left;
        self.chunks.push_back(chunk);
    }

    /// Puts a chunk, of which the first `sent` bytes went out already, before all others. None of these may be partly sent.
    pub fn push_front(&mut self, chunk: C, sent: usize) {
        debug_assert!(self.offset == 0, "only the front chunk can be partly sent");
        let left = chunk.as_ref().len().saturating_sub(sent);
        if left > 0 {
            self.size += left;
            self.offset = sent;
            self.chunks.push_front(chunk);
        }
    }

    /// The slices to send next, front first.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let offset = self.offset;
        self.chunks.iter().enumerate().map(move |(at, chunk)| {
            let bytes = chunk.as_ref();
            if at == 0 { bytes.get(offset..).unwrap_or_default() } else { bytes }
        })
    }

    /// `n` bytes went out. More than there were counts as all.
    pub fn advance(&mut self, n: usize) {
        let mut n = n.min(self.size);
        self.size -= n;
        while let Some(front) = self.chunks.front() {
            let left = front.as_ref().len() - self.offset;
            if n < left {
                self.offset += n;
                return;
            }
            n -= left;
            self.offset = 0;
            self.chunks.pop_front();
        }
        if self.chunks.capacity() > KEEP_CAPACITY {
            self.chunks.shrink_to(KEEP_CAPACITY);
        }
    }

    /// Empties the box; the caller drops the chunks outside its borrow.
    #[must_use]
    pub fn take(&mut self) -> VecDeque<C> {
        self.size = 0;
        self.offset = 0;
        std::mem::take(&mut self.chunks)
    }
}

/// An emptied queue keeps room for this many chunks, so that a burst leaves no memory behind.
const KEEP_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partly_sent_chunk_goes_on_where_it_stopped() {
        let mut outbox = Outbox::default();
        outbox.push(b"hello".to_vec(), 2);
        outbox.push(b"".to_vec(), 0);
        outbox.push(b"world".to_vec(), 0);
        assert_eq!(outbox.size(), 8);
        assert_eq!(outbox.slices().collect::<Vec<_>>(), [&b"llo"[..], b"world"]);
        outbox.advance(3);
        outbox.push_front(b"none".to_vec(), 4);
        outbox.push_front(b"and w".to_vec(), 3);
        assert_eq!(outbox.slices().collect::<Vec<_>>(), [&b" w"[..], b"world"]);
        outbox.advance(3);
        assert_eq!(outbox.slices().collect::<Vec<_>>(), [&b"orld"[..]]);
        outbox.advance(100);
        assert!(outbox.is_empty());
        assert_eq!(outbox.slices().count(), 0);
    }
}
