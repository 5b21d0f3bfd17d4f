//! When a loop that is busy is to be reported: once it has been for longer than a limit, and again each time that this
//! has doubled, so that a loop that hangs for good is seen to, and fills no disk.
//!
//! A loop is busy *since* a moment, which moves with each look at I/O; as long as it does not, it is one and the same
//! hang.

use super::time::Time;

/// ```text
///              busy for longer than the limit: report
///           ┌──────────────────────────────────────────┐
///           │                                          ▼
///     ┌───────────┐                               ┌──────────┐ ─┐ busy for longer than
///     │ unnoticed │                               │ reported │  │ twice the last limit:
///     └───────────┘                               └──────────┘ ◀┘ report
///           ▲                                          │
///           └──────────────────────────────────────────┘
///              a look, a park, or the end of the run
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hang {
    since: Time,
    /// Seconds that the loop may go on until the next report.
    limit: f64,
}

impl Hang {
    /// A loop of which nothing is known.
    pub const UNNOTICED: Self = Self { since: Time::NEVER, limit: f64::INFINITY };

    /// The loop was looked at: it has been busy since then, if it is. Tells whether to report it, and after how many
    /// seconds it has to be looked at again. `busy` is the first limit, in seconds.
    pub fn poll(&mut self, since: Option<Time>, now: Time, busy: f64) -> (bool, f64) {
        let Some(since) = since else {
            *self = Self::UNNOTICED;
            return (false, busy);
        };
        if self.since != since {
            *self = Self { since, limit: busy };
        }
        let lasted = now.secs() - since.secs();
        let report = lasted > self.limit;
        while self.limit < lasted {
            self.limit *= 2.0;
        }
        // Another hang may begin meanwhile.
        (report, (self.limit - lasted).min(busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: f64) -> Time {
        Time::from_secs(secs)
    }

    #[test]
    fn a_hang_is_reported_when_it_is_longer_than_the_limit_and_each_time_it_has_doubled() {
        let mut hang = Hang::UNNOTICED;
        let reports = |hang: &mut Hang, seconds: u32| {
            let polls = 1..=seconds * 10;
            polls
                .filter(|tenth| hang.poll(Some(at(5.0)), at(5.0 + f64::from(*tenth) / 10.0), 2.0).0)
                .collect::<Vec<_>>()
        };
        assert_eq!(reports(&mut hang, 40), [21, 41, 81, 161, 321]);
        // Seen late, it is reported once.
        assert_eq!(hang.poll(Some(at(50.0)), at(150.0), 2.0), (true, 2.0));
    }

    #[test]
    fn a_look_a_park_and_the_end_of_a_run_begin_anew() {
        for other in [None, Some(at(9.0))] {
            let mut hang = Hang::UNNOTICED;
            assert!(hang.poll(Some(at(0.0)), at(3.0), 2.0).0);
            assert!(!hang.poll(Some(at(0.0)), at(3.1), 2.0).0);
            assert!(!hang.poll(other, at(9.5), 2.0).0);
            assert!(hang.poll(Some(at(10.0)), at(13.0), 2.0).0);
        }
    }

    #[test]
    fn it_is_looked_at_again_when_the_limit_comes_and_never_later_than_a_hang_can_be_seen() {
        let mut hang = Hang::UNNOTICED;
        assert_eq!(hang.poll(None, at(0.0), 2.0), (false, 2.0));
        assert_eq!(hang.poll(Some(at(1.0)), at(1.5), 2.0), (false, 1.5));
        assert_eq!(hang.poll(Some(at(1.0)), at(3.0), 2.0), (false, 0.0));
        assert_eq!(hang.poll(Some(at(1.0)), at(3.5), 2.0), (true, 1.5));
        assert_eq!(hang.poll(Some(at(1.0)), at(6.0), 2.0), (true, 2.0));
    }

    #[test]
    fn whatever_is_seen_the_wait_is_between_none_and_the_limit() {
        let mut hang = Hang::UNNOTICED;
        let moments = [Time::PAST, Time::NEVER, at(-1.0), at(0.0), at(1e-9), at(3.0), at(1e15)];
        for since in moments.map(Some).into_iter().chain([None]) {
            for now in [0.0, 1.0, 1e9].map(at) {
                let (_, wait) = hang.poll(since, now, 0.5);
                assert!((0.0..=0.5).contains(&wait), "{since:?} {now:?} {wait}");
            }
        }
    }
}
