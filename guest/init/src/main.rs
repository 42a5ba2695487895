//! Process 1 of Kluis's default guest. See the library for what it does.

use kluis_init::{agent::Agent, console, log, ports, power, setup};

fn main() {
    if std::process::id() != 1 {
        eprintln!("kluis-init is the first process of a Kluis guest; it does nothing elsewhere");
        std::process::exit(2);
    }
    std::panic::set_hook(Box::new(|info| {
        // a dead process 1 is a kernel panic; this says more
        log::error(format!("internal error: {info}"));
        power::off();
    }));
    setup::file_systems();
    // the moment that boot times are measured to
    log::notice("started");
    setup::identity();
    setup::loopback();
    setup::modules();
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
