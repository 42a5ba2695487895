//! Telling what is going on: bars on a terminal, lines elsewhere, or nothing.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

#[derive(Clone, Copy)]
pub(crate) struct Progress {
    quiet: bool,
    terminal: bool,
}

/// One step that is going on; it vanishes when dropped.
pub(crate) struct Step(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: stderr().is_terminal() }
    }

    /// A step of unknown length.
    pub(crate) fn step(self, what: &str) -> Step {
        self.begin(what, None)
    }

    /// A step of a known number of bytes.
    pub(crate) fn bytes(self, what: &str, total: u64) -> Step {
        self.begin(what, Some(total))
    }

    /// A line that stays.
    pub(crate) fn line(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    fn begin(self, what: &str, total: Option<u64>) -> Step {
        if self.quiet {
            return Step(None);
        }
        if !self.terminal {
            eprintln!("{what}");
            return Step(None);
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total)
                .with_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step(Some(bar))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Step {
    pub(crate) fn at(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
