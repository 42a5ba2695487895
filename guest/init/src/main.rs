//! Process 1 of Kluis's default guest, and the agent of guests with an init of
//! their own. See the library for what it does.

use kluis_init::{agent::Agent, cmdline, console, log, network, ports, power, root, services, setup};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init();
    }
    if std::env::args().nth(1).as_deref() == Some("agent") {
        return service();
    }
    eprintln!("kluis-init is the first process of a Kluis guest; it does nothing elsewhere");
    ExitCode::from(2)
}

/// The agent under another init.
fn service() -> ExitCode {
    setup::environment();
    match ports::open() {
        Ok(Some(ports)) => {
            log::notice("ready");
            Agent::new(ports, false).run();
            power::ask_off();
            ExitCode::SUCCESS
        }
        // a machine without them has no use for an agent
        Ok(None) => ExitCode::SUCCESS,
        Err(e) => {
            log::error(format!("cannot reach the host: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn init() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // a dead process 1 is a kernel panic; this says more
        log::error(format!("internal error: {info}"));
        power::off();
    }));
    setup::file_systems();
    // the moment that boot times are measured to
    log::notice("started");
    setup::host_name();
    setup::environment();
    setup::modules();
    if let Some(device) = cmdline::value("kluis.root") {
        log::error(format!("cannot start the system on disk: {}", root::switch(&device)));
        power::off();
    }
    network::start();
    services::start();
    match ports::open() {
        Ok(Some(ports)) => {
            log::notice("ready");
            Agent::new(ports, true).run();
        }
        Ok(None) => console::run(),
        Err(e) => {
            log::error(format!("cannot reach the host: {e}"));
            console::run();
        }
    }
    power::off();
}
