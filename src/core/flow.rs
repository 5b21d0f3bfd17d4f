//! Write flow control: when a protocol is told to pause and to resume writing.
//!
//! Theory: two marks with hysteresis. The buffer growing *over* the high mark pauses the protocol once; the buffer
//! shrinking *to* the low mark resumes it once. So `pause_writing` and `resume_writing` strictly alternate, whatever is
//! written from inside them (asyncio `transports._FlowControlMixin`).

/// Asyncio's default high mark, bytes (`_FlowControlMixin._set_write_buffer_limits`).
pub const DEFAULT_HIGH: usize = 64 * 1024;

/// Limits that contradict each other: `low` is over `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsError {
    pub high: usize,
    pub low: usize,
}

/// The two marks and which side of them the protocol is on.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    high: usize,
    low: usize,
    paused: bool,
}

impl Default for Flow {
    fn default() -> Self {
        Self { high: DEFAULT_HIGH, low: DEFAULT_HIGH / 4, paused: false }
    }
}

impl Flow {
    /// The marks as `(low, high)`, bytes.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    #[must_use]
    pub fn high(&self) -> usize {
        self.high
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The protocol was paused by somebody else: it is to be resumed at the low mark all the same.
    pub fn inherit_pause(&mut self) {
        self.paused = true;
    }

    /// Sets the marks; a missing one follows the other: high = 4 * low, low = high / 4.
    ///
    /// # Errors
    /// [`LimitsError`] when low is over high; the marks stay as they were.
    pub fn set_limits(&mut self, high: Option<usize>, low: Option<usize>) -> Result<(), LimitsError> {
        let high = high.unwrap_or_else(|| low.map_or(DEFAULT_HIGH, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if low > high {
            return Err(LimitsError { high, low });
        }
        self.high = high;
        self.low = low;
        Ok(())
    }

    /// The buffer grew to `size`: true when the protocol is to be paused now.
    #[must_use]
    pub fn handle_grown(&mut self, size: usize) -> bool {
        let pause = !self.paused && size > self.high;
        self.paused |= pause;
        pause
    }

    /// The buffer shrank to `size`: true when the protocol is to be resumed now.
    #[must_use]
    pub fn handle_shrunk(&mut self, size: usize) -> bool {
        let resume = self.paused && size <= self.low;
        self.paused &= !resume;
        resume
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_over_high_and_resumes_at_low() {
        let mut flow = Flow::default();
        assert!(!flow.handle_grown(DEFAULT_HIGH));
        assert!(flow.handle_grown(DEFAULT_HIGH + 1));
        assert!(!flow.handle_grown(DEFAULT_HIGH + 2));
        assert!(!flow.handle_shrunk(DEFAULT_HIGH / 4 + 1));
        assert!(flow.handle_shrunk(DEFAULT_HIGH / 4));
        assert!(!flow.handle_shrunk(0));
    }

    #[test]
    fn a_missing_mark_follows_the_other() {
        let mut flow = Flow::default();
        assert_eq!(flow.set_limits(None, Some(100)), Ok(()));
        assert_eq!(flow.limits(), (100, 400));
        assert_eq!(flow.set_limits(Some(100), None), Ok(()));
        assert_eq!(flow.limits(), (25, 100));
        assert_eq!(flow.set_limits(Some(1), Some(2)), Err(LimitsError { high: 1, low: 2 }));
        assert_eq!(flow.limits(), (25, 100));
    }
}
