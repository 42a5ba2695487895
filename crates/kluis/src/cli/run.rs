//! `kluis run`.

use super::{EXIT_CODES, ImageName};
use crate::{sizes, units};
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const RUN_EXAMPLES: &str = "\
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

pub(super) fn run_help() -> String {
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
  A Debian's apt uses the proxies of this host's apt; one that is on this host is let
  through as if allowed, unless --no-apt-proxy.

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
    /// Leave the guest's apt without the proxy that this host's apt has (--image debian)
    #[arg(long)]
    pub(crate) no_apt_proxy: bool,
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
    /// `,nowait`; `,64`: describe x86-64 in any mode (docs/debugging.md)
    #[arg(long, value_name = "[HOST:]PORT[,nowait][,64]", value_parser = units::gdb)]
    pub(crate) gdb: Option<units::Gdb>,
    /// Stop at the first instruction that Kluis does not know
    #[arg(long)]
    pub(crate) strict: bool,
    /// Command to run in the machine, and its arguments
    #[arg(last = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}
