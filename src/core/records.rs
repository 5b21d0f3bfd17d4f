//! The borders of TLS records in a stream of ciphertext, whose headers are in the clear (RFC 8446, section 5.1).
//!
//! Who knows that what is left is the beginning of a record only need not ask the engine for plaintext: with OpenSSL under
//! Python the answer "not yet" is an exception, which costs as much as decrypting a kilobyte.

/// Bytes of a record's header: its type, its version, its length.
const HEADER: usize = 5;

/// The longest body of a record, bytes: RFC 5246 allows more than RFC 8446 does.
const LONGEST: usize = (1 << 14) + 2048;

/// The longest record, bytes.
pub const RECORD_MAX: usize = HEADER + LONGEST;

/// `change_cipher_spec` to heartbeat: the types of records.
const TYPES: std::ops::RangeInclusive<u8> = 20..=24;

/// Follows a stream of records.
#[derive(Debug, Default)]
pub struct Records {
    header: [u8; HEADER],
    /// Bytes of the record under way that came.
    came: usize,
    /// Bytes of its body.
    body: usize,
    /// It is no TLS, or of a kind that is not known.
    strayed: bool,
}

impl Records {
    /// More of the stream came.
    pub fn handle_fed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.strayed {
            let taken = if self.came < HEADER {
                let n = bytes.len().min(HEADER - self.came);
                self.header[self.came..self.came + n].copy_from_slice(&bytes[..n]);
                if self.came + n == HEADER {
                    self.body = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    self.strayed = self.body > LONGEST || !TYPES.contains(&self.header[0]);
                }
                n
            } else {
                bytes.len().min(HEADER + self.body - self.came)
            };
            self.came += taken;
            if self.came >= HEADER && self.came == HEADER + self.body {
                self.came = 0;
            }
            bytes = &bytes[taken..];
        }
    }

    /// How many of the last bytes are of a record that is not whole; 0 where that is not known.
    #[must_use]
    pub fn tail(&self) -> usize {
        if self.strayed { 0 } else { self.came }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(body).expect("a record's length").to_be_bytes();
        let mut bytes = vec![23, 3, 3, high, low];
        bytes.resize(HEADER + body, 7);
        bytes
    }

    #[test]
    fn the_tail_is_what_came_since_the_last_whole_record_however_it_is_cut() {
        // The longest there is, but under Miri, which is slow.
        let long = if cfg!(miri) { 600 } else { 16_384 };
        let bodies = [0, 1, 300, long, 9];
        let stream: Vec<u8> = bodies.map(record).concat();
        let mut borders = vec![0];
        for body in bodies {
            borders.push(borders[borders.len() - 1] + HEADER + body);
        }
        for step in [1, 2, 3, 5, 7, 300, HEADER + long, stream.len()] {
            let mut records = Records::default();
            let mut fed = 0;
            for piece in stream.chunks(step) {
                records.handle_fed(piece);
                fed += piece.len();
                let last = borders.iter().rev().find(|border| **border <= fed).copied().unwrap_or_default();
                assert_eq!(records.tail(), fed - last, "{fed} bytes in steps of {step}");
            }
        }
    }

    #[test]
    fn a_body_of_2_to_the_14th_and_2048_bytes_is_the_longest() {
        assert_eq!(RECORD_MAX, 18_437);
        for (body, tail) in [(18_432_u16, 5), (18_433, 0)] {
            let [high, low] = body.to_be_bytes();
            let mut records = Records::default();
            records.handle_fed(&[23, 3, 3, high, low]);
            assert_eq!(records.tail(), tail, "{body}");
        }
    }

    #[test]
    fn what_is_no_tls_has_no_tail() {
        for garbage in [&b"GET / HTTP/1.1"[..], &[23, 3, 3, 255, 255, 0, 0], &[0; 64]] {
            let mut records = Records::default();
            records.handle_fed(garbage);
            assert_eq!(records.tail(), 0);
            records.handle_fed(&record(100)[..50]);
            assert_eq!(records.tail(), 0);
        }
    }
}
