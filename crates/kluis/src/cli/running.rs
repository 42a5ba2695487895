//! Commands about a machine that runs.

use crate::units;
use clap::{Args, Subcommand};

pub(super) const PAUSE_HELP: &str = "\
The machine's monotonic time goes on from where it stood, as if nothing had been; its
hardware clock shows the true time, so that `hwclock --hctosys` in the guest sets the
system's. --timeout of the run goes on meanwhile.

Examples:
  kluis pause
  kluis resume --vm 4711";

/// Which machine is meant.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Which {
    /// Process number of the `kluis run` [default: the only one there is]
    #[arg(long, value_name = "PID")]
    pub(crate) vm: Option<u32>,
}

/// What to see of a machine's enclaves.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum SgxCommand {
    /// Tell who owns the EPC, what is known of each enclave, and count leaves and exits
    #[command(after_help = "Example:\n  kluis sgx inspect --json | jq '.enclaves[].mrenclave'")]
    Inspect {
        /// Process number of the `kluis run` [default: the only one there is]
        #[arg(long, value_name = "PID")]
        vm: Option<u32>,
    },
}

pub(super) const DEBUG_HELP: &str = "\
The EPC lies encrypted in ordinary memory. epc-tamper does what an attacker with the
memory bus in hands does: flip a bit, move a page's ciphertext to another place, replay
an older state, or change the integrity tree. The next fetch finds it: the machine has
then lost its EPC until it is reset, as after a power transition (epc-loss), and gets a
machine check where it has enabled them. It keeps running without enclaves.

Examples:
  kluis debug epc-tamper replay
  kluis debug epc-loss --vm 4711
  kluis debug bus 0x140000000 64";

/// What to do to a machine.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Tamper with the memory of the EPC: flip, move, replay or tree
    EpcTamper {
        /// What to do to it
        #[arg(value_name = "DRILL")]
        drill: mee::Drill,
        /// EPC page, counted from 0 [default: the first regular page of an enclave]
        #[arg(long, value_name = "PAGE")]
        page: Option<u32>,
        /// Process number of the `kluis run` [default: the only one there is]
        #[arg(long, value_name = "PID")]
        vm: Option<u32>,
    },
    /// Lose the content of the EPC, as by a power transition
    EpcLoss {
        /// Process number of the `kluis run` [default: the only one there is]
        #[arg(long, value_name = "PID")]
        vm: Option<u32>,
    },
    /// Show what a bus master (a device) reads: memory, and ones for the EPC
    Bus {
        /// Physical address, e.g. 0x140000000
        #[arg(value_parser = units::address)]
        address: u64,
        /// Bytes, up to 1 MiB
        #[arg(default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        length: u32,
        /// Process number of the `kluis run` [default: the only one there is]
        #[arg(long, value_name = "PID")]
        vm: Option<u32>,
    },
}
