//! The rules of an event loop as state machines. No clock, socket, lock, thread or Python: time is an argument, an
//! event is a method call, and what to do next is a returned step.

/// The step of a state machine: flags, each with a bit of its own, in the order in which they are carried out.
macro_rules! step_flags {
    ($(#[$meta:meta])* $step:ident($bits:ty) { $($flags:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[must_use]
        pub struct $step($bits);

        impl $step {
            pub const NONE: Self = Self(0);
            step_flags!(@ 1; $($flags)*);

            #[must_use]
            pub fn has(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            #[must_use]
            pub fn is_none(self) -> bool {
                self.0 == 0
            }

            pub(super) fn when(self, condition: bool) -> Self {
                if condition { self } else { Self::NONE }
            }
        }

        impl std::ops::BitOr for $step {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
    // A bit too many overflows the number, which does not compile.
    (@ $bit:expr; $(#[$doc:meta])* $flag:ident, $($flags:tt)*) => {
        $(#[$doc])*
        pub const $flag: Self = Self($bit);
        step_flags!(@ $bit * 2; $($flags)*);
    };
    (@ $bit:expr;) => {};
}

pub mod accept;
pub mod by_fd;
pub mod coalesce;
pub mod datagram;
pub mod drive;
pub mod fault;
pub mod flow;
pub mod hang;
pub mod interest;
pub mod outbox;
pub mod owners;
pub mod ready;
pub mod records;
pub mod sockop;
pub mod stream;
pub mod time;
pub mod timers;
pub mod tls;
pub mod turn;
