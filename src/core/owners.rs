//! Whose registration a file descriptor has, where `sock_*` operations left it registered.
//!
//! Rule: a registration is that of a socket object, and of the file that its number named. The next operation of this
//! object finds it there, as long as the number names this file. Anybody else registers anew: a closed socket's number comes
//! back as another object's, and `dup2` puts another file under the same object. A file is known by its inode, which is free
//! again once the file is closed, so neither of the two says enough without the other.

use super::by_fd::ByFd;

/// A socket object, and the inode of its file; `None` where the number was closed already.
#[derive(Debug)]
pub struct Owner<S> {
    pub socket: S,
    pub inode: Option<u64>,
}

/// Whose fds are registered, by fd.
#[derive(Debug)]
pub struct Owners<S>(ByFd<Owner<S>>);

impl<S> Default for Owners<S> {
    fn default() -> Self {
        Self(ByFd::default())
    }
}

impl<S> Owners<S> {
    /// The registration of `fd` is that of the socket for which `is` holds and of the file of this inode.
    pub fn owns(&self, fd: u32, inode: Option<u64>, is: impl FnOnce(&S) -> bool) -> bool {
        self.0.at(fd).is_some_and(|owner| owner.inode == inode && is(&owner.socket))
    }

    /// The number names the file whose registration it is.
    #[must_use]
    pub fn is_same_file(&self, fd: u32, inode: Option<u64>) -> bool {
        inode.is_some() && self.owns(fd, inode, |_| true)
    }

    /// A registration is made for another one; gives back whose it was.
    pub fn insert(&mut self, fd: u32, owner: Owner<S>) -> Option<Owner<S>> {
        self.0.insert(fd, owner)
    }

    /// The registration is gone.
    pub fn remove(&mut self, fd: u32) -> Option<Owner<S>> {
        self.0.remove(fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_closed_names_no_file() {
        let mut owners = Owners::default();
        for (inode, same) in [(Some(5), true), (None, false)] {
            owners.insert(3, Owner { socket: "a", inode });
            assert_eq!(owners.is_same_file(3, inode), same);
            assert!(!owners.is_same_file(3, Some(6)) && !owners.is_same_file(4, inode));
        }
    }
}
