//! The command line.

mod image;
mod platform;
mod run;
mod running;
mod snapshot;

use clap::{CommandFactory, Parser, Subcommand, ValueHint};
use image::IMAGE_EXAMPLES;
pub(crate) use image::{ImageCommand, ImageName};
use platform::{PLATFORM_EXAMPLES, platform_help};
pub(crate) use platform::{Passphrases, PlatformCommand, UpdateArgs};
pub(crate) use run::RunArgs;
use run::{RUN_EXAMPLES, run_help};
use running::{DEBUG_HELP, PAUSE_HELP};
pub(crate) use running::{DebugCommand, SgxCommand, Which};
use snapshot::SNAPSHOT_HELP;
pub(crate) use snapshot::SnapshotCommand;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  kluis demo                               the whole story: an enclave that proves what it is
  kluis run                                a terminal in a Linux machine
  kluis run -- uname -srm                  one command in it
  tar c src | kluis run -- tar t           its streams are the command's
  kluis run --cpus 8 -- nproc              eight processors
  kluis run --size Standard_DC4s_v3        a machine of this Azure size
  kluis run --disk data.img,ro -- fdisk -l
  kluis run --image debian                 a terminal in a whole Debian
  kluis run --warm -- uname                from a prepared snapshot, without booting
  kluis enclave new hello                  a project of an enclave and its host program
  kluis attest verify quote.bin            is this quote to be believed?
  kluis serve collateral                   for verifiers of your platform's quotes
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
  1       `doctor`: `kluis run` cannot work here; `demo`: something did not hold
  2       bad input: usage, size, kernel, disk, platform ...
  10-22   `attest`: the quote is refused, and why
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
    /// Show what an enclave keeps, from whom, and how somebody far away can tell
    #[command(after_help = crate::demo::HELP)]
    Demo,
    /// Images to run: a small userland, or a whole Debian on a disk
    #[command(subcommand, after_help = IMAGE_EXAMPLES)]
    Image(ImageCommand),
    /// Enclaves of your own: make, build, sign, inspect, run and test them
    #[command(subcommand, after_help = crate::enclave::args::HELP)]
    Enclave(crate::enclave::args::EnclaveCommand),
    /// Quotes of enclaves: what they say, and whether to believe them
    #[command(subcommand, after_help = crate::attest::args::HELP)]
    Attest(crate::attest::args::AttestCommand),
    /// Services for those who verify quotes of your platform
    #[command(subcommand, after_help = crate::serve::args::HELP)]
    Serve(crate::serve::args::ServeCommand),
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
    /// List the machines that run
    #[command(after_help = "Examples:\n  kluis ps\n  kluis ps --json | jq '.[] | select(.paused).pid'")]
    Ps,
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
        for right in [&["--svn-up"][..], &["--new-owner-epoch"], &["--advisory", "KLUIS-SA-00001"]] {
            of(&[&["platform", "update"], right].concat()).unwrap();
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
