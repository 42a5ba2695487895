//! The side towards people: progress, terminal, notes.

use super::plan::{Access, Plan};
use super::progress::Progress;
use super::session::Front;
use super::terminal::Raw;
use super::{escape, terminal};
use crate::exit::Error;
use crate::units;
use machine::Running;
use std::sync::Arc;
use std::time::Instant;

type StartInput = Box<dyn FnOnce() -> Result<(), Error>>;

/// The side towards people: progress, terminal, notes.
pub(super) struct Host {
    quiet: bool,
    /// The terminal is to be raw once the guest has it.
    pub(super) wants_raw: bool,
    raw: Option<Raw>,
    progress: Option<Progress>,
    pub(super) start_input: Option<StartInput>,
    running: Arc<Running>,
}

impl Host {
    pub(super) fn new(
        quiet: bool,
        boots: bool,
        wants_raw: bool,
        plan: &Plan,
        start: Instant,
        running: Arc<Running>,
    ) -> Self {
        let progress = (!quiet && boots && matches!(plan.access, Access::Agent { .. })).then(|| {
            let name = plan.size.map(|s| format!("{}, ", s.name)).unwrap_or_default();
            let cpus =
                if plan.cpus == 1 { "1 processor".into() } else { format!("{} processors", plan.cpus) };
            Progress::begin(&format!("{name}{cpus}, {}", units::bytes(plan.memory)), start)
        });
        Self { quiet, wants_raw, raw: None, progress, start_input: None, running }
    }

    /// Gives the terminal back and takes progress away.
    pub(super) fn close(&mut self) {
        self.progress = None;
        self.raw = None;
    }
}

impl Front for Host {
    fn ready(&mut self) -> Result<(), Error> {
        if let Some(progress) = self.progress.take() {
            progress.done();
        }
        if self.wants_raw {
            self.note(escape::NOTICE);
            let fail = |e| Error::failed(format!("cannot use the terminal: {e}"));
            self.raw = Some(Raw::enter().map_err(fail)?);
        }
        self.start_input.take().map_or(Ok(()), |start| start())
    }

    fn size(&self) -> (u16, u16) {
        terminal::size()
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.alert(text);
        }
    }

    fn alert(&mut self, text: &str) {
        for line in text.lines() {
            // a raw terminal does not return to the margin by itself
            eprint!("kluis: {line}{}", if self.raw.is_some() { "\r\n" } else { "\n" });
        }
    }

    fn suspend(&mut self) {
        // the guest's time stops with ours; a machine that cannot be paused jumps ahead
        let _paused = self.running.pause();
        match &self.raw {
            Some(raw) => raw.suspend(),
            None => terminal::stop_process(),
        }
    }
}

/// What is told when a machine has lost its EPC.
pub(super) fn epc_lost(loss: mee::Loss) -> String {
    format!("the machine has lost its enclaves: {loss}. It goes on without an EPC until it is reset")
}
