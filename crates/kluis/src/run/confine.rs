//! The walls around a machine's process ([`jail`]), and what is left inside.

use crate::control::Control;
use crate::exit::Error;
use jail::JailError;
use jail::calls::Calls;
use jail::files::{Files, Strength};

/// Confines this thread, and those it will start, to files that a machine may still
/// open: its own facts in `/proc`. Its socket's folder may lose the socket.
///
/// # Errors
/// The host has the means and refuses.
pub(super) fn files(control: Option<&Control>, quiet: bool) -> Result<(), Error> {
    let mut files = Files::none().read("/proc/self");
    if let Some(control) = control {
        files = files.names(control.folder());
    }
    if files.confine().map_err(Error::failed)? == Strength::None && !quiet {
        eprintln!(
            "kluis: this kernel has no Landlock: what keeps the machine's process from files is the \
             filter of system calls alone; see `kluis doctor`"
        );
    }
    jail::limits::confine().map_err(Error::failed)
}

/// Confines the process to the system calls of a machine.
///
/// # Errors
/// The kernel refuses the filter.
pub(super) fn calls(quiet: bool) -> Result<(), Error> {
    match Calls::default().confine() {
        Err(JailError::Unsupported) => {
            if !quiet {
                eprintln!(
                    "kluis: this kernel has no seccomp: the machine's process is not confined in its \
                     system calls; see `kluis doctor`"
                );
            }
            Ok(())
        }
        done => done.map_err(Error::failed),
    }
}
