//! The command line.

use crate::{sizes, units};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  kluis run                                a terminal in a Linux machine
  kluis run -- uname -srm                  one command in it
  tar c src | kluis run -- tar t           its streams are the command's
  kluis run --cpus 8 -- nproc              eight processors
  kluis run --size Standard_DC4s_v3        a machine of this Azure size
  kluis run --disk data.img,ro -- fdisk -l
  kluis run --image debian                 a terminal in a whole Debian
  kluis run --warm -- uname                from a prepared snapshot, without booting
  kluis sizes                              the sizes there are
  kluis platform show                      the processor package they are on
  kluis doctor                             can this host do it?";

const ENVIRONMENT: &str = "\
Environment:
  XDG_CACHE_HOME  the guest image is kept in its folder kluis (default ~/.cache)
  XDG_RUNTIME_DIR machines that run are found in its folder kluis (default: a
                  folder of yours among the temporary files)
  XDG_STATE_HOME  the platform is kept in its folder kluis/platform (default
                  ~/.local/state)
  KLUIS_PLATFORM  another folder for the platform, as --platform
  TERM            type of the terminal, told to the guest
  RUST_LOG        diagnostic messages on standard error, e.g. machine=debug
  NO_COLOR        no colours in help and messages";

const EXIT_CODES: &str = "\
Exit codes:
  0-255   of `run`: the guest command's own
  1-255   `run --debug-exit`: the odd number (V << 1) | 1 for V written to port 0xf4
  0       it worked; without a command, the machine was switched off
  1       `doctor`: `kluis run` cannot work here
  2       bad input: usage, size, kernel, disk, platform ...
  124     `run`: --timeout has passed
  125     Kluis or the machine failed
  126     `run`: the guest cannot execute the command
  127     `run`: the guest has no such command
  128+N   signal N ended the command, or Kluis itself
A command may use 2 and 124 to 127 for itself: `run --json` tells them apart.";

/// Linux machines whose processor is software: no KVM, no root, no SGX needed
#[derive(Debug, Parser)]
#[command(name = "kluis", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// Report as JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Folder of the platform, the processor's own secrets [default: kluis/platform in the
    /// user's state folder]
    #[arg(long, global = true, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) platform: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command, or a terminal, in a new Linux machine
    #[command(after_help = RUN_EXAMPLES, after_long_help = run_help())]
    Run(Box<RunArgs>),
    /// Images to run: a small userland, or a whole Debian on a disk
    #[command(subcommand, after_help = IMAGE_EXAMPLES)]
    Image(ImageCommand),
    /// The processor package that machines are on: its secrets, their backup
    #[command(subcommand, after_help = PLATFORM_EXAMPLES, after_long_help = platform_help())]
    Platform(PlatformCommand),
    /// Look at the enclaves of a machine that runs; never into them
    #[command(subcommand)]
    Sgx(SgxCommand),
    /// Take snapshots of machines, prepare some, look at them
    #[command(subcommand, after_help = SNAPSHOT_HELP)]
    Snapshot(SnapshotCommand),
    /// Drills on a machine that runs
    #[command(subcommand, after_help = DEBUG_HELP)]
    Debug(DebugCommand),
    /// Let a machine stand still: its processors, its devices, its time
    #[command(after_help = PAUSE_HELP)]
    Pause(Which),
    /// Let a paused machine go on
    Resume(Which),
    /// List the sizes of machines, and which this host can honour
    #[command(
        after_help = "Examples:\n  kluis sizes\n  kluis sizes --json | jq '.[] | select(.can_run).name'"
    )]
    Sizes,
    /// Tell what this host offers and what is missing
    #[command(after_help = "Exits with 1 if `kluis run` cannot work here.")]
    Doctor,
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  kluis completions bash > ~/.local/share/bash-completion/completions/kluis"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all pages to a folder
    #[command(after_help = "Examples:\n  kluis man | man -l -\n  kluis man --dir ~/.local/share/man/man1")]
    Man {
        /// Write kluis.1, kluis-run.1 ... to this folder
        #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
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

const PAUSE_HELP: &str = "\
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

const SNAPSHOT_HELP: &str = "\
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

const DEBUG_HELP: &str = "\
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

/// The images there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageName {
    /// A kernel and a small userland, all in memory
    #[default]
    Default,
    /// A whole Debian on a disk: apt, sshd, python3, gcc
    Debian,
}

impl From<ImageName> for image::Name {
    fn from(name: ImageName) -> Self {
        match name {
            ImageName::Default => Self::Default,
            ImageName::Debian => Self::Debian,
        }
    }
}

const IMAGE_EXAMPLES: &str = "\
Examples:
  kluis image build debian
  kluis image list
  kluis image show debian --json | jq '.manifest.packages | length'
  kluis image remove debian";

/// What to do with images.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build one from the packages that are current now
    ///
    /// Packages come through this machine's own apt configuration, without
    /// root; `kluis run` does the same on first use. The Debian image is set up
    /// in a Kluis machine: no package's program runs on this host.
    Build {
        /// Which
        #[arg(value_enum, default_value_t)]
        name: ImageName,
    },
    /// Tell what an image is made of, without building it
    Show {
        /// Which
        #[arg(value_enum, default_value_t)]
        name: ImageName,
    },
    /// List the images that are built, with the space they take
    List,
    /// Remove all builds of an image, and the packages kept for it
    ///
    /// Machines that run are not disturbed. An --overlay works only with the
    /// very build of the Debian image that it was made on.
    Remove {
        /// Which
        #[arg(value_enum)]
        name: ImageName,
    },
}

const PLATFORM_EXAMPLES: &str = "\
Examples:
  kluis platform init
  kluis platform show --json
  kluis platform backup ~/usb/kluis.backup
  kluis platform restore ~/usb/kluis.backup --passphrase-file words
  kluis platform update --svn-up
  kluis --platform ./second run            a machine on another package";

fn platform_help() -> String {
    format!(
        "{PLATFORM_EXAMPLES}\n\n\
A platform stands for one physical processor: the secrets that its maker would
burn into it, from which all keys of enclaves are derived. Here you are the maker.
`kluis run` makes one on first use.

  * Machines on one platform unseal each other's data, as on one processor;
    machines on another platform do not.
  * Whoever loses the folder loses all data sealed on it: make a backup.
  * Whoever reads the folder can derive every key: it is yours alone (mode 0700),
    and Kluis refuses one that is open to others.
  * It is software: it protects enclaves from the VM they are in, not from whoever
    controls the Kluis process, and it is not Intel's root.

Several machines may use a platform at once; it is changed only while none does."
    )
}

const UPDATE_HELP: &str = "\
--svn-up is what a microcode update is to a processor: enclaves can ask for keys of
the new version, which no processor of an earlier one can derive, and still for
those of earlier versions, so that they can take their data along.

--new-owner-epoch is what an owner does before giving the processor away: from then
on no key unseals what was sealed before. Only a backup made earlier brings it back.";

/// What to do with the platform.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    /// Make one, with secrets of its own; refused where one is
    Init,
    /// Tell which it is; never its secrets
    Show,
    /// Write it, encrypted with a passphrase, to a new file
    ///
    /// The file and the passphrase together *are* the platform: keep both, apart.
    /// A backup stays good when the security version goes up; after
    /// --new-owner-epoch a new one is needed.
    #[command(after_help = "Example:\n  kluis platform backup ~/usb/kluis.backup")]
    Backup {
        /// The file to write; refused if it exists
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        #[command(flatten)]
        passphrases: Passphrases,
    },
    /// Bring it back from a backup
    #[command(after_help = "Example:\n  kluis platform restore ~/usb/kluis.backup")]
    Restore {
        /// The file to read
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Replace the platform that is there; its file is kept beside the new one
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        passphrases: Passphrases,
    },
    /// Raise its security version, or change its owner epoch
    #[command(after_help = UPDATE_HELP)]
    Update(UpdateArgs),
}

/// Where a passphrase is from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Passphrases {
    /// Take the passphrase from this file's first line, instead of asking on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How to change the platform: one of these.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct UpdateArgs {
    /// Go to the next security version (SVN); there is no way back
    #[arg(long)]
    pub(crate) svn_up: bool,
    /// Change the owner epoch: all data sealed before is lost
    #[arg(long)]
    pub(crate) new_owner_epoch: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  kluis run
  kluis run -- sh -c 'uname -srm; exit 7'
  head -c 16M /dev/urandom | kluis run --quiet -- cat | sha256sum
  kluis run --size Standard_DC2s_v3 --timeout 5m -- make-something
  kluis run --size Standard_DC8s_v3 --memory 4G --epc 512M -- nproc
  kluis run --cpus 8 --memory 2G --stats -- nproc
  kluis run --publish 8080:80 -- httpd -f -h /etc
  kluis run --network none -- ip link
  kluis run --share .:/work -- make -C /work
  kluis run --share ~/data:/data:ro --vsock-listen 7000=/tmp/guest -- serve
  kluis run --image debian -- gcc --version
  kluis run --image debian --overlay work.overlay   a Debian that keeps what you do
  kluis run --kernel vmlinuz --initrd my.cpio --append 'root=/dev/vda' --disk root.img
  kluis run --kernel test.elf --append 'all' --debug-exit --timeout 1m";

fn run_help() -> String {
    format!(
        "{RUN_EXAMPLES}\n\n\
Terminal:
  Without a command a login shell runs on a terminal of its own. Ctrl-] is the
  escape: Ctrl-] q stops the machine, Ctrl-] ? lists the others.

Images:
  `default` is a few programs in memory. `debian` is a Debian with apt, sshd, python3
  and gcc on a disk (docs/debian.md); root may log in by ssh with the keys in your
  ~/.ssh/*.pub. The disk is shared by all machines: what one writes is its own.

Streams:
  A command's input, output and errors are carried apart and unchanged. SIGINT,
  SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to it; the same
  once more within 2 seconds stops the machine.

Shares:
  What the guest creates belongs to you, and your rights on the host hold; in the
  guest everything belongs to root. Symbolic links lead where they say in the guest,
  never out of the shared folder. --share needs Kluis's agent, as a command does;
  an own kernel mounts the first share by `mount -t virtiofs share0 FOLDER`.

Sockets:
  The guest is vsock address 3, the host 2. Of what the guest connects to on the
  host only the ports of --vsock are there.

Network:
  The guest is behind a NAT without root: it has 10.0.2.15 by DHCP, and reaches
  what this host reaches but this host itself. --allow-host 3128 lets it use one
  port here, as 10.0.2.2:3128. --publish 2222:22 lets programs here reach it, at
  127.0.0.1 unless another address is given; host port 0 is any that is free.

Own kernel:
  With --kernel or --initrd and no command, the first serial port is connected
  to the terminal. A command needs Kluis's agent in the initrd.

Images made for QEMU:
  --kernel takes multiboot 1 images as QEMU does, with modules in --initrd and
  arguments in --append. The first serial port is the terminal. The machine ends
  when the image switches it off (port 0x604), resets it, faults three times, or,
  with --debug-exit, writes its status to port 0xf4.

Debugger:
  With --gdb 127.0.0.1:1234 the machine waits before its first instruction for
  `gdb -ex 'target remote 127.0.0.1:1234'`. Whoever connects has full control of the
  machine, but for its enclaves; other hosts may not unless you add ,remote.

Memory:
  It is taken from the host only when the guest touches it: a machine may be
  given more than the host has. Of a --size, --memory and --epc can take less.

{}
{EXIT_CODES}",
        sizes::table()
    )
}

/// A machine and what to run in it.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Azure size of the machine (--help lists them) [default: Standard_DC1s_v2]
    #[arg(long, value_name = "NAME", conflicts_with = "cpus")]
    pub(crate) size: Option<String>,
    /// Number of processors, instead of a size
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) cpus: Option<usize>,
    /// Memory, e.g. 512M or 4G, instead of a size; with --size, less than it has
    #[arg(long, value_name = "SIZE", value_parser = units::memory)]
    pub(crate) memory: Option<u64>,
    /// Enclave page cache, e.g. 16M: less than the size or the model has
    #[arg(long, value_name = "SIZE", value_parser = units::memory)]
    pub(crate) epc: Option<u64>,
    /// Processor model: xeon-e-2288g or xeon-8370c [default: the size's]
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Image to run; debian is made on first use, which takes some minutes
    #[arg(long, value_name = "NAME", value_enum, default_value_t, conflicts_with_all = ["kernel", "initrd"])]
    pub(crate) image: ImageName,
    /// Keep what the machine writes to its image's disk in this file, for the next time;
    /// else it is gone at the end. Needs --image debian
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) overlay: Option<PathBuf>,
    /// Boot this kernel (bzImage, ELF) or multiboot image instead of the default image's
    /// kernel
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kernel: Option<PathBuf>,
    /// Use this initial RAM disk instead of the default image's; for a multiboot image, give
    /// it these modules: `FILE[ ARGUMENTS],...`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) initrd: Option<PathBuf>,
    /// Add this to the kernel command line (repeatable)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) append: Vec<String>,
    /// Attach a raw disk image as /dev/vda, /dev/vdb ...; `,ro`: read-only (repeatable)
    #[arg(long, value_name = "FILE[,ro]", value_parser = units::disk, value_hint = ValueHint::FilePath)]
    pub(crate) disk: Vec<machine::Disk>,
    /// Share a folder of the host at a path in the guest; `:ro`: read-only (repeatable)
    #[arg(long, value_name = "HOST:GUEST[:ro]", value_parser = units::share, value_hint = ValueHint::DirPath)]
    pub(crate) share: Vec<units::Share>,
    /// The guest's vsock connections to this port of the host go to a Unix socket (repeatable)
    #[arg(long, value_name = "PORT=SOCKET", value_parser = units::vsock)]
    pub(crate) vsock: Vec<(u32, PathBuf)>,
    /// Make a Unix socket; connections to it go to this vsock port of the guest (repeatable)
    #[arg(long, value_name = "PORT=SOCKET", value_parser = units::vsock)]
    pub(crate) vsock_listen: Vec<(u32, PathBuf)>,
    /// The guest's network: nat, or none
    #[arg(long, value_name = "KIND", default_value = "nat")]
    pub(crate) network: units::Network,
    /// Lead a port of this host to the guest: 2222:22, 0.0.0.0:8080:80, 5353:53/udp (repeatable)
    #[arg(long, value_name = "[ADDR:]HOST:GUEST[/udp]", value_parser = units::publish)]
    pub(crate) publish: Vec<net::Publish>,
    /// Let the guest reach ports of this host's loopback, as ports of 10.0.2.2 (repeatable)
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) allow_host: Vec<u16>,
    /// Stop the machine after this time, booting included: 500ms, 30s, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Give the command a terminal of its own
    #[arg(long, short = 't', requires = "command")]
    pub(crate) tty: bool,
    /// Show nothing but the command's own output, and errors
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Write the guest's kernel console to a file, or with - to standard error
    #[arg(long, value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    pub(crate) console: Option<PathBuf>,
    /// At the end tell times and instructions on standard error (--json: as JSON)
    #[arg(long)]
    pub(crate) stats: bool,
    /// Write a line for every SGX leaf to standard error or a file: sgx, sgx=FILE
    #[arg(long, value_name = "sgx[=FILE]", value_parser = units::trace)]
    pub(crate) trace: Option<units::Trace>,
    /// Start from a snapshot (`kluis snapshot`): the machine is as it was then
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["size", "cpus", "memory", "epc", "cpu", "kernel", "initrd", "append", "disk"])]
    pub(crate) snapshot: Option<PathBuf>,
    /// With --snapshot: start on another platform than that it was taken on
    #[arg(long, requires = "snapshot")]
    pub(crate) other_platform: bool,
    /// Start from a prepared snapshot of this machine, made on first use, instead of booting
    #[arg(long, conflicts_with_all = ["snapshot", "disk", "reboot"])]
    pub(crate) warm: bool,
    /// Start the machine again when the guest resets it, instead of ending; without a command
    #[arg(long, conflicts_with = "command")]
    pub(crate) reboot: bool,
    /// Let the guest end the machine by a write to port 0xf4: V makes (V << 1) | 1 the exit
    /// code, as with QEMU's isa-debug-exit
    #[arg(long, conflicts_with = "command")]
    pub(crate) debug_exit: bool,
    /// Add QEMU's pc-testdev, which test suites for hypervisors use
    #[arg(long)]
    pub(crate) test_device: bool,
    /// Serve gdb at this port, and wait for it before the first instruction unless
    /// `,nowait`: docs/debugging.md
    #[arg(long, value_name = "[HOST:]PORT[,nowait]", value_parser = units::gdb)]
    pub(crate) gdb: Option<units::Gdb>,
    /// Stop at the first instruction that Kluis does not know
    #[arg(long)]
    pub(crate) strict: bool,
    /// Command to run in the machine, and its arguments
    #[arg(last = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// Reads the command line; what clap cannot use ends the process with clap's
/// own words, bad values with a single line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args)
}

/// One line for an error about a value; `None` for other errors, which clap
/// tells better.
pub(crate) fn one_line(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ErrorKind};
    if !matches!(error.kind(), ErrorKind::ValueValidation) {
        return None;
    }
    let value = error.get(ContextKind::InvalidValue)?;
    let arg = error.get(ContextKind::InvalidArg)?.to_string();
    let arg = arg.split_whitespace().next().unwrap_or_default();
    let why = std::error::Error::source(error)?;
    // the system's own parsers write whole sentences, ours go on with the value
    Some(format!("{arg} {value} {why}"))
}

/// The command as clap sees it, for completions and manual pages.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &[&str]) -> Result<Cli, clap::Error> {
        parse(std::iter::once("kluis").chain(line.iter().copied()).map(OsString::from))
    }

    fn run(line: &[&str]) -> RunArgs {
        match of(line).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn command_is_what_follows_the_dashes() {
        let args = run(&["run", "--quiet", "--", "sh", "-c", "exit 7", "--quiet"]);
        assert!(args.quiet);
        assert_eq!(args.command, ["sh", "-c", "exit 7", "--quiet"]);
        assert!(run(&["run"]).command.is_empty());
        assert!(of(&["run", "uname"]).is_err());
    }

    #[test]
    fn json_goes_anywhere() {
        assert!(of(&["--json", "doctor"]).unwrap().json);
        assert!(of(&["doctor", "--json"]).unwrap().json);
        assert!(of(&["image", "show", "--json"]).unwrap().json);
        assert!(!of(&["run", "--", "x", "--json"]).unwrap().json);
    }

    #[test]
    fn a_size_excludes_a_shape_but_not_less_of_it() {
        let args = run(&["run", "--cpus", "8", "--memory", "2G"]);
        assert_eq!((args.cpus, args.memory), (Some(8), Some(2 << 30)));
        let e = of(&["run", "--size", "x", "--cpus", "2"]).unwrap_err();
        assert_eq!(e.kind(), clap::error::ErrorKind::ArgumentConflict);
        assert_eq!(e.exit_code(), 2);
        let args = run(&["run", "--size", "x", "--memory", "1G", "--epc", "16M"]);
        assert_eq!((args.memory, args.epc), (Some(1 << 30), Some(16 << 20)));
    }

    #[test]
    fn an_update_is_one_thing() {
        for wrong in [&[][..], &["--svn-up", "--new-owner-epoch"]] {
            assert_eq!(of(&[&["platform", "update"], wrong].concat()).unwrap_err().exit_code(), 2);
        }
        for right in ["--svn-up", "--new-owner-epoch"] {
            of(&["platform", "update", right]).unwrap();
        }
    }

    #[test]
    fn platform_folder_goes_anywhere() {
        for line in [&["--platform", "x", "run"][..], &["platform", "show", "--platform", "x"]] {
            assert_eq!(of(line).unwrap().platform.as_deref(), Some(std::path::Path::new("x")));
        }
    }

    #[test]
    fn repeated_options_keep_their_order() {
        let args = run(&["run", "--disk", "a,ro", "--disk", "b", "--append", "-x", "--append", "y z"]);
        let disks: Vec<_> = args.disk.iter().map(|d| (d.path.to_str().unwrap(), d.read_only)).collect();
        assert_eq!(disks, [("a", true), ("b", false)]);
        assert_eq!(args.append, ["-x", "y z"]);
    }

    #[test]
    fn bad_values_are_told_in_one_line() {
        for (line, text) in [
            (&["run", "--memory", "12"][..], "--memory 12 needs a unit: write 12M or 12G"),
            (
                &["run", "--timeout", "soon"],
                "--timeout soon is no duration: write it as 500ms, 30s, 5m or 1h",
            ),
            (&["run", "--disk", ",ro"], "--disk ,ro names no file: write it as FILE or FILE,ro"),
        ] {
            assert_eq!(one_line(&of(line).unwrap_err()).as_deref(), Some(text));
        }
        assert_eq!(one_line(&of(&["run", "--nonsense"]).unwrap_err()), None);
        let cpus = one_line(&of(&["run", "--cpus", "many"]).unwrap_err()).unwrap();
        assert!(cpus.starts_with("--cpus many"), "{cpus}");
    }

    #[test]
    fn help_teaches() {
        let help = definition().render_long_help().to_string();
        for text in ["Examples:", "Exit codes:", "XDG_CACHE_HOME", "RUST_LOG"] {
            assert!(help.contains(text), "{text} is not in\n{help}");
        }
        let mut command = definition();
        let help = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        for text in ["Ctrl-] q", "Standard_DC48ds_v3", "memory of SGX enclaves", "128+N"] {
            assert!(help.contains(text), "{text} is not in\n{help}");
        }
    }
}
