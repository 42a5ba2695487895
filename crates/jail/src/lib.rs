//! Confines the process that is a VM, so that a guest which finds a defect in a
//! device finds little else. Three walls, each useful alone:
//!
//! * [`files`]: which files can be opened (*landlock(7)*); before the first thread
//! * [`calls`]: which system calls exist (*seccomp(2)*); all threads, when the machine is made
//! * [`limits`]: core files, open files
//!
//! All are for ever: nothing in the process can take them down again, and no new
//! program can be started (*no_new_privs* besides).

#![forbid(unsafe_code)]

pub mod calls;
pub mod files;
pub mod limits;

/// Why a wall could not be built.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A rule for files.
    #[error("cannot confine the process to its files: {0}")]
    Files(String),
    /// The filter of system calls.
    #[error("cannot confine the process's system calls: {0}")]
    Calls(String),
    /// The kernel has no filters of system calls.
    #[error("this kernel has no seccomp filters")]
    Unsupported,
    /// A limit.
    #[error("cannot limit the process's {what}: {reason}")]
    Limit {
        /// What was to be limited.
        what: &'static str,
        /// What the host said.
        reason: std::io::Error,
    },
}
