//! Drives `core::interest`: how a change reaches the kernel, and how a `sock_*` operation comes to wait.
//!
//! All of it happens within one borrow of the table. What is to be dropped, or told, is given back.

use crate::core::interest::{Change, Dir, Interest, Keep, WaitKey};
use crate::core::owners::{Owner, Owners};

/// What it means that the kernel refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// EBADF: the number is closed.
    Closed,
    /// ENOENT, EPERM: it names another file than the one that was registered, if one was.
    Reborn,
    /// Any other errno.
    Other,
}

/// The kernel's set of a loop's user fds.
pub trait Kernel {
    type Error;

    /// Carries out a change.
    ///
    /// # Errors
    /// The kernel's.
    fn control(&mut self, fd: u32, generation: u32, change: Change) -> Result<(), Self::Error>;

    fn refusal(error: &Self::Error) -> Refusal;
}

/// The loop's table of user fds. `W` is who is told.
pub trait Table<W> {
    type Socket;
    type Error;

    fn interest(&mut self) -> &mut Interest<W>;

    fn owners(&mut self) -> &mut Owners<Self::Socket>;

    /// Does what [`settle`] does.
    ///
    /// # Errors
    /// As [`settle`].
    fn settle(&mut self, fd: u32, change: Change, keep: Keep) -> (Result<(), Self::Error>, Vec<W>);
}

/// Carries out a change of a user fd's registration, and finds out whether the fd still names the file that was
/// registered. If not, whoever waited for the old file is forgotten and given back, to be cancelled; `keep` says for
/// whom the change was made.
///
/// # Errors
/// The kernel's, if the change was for somebody; the table is as if it had not been asked for.
pub fn settle<W, K: Kernel>(
    interest: &mut Interest<W>,
    kernel: &mut K,
    fd: u32,
    change: Change,
    keep: Keep,
) -> (Result<(), K::Error>, Vec<W>) {
    if change == Change::Keep {
        return (Ok(()), Vec::new());
    }
    let mut stale = Vec::new();
    let mut control = |interest: &Interest<W>, change| {
        let generation = interest.generation(fd).unwrap_or(0);
        let result = if change == Change::Keep { Ok(()) } else { kernel.control(fd, generation, change) };
        let refusal = result.as_ref().err().map(K::refusal);
        (result, refusal)
    };
    let (mut result, mut refusal) = control(interest, change);
    // What was registered could be polled: if it cannot, it is another file, too.
    if matches!(change, Change::Modify(_)) && refusal == Some(Refusal::Reborn) {
        let change;
        (change, stale) = interest.handle_reborn(fd, keep);
        (result, refusal) = control(interest, change);
    }
    match (refusal, keep) {
        (None, _) => {}
        // Closed: nobody waits for anything.
        (Some(Refusal::Closed), _) | (_, Keep::Operation) => stale.extend(interest.forget(fd)),
        (_, Keep::Watcher(dir)) => stale.extend(interest.handle_refused(fd, dir)),
        (_, Keep::Nobody) => {}
    }
    if keep == Keep::Nobody {
        result = Ok(());
    }
    (result, stale)
}

/// What became of a wait.
#[derive(Debug)]
pub struct Waiting<W, S, E> {
    pub result: Result<WaitKey, E>,
    /// Who waited for a file that is gone.
    pub stale: Vec<W>,
    /// To be dropped outside the borrow.
    pub dropped: (Vec<Owner<S>>, Option<W>),
}

/// An operation waits for `fd`. `newcomer`: its socket, unless [`Owners::owns`] knows that as the registration's.
pub fn wait<W, T: Table<W>>(
    table: &mut T,
    fd: u32,
    dir: Dir,
    waiter: W,
    newcomer: Option<Owner<T::Socket>>,
) -> Waiting<W, T::Socket, T::Error> {
    let (mut stale, mut owners, mut refused) = (Vec::new(), Vec::new(), None);
    let mut result = Ok(());
    if let Some(owner) = newcomer {
        owners.extend(table.owners().insert(fd, owner));
        let change = table.interest().attach(fd);
        (result, stale) = table.settle(fd, change, Keep::Operation);
    }
    let (change, key) = table.interest().wait(fd, dir, waiter);
    if result.is_ok() {
        let gone;
        (result, gone) = table.settle(fd, change, Keep::Operation);
        stale.extend(gone);
    }
    if result.is_err() {
        refused = table.interest().unwait(key).1;
        owners.extend(table.owners().remove(fd));
        stale.extend(table.interest().forget(fd));
    }
    Waiting { result: result.map(|()| key), stale, dropped: (owners, refused) }
}

/// An operation waits no longer: itself, unless it was told, and who waited for a file that is gone.
pub fn unwait<W, T: Table<W>>(table: &mut T, key: WaitKey) -> (Option<W>, Vec<W>) {
    let (change, waiter) = table.interest().unwait(key);
    // The socket may be closed by now; nobody is there to be told.
    let (_nobody, stale) = table.settle(key.fd, change, Keep::Nobody);
    (waiter, stale)
}
