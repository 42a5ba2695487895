//! Telling people how far the boot is, on standard error.

use super::stats::seconds;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// The boot, as people see it.
pub(crate) struct Progress {
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to tell of `machine`'s boot, which began at `start`.
    pub(crate) fn begin(machine: &str, start: Instant) -> Self {
        let text = format!("Booting Linux ({machine})");
        let bar = if stderr().is_terminal() {
            let bar = ProgressBar::new_spinner().with_elapsed(start.elapsed());
            let elapsed = |state: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&seconds(state.elapsed()));
            };
            let style = ProgressStyle::with_template("{spinner} {msg} … {seconds}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bar.set_style(style.with_key("seconds", elapsed));
            bar.set_message(text);
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        } else {
            eprintln!("{text}");
            None
        };
        Self { start, bar }
    }

    /// The guest is ready.
    pub(crate) fn done(self) {
        let took = seconds(self.start.elapsed());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("Booting Linux … {took}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
