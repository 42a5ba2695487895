//! `kluis snapshot`.

use super::RunArgs;
use clap::{Subcommand, ValueHint};
use std::path::PathBuf;

pub(super) const SNAPSHOT_HELP: &str = "\
A snapshot is a machine on disk: memory, processors and devices, but not its disks, and
nothing of its enclaves. They are lost when a machine starts from it, as after a power
transition; their owners are told as on silicon, and can make them anew. Several
machines may start from one snapshot. It holds the guest's secrets: it is yours alone.

Examples:
  kluis snapshot take work.snap            of the machine that runs
  kluis run --snapshot work.snap           goes on from there
  kluis snapshot prepare --cpus 2 ready.snap
  kluis run --snapshot ready.snap -- nproc
  kluis run --warm -- uname                the same, kept in the cache";

/// What to do about snapshots.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take one of a machine that runs, which goes on
    Take {
        /// The file to write; refused if it exists
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// End the machine with it; needed if it has a disk that it may write
        #[arg(long)]
        stop: bool,
        /// Process number of the `kluis run` [default: the only one there is]
        #[arg(long, value_name = "PID")]
        vm: Option<u32>,
    },
    /// Boot a machine until it is ready for a command, and take one; options as of `run`
    Prepare {
        /// The file to write; refused if it exists
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The machine
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Tell what is in one, as far as it is no secret
    Inspect {
        /// The snapshot
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Compare all of one with its digests
    Verify {
        /// The snapshot
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}
