//! The command `kluis`: Linux machines whose processor is software.
//!
//! * [`cli`]: the command line; [`units`], [`sizes`]: what is written there
//! * [`run`]: `kluis run`; [`image`]: `kluis image`; [`doctor`]: `kluis doctor`
//! * [`platform`](mod@platform): `kluis platform`, its [`passphrase`]s
//! * [`ps`]: `kluis ps`
//! * [`sgx`](mod@sgx), [`debug`](mod@debug): `kluis sgx` and `kluis debug`, by way of [`control`]
//! * [`snapshot`]: `kluis snapshot`, and what `run` starts from
//! * [`debian`]: the Debian image in use; [`apt_proxy`]: what its apt goes through
//! * [`transfer`]: progress of what takes time
//! * [`docs`]: completions and manual pages
//! * [`enclave`]: `kluis enclave`
//! * [`attest`]: `kluis attest`; [`serve`]: `kluis serve`
//! * [`demo`]: `kluis demo`
//! * [`exit`]: exit codes and errors; [`host`]: facts about the host;
//!   [`capacity`]: whether it can honour a machine; [`leave_out`]: checks that tests take out
#![forbid(unsafe_code)]

mod apt_proxy;
mod attest;
mod capacity;
mod cli;
mod control;
mod debian;
mod debug;
mod demo;
mod docs;
mod doctor;
mod enclave;
mod exit;
mod host;
mod image;
mod leave_out;
mod passphrase;
mod platform;
mod ps;
mod run;
mod serve;
mod sgx;
mod sizes;
mod snapshot;
mod transfer;
mod units;
mod whole;

use cli::{Cli, Command};
use control::Ask;
use exit::Error;
use serde::Serialize;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    if let Some(code) = run::sweep::if_asked() {
        return code;
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => return refuse(&e),
    };
    start_log(&cli);
    leave_out::plant();
    let done = match &cli.command {
        Command::Run(args) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|platform| run::main(args, &platform, cli.json)),
        Command::Demo => crate::platform::folder(cli.platform.as_deref())
            .and_then(|platform| demo::main(&platform, cli.json)),
        Command::Image(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|platform| image::main(*command, &platform, cli.json)),
        Command::Enclave(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|dir| enclave::main(command, &dir, cli.json)),
        Command::Attest(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|dir| attest::main(command, &dir, cli.json)),
        Command::Serve(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|dir| serve::main(command, &dir, cli.json)),
        Command::Platform(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|dir| crate::platform::main(command, &dir, cli.json)),
        Command::Sgx(command) => crate::sgx::main(command, cli.json),
        Command::Snapshot(command) => crate::platform::folder(cli.platform.as_deref())
            .and_then(|dir| snapshot::main(command, &dir, cli.json)),
        Command::Debug(command) => debug::main(command, cli.json),
        Command::Ps => ps::main(cli.json),
        Command::Pause(which) => control::main(which.vm, &Ask::Pause, cli.json),
        Command::Resume(which) => control::main(which.vm, &Ask::Resume, cli.json),
        Command::Sizes => sizes::main(cli.json),
        Command::Doctor => doctor::main(cli.json),
        Command::Completions { shell } => docs::completions(*shell),
        Command::Man { dir } => docs::man(dir.as_deref()),
    };
    let code = done.unwrap_or_else(|e| {
        eprintln!("kluis: {e}");
        e.code()
    });
    ExitCode::from(code)
}

fn refuse(error: &clap::Error) -> ExitCode {
    match cli::one_line(error) {
        Some(line) => eprintln!("kluis: {line}"),
        // help and version go to standard output, the rest to standard error
        None => drop(error.print()),
    }
    ExitCode::from(if error.use_stderr() { exit::BAD_INPUT } else { exit::OK })
}

/// Diagnostics on standard error, as `RUST_LOG` asks for.
fn start_log(cli: &Cli) {
    let quiet = matches!(&cli.command, Command::Run(args) if args.quiet);
    let level = if quiet { LevelFilter::OFF } else { LevelFilter::ERROR };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// Prints to standard output; that nobody reads it is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::failed(format!("cannot write standard output: {e}")))
        }
        _ => Ok(()),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(Error::failed)?;
    text.push('\n');
    print(&text)
}
