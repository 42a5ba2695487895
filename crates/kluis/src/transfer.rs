//! Progress of what moves a machine's memory: shown once it takes longer than people
//! like to wait without a word.

use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// So long nothing is shown.
const SILENCE: Duration = Duration::from_secs(2);

/// What is being done, on standard error.
pub(crate) struct Transfer {
    what: &'static str,
    start: Instant,
    /// Nothing on standard error is a terminal.
    plain: bool,
    shown: Option<ProgressBar>,
}

impl Transfer {
    /// Begins; `what` is a noun phrase's beginning: "Writing the snapshot".
    pub(crate) fn new(what: &'static str) -> Self {
        let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { what, start: Instant::now(), plain, shown: None }
    }

    /// So many bytes of all are done.
    pub(crate) fn at(&mut self, done: u64, all: u64) {
        if self.shown.is_none() {
            if self.start.elapsed() < SILENCE || done >= all {
                return;
            }
            if self.plain {
                eprintln!("kluis: {} … ({})", self.what, units::bytes(all));
            }
            self.shown = Some(bar(self.what, all, self.plain));
        }
        if let Some(bar) = &self.shown {
            bar.set_position(done.min(all));
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, all: u64, plain: bool) -> ProgressBar {
    let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(all), target).with_message(what);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent}% of {binary_total_bytes}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_shows_nothing() {
        let mut transfer = Transfer::new("Testing");
        transfer.at(0, 10);
        transfer.at(10, 10);
        assert!(transfer.shown.is_none());
        transfer.start -= 2 * SILENCE;
        transfer.at(10, 10);
        assert!(transfer.shown.is_none(), "it is done");
        transfer.at(5, 10);
        assert_eq!(transfer.shown.as_ref().map(ProgressBar::position), Some(5));
    }
}
