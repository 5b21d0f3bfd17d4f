//! What ended a connection.
//!
//! A machine carries only this small value; whoever speaks Python turns it into the argument of `connection_lost`:
//!
//! | fault    | `connection_lost` receives                | reported to the exception handler                 |
//! |----------|-------------------------------------------|---------------------------------------------------|
//! | `Closed` | `None`                                    | no                                                |
//! | `Os`     | the `OSError` of the errno                | as asyncio's `_fatal_error`: only if not a reset,  |
//! |          |                                           | an abort, a broken pipe, ... of the connection    |
//! | `User`   | the exception, which the caller has kept  | yes                                               |
//! | `Panic`  | a `RuntimeError`                          | yes                                               |

/// What ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing broke it: it was closed, aborted, or ended by its peer in order.
    Closed,
    /// The kernel reported this errno.
    Os(i32),
    /// Code of the user raised. The exception stays with the caller.
    User,
    /// A bug of ours, caught before it could unwind into Python.
    Panic,
}

impl Fault {
    /// Whether `connection_lost` receives an exception.
    #[inline]
    #[must_use]
    pub fn is_error(self) -> bool {
        !matches!(self, Self::Closed)
    }

    /// The errno, where the kernel gave one.
    #[inline]
    #[must_use]
    pub fn errno(self) -> Option<i32> {
        match self {
            Self::Os(errno) => Some(errno),
            Self::Closed | Self::User | Self::Panic => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_orderly_end_is_no_error() {
        assert!(!Fault::Closed.is_error());
        assert!(Fault::Os(104).is_error() && Fault::User.is_error() && Fault::Panic.is_error());
    }

    #[test]
    fn a_fault_fits_a_register_and_names_its_errno() {
        assert!(size_of::<Fault>() <= 8);
        assert_eq!((Fault::Os(104).errno(), Fault::User.errno()), (Some(104), None));
    }
}
