//! What the kernel says of errors on a datagram socket, and how far its word is taken.
//!
//! ```text
//!             an event of writing, without a wait for room
//!   trusted -----------------------------------------------> noted --(the next read asks)--> registered anew, trusted
//!      ^                                                       |
//!      |  the kernel had something to say                      | FRUITLESS_MAX times in a row there was nothing to be had
//!      '----------------------- distrusted <-------------------'
//! ```
//!
//! `EPOLLERR` alone is the end of writing to who watches the socket, so it is said once per registration, and the socket is
//! registered anew after each. Somebody else may take the errors, or nobody ever does (`IP_RECVERR`): asking would not end.

/// After so many errors in a row that were none, the kernel's word for errors is not taken any more.
const FRUITLESS_MAX: u8 = 8;

/// What is known of a socket's errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors {
    /// The socket is registered for writability, too: an event of writing need not be an error's.
    pub(super) for_write: bool,
    /// The kernel said that there is an error.
    noted: bool,
    /// How often in a row the kernel said so and there was none to be had.
    fruitless: u8,
}

impl Errors {
    /// The kernel's word for errors is taken.
    #[must_use]
    pub fn are_trusted(&self) -> bool {
        self.fruitless < FRUITLESS_MAX
    }

    /// An event of writing that nobody waits for: true when it is an error's.
    pub(super) fn handle_write_event(&mut self) -> bool {
        self.noted |= !self.for_write;
        !self.for_write
    }

    /// A read is about to ask the kernel: true when it asks for an error.
    pub(super) fn begin_read(&mut self) -> bool {
        std::mem::take(&mut self.noted)
    }

    /// The kernel had something to say: its word counts again. True when the socket is to be registered anew.
    pub(super) fn handle_found(&mut self) -> bool {
        std::mem::take(&mut self.fruitless) >= FRUITLESS_MAX && !self.for_write
    }

    /// A read has asked for an error; `found`: the kernel had something to say. True when the socket is to be registered anew.
    pub(super) fn handle_asked(&mut self, found: bool) -> bool {
        self.fruitless = if found { 0 } else { self.fruitless.saturating_add(1) };
        self.are_trusted() && !self.for_write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel says that there is an error, and a read asks for it. True when the socket is to be registered anew.
    fn ask(errors: &mut Errors, found: bool) -> bool {
        assert!(errors.handle_write_event() && errors.begin_read(), "an error is noted");
        assert!(!errors.begin_read(), "and asked for once");
        errors.handle_asked(found)
    }

    fn distrusted() -> Errors {
        let mut errors = Errors::default();
        assert_eq!([(); 9].map(|()| ask(&mut errors, false)).last(), Some(&false));
        errors
    }

    #[test]
    fn the_kernels_word_is_taken_until_it_was_wrong_eight_times_in_a_row() {
        let mut errors = Errors::default();
        let mut again = |found| (ask(&mut errors, found), errors.are_trusted());
        assert_eq!([false; 7].map(&mut again), [(true, true); 7]);
        assert_eq!(again(true), (true, true));
        assert_eq!([false; 7].map(&mut again), [(true, true); 7]);
        assert_eq!([false; 300].map(&mut again), [(false, false); 300]);
    }

    #[test]
    fn once_it_has_something_to_say_its_word_counts_again() {
        let mut errors = distrusted();
        assert!(errors.handle_found() && errors.are_trusted());
        assert!(!errors.handle_found(), "registered anew once");
        assert!(ask(&mut errors, false));
        assert!(!errors.handle_found(), "nor while it is trusted");
    }

    #[test]
    fn while_room_is_told_of_an_event_of_writing_is_no_error() {
        let mut errors = Errors { for_write: true, ..distrusted() };
        assert!(!errors.handle_write_event() && !errors.begin_read());
        assert!(!errors.handle_found(), "what waits for room is registered anew behind it");
        assert!(errors.are_trusted() && !errors.handle_asked(true));
    }
}
