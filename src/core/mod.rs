//! The rules of an event loop as state machines. No clock, socket, lock, thread or Python: time is an argument, an
//! event is a method call, and what to do next is a returned step.

/// What the flags of a state machine's step can do. The flags are its own: constants of a tuple struct over a number.
macro_rules! step_flags {
    ($step:ident) => {
        impl $step {
            pub const NONE: Self = Self(0);

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
