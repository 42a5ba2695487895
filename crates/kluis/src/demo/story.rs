//! How the steps are told: as text while they happen, or as data at the end.

use crate::exit::Error;
use serde::Serialize;
use std::io::IsTerminal;
use std::time::Instant;

/// The story so far.
pub(super) struct Story {
    json: bool,
    colours: bool,
    start: Instant,
    steps: Vec<Step>,
}

/// What was done, and what was checked of it.
#[derive(Serialize)]
struct Step {
    title: String,
    /// Since the step before.
    ms: u64,
    checks: Vec<Check>,
    #[serde(skip)]
    start: Instant,
}

/// Something that was looked at.
#[derive(Serialize)]
struct Check {
    /// Who has checked it.
    by: &'static str,
    held: bool,
    what: String,
}

/// The whole of it.
#[derive(Serialize)]
struct Report<'a> {
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unmet: Option<&'a str>,
    seconds: f64,
    steps: &'a [Step],
}

/// Who checks.
pub(super) mod by {
    /// Who made the enclave.
    pub(crate) const MAKER: &str = "its maker";
    /// The processor that Kluis is.
    pub(crate) const PROCESSOR: &str = "processor";
    /// The machine's root.
    pub(crate) const ROOT: &str = "guest root";
    /// The program that loads enclaves in the machine.
    pub(crate) const HOST: &str = "enclave's host";
    /// A server that pretends to be the enclave.
    pub(crate) const THIEF: &str = "the server";
    /// The client, outside.
    pub(crate) const CLIENT: &str = "client";
    /// The enclave.
    pub(crate) const ENCLAVE: &str = "enclave";
    /// The machine's quoting enclave.
    pub(crate) const QUOTING: &str = "quoting enclave";
}

impl Story {
    pub(super) fn new(json: bool) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colours, start: Instant::now(), steps: Vec::new() }
    }

    /// Between steps: what they are about.
    pub(super) fn chapter(&self, text: &str) -> Result<(), Error> {
        self.say(&format!("\n{}\n", self.style("1", text)))
    }

    /// A step begins.
    pub(super) fn step(&mut self, title: &str) -> Result<(), Error> {
        self.finish_step();
        self.say(&format!("\n{:>3}  {title}\n", self.steps.len() + 1))?;
        let step = Step { title: title.into(), ms: 0, checks: Vec::new(), start: Instant::now() };
        self.steps.push(step);
        Ok(())
    }

    /// Somebody has checked something.
    ///
    /// # Errors
    /// It does not hold.
    pub(super) fn check(
        &mut self,
        by: &'static str,
        holds: bool,
        what: impl Into<String>,
    ) -> Result<(), Error> {
        let what = printable(&what.into());
        let (mark, colour) = if holds { ("✓", "32") } else { ("✗", "31") };
        let text = wrapped(&format!("{by}: {what}"), 7);
        self.say(&format!("     {} {text}\n", self.style(colour, mark)))?;
        let unmet = (!holds).then(|| Error::Unmet(format!("{by}: this does not hold: {what}")));
        if let Some(step) = self.steps.last_mut() {
            step.checks.push(Check { by, held: holds, what });
        }
        unmet.map_or(Ok(()), Err)
    }

    /// Lines that belong to the step: a table.
    pub(super) fn show(&self, lines: &str) -> Result<(), Error> {
        let shown: String =
            lines.lines().map(|line| format!("         {}\n", self.style("2", line))).collect();
        self.say(&shown)
    }

    /// The end, with what did not hold.
    pub(super) fn end(&mut self, unmet: Option<&str>) -> Result<(), Error> {
        self.finish_step();
        let seconds = self.start.elapsed().as_secs_f64();
        if self.json {
            let report = Report { held: unmet.is_none(), unmet, seconds, steps: &self.steps };
            return crate::print_json(&report);
        }
        let checks: usize = self.steps.iter().map(|step| step.checks.len()).sum();
        match unmet {
            None => self.say(&format!("\nAll {checks} checks held, in {seconds:.0} s.\n")),
            Some(what) => self.say(&format!("\nNot as it must be. {what}\n")),
        }
    }

    fn finish_step(&mut self) {
        if let Some(step) = self.steps.last_mut().filter(|step| step.ms == 0) {
            step.ms = step.start.elapsed().as_millis() as u64;
        }
    }

    fn say(&self, text: &str) -> Result<(), Error> {
        if self.json { Ok(()) } else { crate::print(text) }
    }

    /// In this colour, on a terminal.
    fn style(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text that does nothing to a terminal: some of it is a guest's.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Columns of the text.
const WIDTH: usize = 100;

/// Text in lines of [`WIDTH`] columns, all but the first after so many spaces.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if indent + line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_and_complete() {
        let text = "word ".repeat(50) + &"x".repeat(120) + " end";
        let lines = wrapped(&text, 7);
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        // but for the word that is longer
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH || line.trim().len() == 120));
        assert!(lines.lines().skip(1).all(|line| line.starts_with("       ")));
        assert_eq!(wrapped("short", 7), "short");
    }

    #[test]
    fn what_does_not_hold_ends_the_story() {
        let mut story = Story::new(true);
        story.step("one").unwrap();
        story.check(by::CLIENT, true, "good").unwrap();
        let unmet = story.check(by::CLIENT, false, "bad").unwrap_err();
        assert_eq!((unmet.to_string().as_str(), unmet.code()), ("client: this does not hold: bad", 1));
        let held: Vec<_> = story.steps[0].checks.iter().map(|check| check.held).collect();
        assert_eq!(held, [true, false]);
    }
}
