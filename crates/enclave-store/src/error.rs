//! What can go wrong.

use core::fmt;

/// Why a store does not do what was asked; `S` and `C` are the errors of its
/// [`Storage`](crate::Storage) and [`Counter`](crate::Counter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error<S, C> {
    /// The keeper of the files did not do its work.
    Storage(S),
    /// The counter did not answer, or did not advance.
    Counter(C),
    /// There is a store already.
    Exists,
    /// There is none.
    Missing,
    /// The files are not as this store has left them, or of another key or name.
    Damaged(Damage),
    /// The files are of an earlier time.
    RolledBack {
        /// Commits of which the files know.
        store: u64,
        /// Commits that were counted.
        counter: u64,
    },
    /// The counter has not counted commits of this store, or was turned back.
    NotCounted {
        /// Commits of which the files know.
        store: u64,
        /// Commits that were counted.
        counter: u64,
    },
    /// The files are of another copy, which went on by itself: its last commit was not counted.
    Forked {
        /// Commits, of the files and of the counter.
        number: u64,
    },
    /// A key, or a commit, exceeds the [`Limits`](crate::Limits).
    TooLarge,
    /// There would be more keys than the [`Limits`](crate::Limits) allow.
    Full,
    /// An earlier commit has failed half-way: open the store again to see which state it has.
    Broken,
}

/// What is wrong with files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// No head can be opened.
    Heads,
    /// The heads are of states that do not follow one another.
    HeadsDiffer,
    /// The log is shorter than the head says.
    Short,
    /// A record at this offset of the log.
    Record(u64),
    /// The records are whole, but not those that were committed.
    Log,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Heads => f.write_str("neither head can be opened with this key and name"),
            Self::HeadsDiffer => f.write_str("the heads are of different states"),
            Self::Short => f.write_str("the log is cut short"),
            Self::Record(at) => {
                write!(f, "the record at byte {at:#x} of the log is not what was written there")
            }
            Self::Log => f.write_str("the log is not the one of its head"),
        }
    }
}

impl<S: fmt::Display, C: fmt::Display> fmt::Display for Error<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => write!(f, "the store's files: {error}"),
            Self::Counter(error) => write!(f, "the store's counter: {error}"),
            Self::Exists => f.write_str("there is a store already: open it, or remove its files"),
            Self::Missing => f.write_str("there is no store: create one"),
            Self::Damaged(what) => write!(f, "the store was changed: {what}; take a copy that was not"),
            Self::RolledBack { store, counter } => write!(
                f,
                "the store is an old one: it has {store} commits, {counter} were counted; find the present one"
            ),
            Self::NotCounted { store, counter } => write!(
                f,
                "the store has {store} commits, {counter} were counted: ask the counter that belongs to it"
            ),
            Self::Forked { number } => write!(
                f,
                "the store is a copy that went on by itself: its commit {number} is not the one that was counted; \
                 find the store of that one"
            ),
            Self::TooLarge => {
                f.write_str("a key or commit exceeds the store's limits: raise them, or split it")
            }
            Self::Full => f.write_str("the store has as many keys as its limits allow: raise them"),
            Self::Broken => f.write_str("a commit has failed: open the store again"),
        }
    }
}

impl<S, C> core::error::Error for Error<S, C> where Self: fmt::Debug + fmt::Display {}
