//! The walls around a machine's process ([`jail`]), and what is left inside.

use super::plan::Plan;
use crate::control::Control;
use crate::exit::Error;
use jail::JailError;
use jail::calls::Calls;
use jail::files::{Files, Strength};
use jail::limits;

/// Confines this thread, and those it will start, to files that a machine may still
/// open: its own facts in `/proc`, and what is in shared folders. Its socket's folder may
/// lose the socket.
///
/// # Errors
/// The host has the means and refuses.
pub(super) fn files(plan: &Plan, control: Option<&Control>, quiet: bool) -> Result<(), Error> {
    let mut files = Files::none().read("/proc/self");
    for share in &plan.shares {
        files = if share.read_only { files.read(&share.path) } else { files.write(&share.path) };
    }
    if let Some(control) = control {
        files = files.names(control.folder());
    }
    if files.confine().map_err(Error::failed)? == Strength::None && !quiet {
        eprintln!(
            "kluis: this kernel has no Landlock: what keeps the machine's process from files is the \
             filter of system calls alone; see `kluis doctor`"
        );
    }
    let open_files = if plan.shares.is_empty() { limits::OPEN_FILES } else { share::MOST_DESCRIPTORS };
    limits::confine(open_files).map_err(Error::failed)
}

/// Confines the process to the system calls of a machine, and these.
///
/// # Errors
/// The kernel refuses the filter.
pub(super) fn calls(plan: &Plan, quiet: bool) -> Result<(), Error> {
    let calls = Calls {
        files: !plan.shares.is_empty(),
        unix: !plan.vsock.is_empty(),
        internet: plan.network.is_some(),
    };
    match calls.confine() {
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
