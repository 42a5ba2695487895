//! Waiting for many sockets at once.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Sockets to wait for, each with a name of its owner's choice.
pub(crate) struct Interest<'a, T> {
    fds: Vec<PollFd<'a>>,
    names: Vec<T>,
}

impl<'a, T: Copy> Interest<'a, T> {
    pub(crate) fn new() -> Self {
        Self { fds: Vec::new(), names: Vec::new() }
    }

    /// Waits for `fd` too, if there is something to wait for.
    pub(crate) fn add(&mut self, name: T, fd: &'a impl AsFd, readable: bool, writable: bool) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, readable);
        flags.set(PollFlags::OUT, writable);
        if !flags.is_empty() {
            let fd: BorrowedFd<'a> = fd.as_fd();
            self.fds.push(PollFd::from_borrowed_fd(fd, flags));
            self.names.push(name);
        }
    }

    /// Waits until something happens or `timeout` has passed; the names of those
    /// to which it did. Errors and hang-ups count.
    pub(crate) fn wait(mut self, timeout: Option<Duration>) -> Vec<T> {
        // a day is as good as for ever
        let limit = timeout.map(|t| t.min(Duration::from_secs(86_400)));
        let limit =
            limit.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
        // an interrupted wait has seen nothing
        if poll(&mut self.fds, limit.as_ref()).is_err() {
            return Vec::new();
        }
        let happened = self.fds.iter().map(|fd| !fd.revents().is_empty());
        self.names.into_iter().zip(happened).filter_map(|(name, yes)| yes.then_some(name)).collect()
    }
}
