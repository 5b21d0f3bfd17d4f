//! Instants on the loop's clock, in seconds, totally ordered.
//!
//! asyncio's clock is `time.monotonic()`: a float of seconds, and users hand floats to `call_at`. So the unit here is
//! the same double: a deadline is compared with the very number that `loop.time()` shows, never with a rounding of it.
//! That is what "never early" means to a program that asserts `loop.time() >= when` inside its callback.
//!
//! A double has values without an order. [`Time::from_secs`] removes them, so that [`Time`] can be `Ord`:
//! NaN becomes minus infinity (`_run_once` of `base_events.py` leaves its scan of the timers at `when >= end_time`, which NaN
//! never is: such a timer runs at the next turn) and minus zero becomes zero.

use std::cmp::Ordering;

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// An instant on a monotonic clock, in seconds. Never NaN, never minus zero.
#[derive(Clone, Copy, Debug)]
pub struct Time(f64);

impl Time {
    /// Before every instant: a deadline that has always passed.
    pub const PAST: Self = Self(f64::NEG_INFINITY);
    /// After every instant that a clock shows: a deadline that does not come.
    pub const NEVER: Self = Self(f64::INFINITY);

    /// The instant `secs`; NaN is [`Time::PAST`].
    #[inline]
    #[must_use]
    pub fn from_secs(secs: f64) -> Self {
        if secs.is_nan() {
            Self::PAST
        } else {
            // IEEE 754: -0.0 + 0.0 is +0.0, everything else stays what it was.
            Self(secs + 0.0)
        }
    }

    /// A reading of `CLOCK_MONOTONIC` as `time.monotonic()` rounds it: one division of the integer.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "CPython's _PyTime_AsSecondsDouble loses the same bits")]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos as f64 / NANOS)
    }

    /// A whole number of seconds, for constants.
    #[must_use]
    pub const fn at(secs: i32) -> Self {
        Self(secs as f64)
    }

    /// Seconds on the clock.
    #[inline]
    #[must_use]
    pub fn secs(self) -> f64 {
        self.0
    }

    /// Whether a deadline at `self` has come: at the instant itself, never before it.
    #[inline]
    #[must_use]
    pub fn is_due(self, now: Self) -> bool {
        self.0 <= now.0
    }

    /// Bits whose unsigned order is the order of the instants: lets a heap compare integers.
    #[inline]
    pub(super) fn order_bits(self) -> u64 {
        // Positive doubles order like their bits; negative ones in reverse, below all positive ones.
        let bits = self.0.to_bits();
        if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
    }

    /// The inverse of [`Time::order_bits`].
    #[inline]
    pub(super) fn from_order_bits(bits: u64) -> Self {
        Self(f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits }))
    }
}

// Without NaN and minus zero the doubles' own comparison is total.
impl PartialEq for Time {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_has_always_been_due_and_infinity_never_is() {
        assert_eq!(Time::from_secs(f64::NAN), Time::PAST);
        assert!(Time::from_secs(f64::NAN).is_due(Time::from_secs(-1e300)));
        assert!(!Time::NEVER.is_due(Time::from_secs(f64::MAX)));
    }

    #[test]
    fn both_zeros_are_the_same_instant() {
        assert_eq!(Time::from_secs(-0.0), Time::from_secs(0.0));
        assert_eq!(Time::from_secs(-0.0).order_bits(), Time::from_secs(0.0).order_bits());
    }

    #[test]
    fn order_bits_keep_the_order_and_come_back() {
        let instants = [f64::NEG_INFINITY, -1e300, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 1.0, 1e300, f64::INFINITY];
        for pair in instants.windows(2) {
            let (early, late) = (Time::from_secs(pair[0]), Time::from_secs(pair[1]));
            assert!(early < late && early.order_bits() < late.order_bits());
            assert_eq!(Time::from_order_bits(early.order_bits()), early);
        }
    }

    #[test]
    fn seconds_go_in_and_come_out() {
        assert_eq!(Time::from_nanos(1_500_000_000), Time::from_secs(1.5));
        assert_eq!(Time::from_secs(Time::at(3).secs()), Time::from_nanos(3_000_000_000));
    }

    #[test]
    fn a_deadline_is_due_at_its_instant_and_not_one_step_before() {
        let deadline = Time::from_nanos(1_234_567_890_123);
        assert!(deadline.is_due(deadline));
        assert!(!deadline.is_due(Time::from_secs(deadline.secs().next_down())));
    }
}
