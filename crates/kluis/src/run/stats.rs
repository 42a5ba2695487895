//! What a run cost: times, and instructions of each processor.

use super::plan::Plan;
use crate::sgx::Epc;
use serde::Serialize;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How a run ended, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Ending {
    /// `command`, `machine`, `timeout`, `signal`, `stopped`, `snapshot` or `failure`.
    pub(crate) kind: &'static str,
    /// Code of the command, if it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u8>,
    /// Signal that ended the command (`command`), or Kluis (`signal`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// Moments of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The machine was started.
    pub(crate) start: Instant,
    /// The guest's first process ran.
    pub(crate) init: Option<Instant>,
    /// The agent was ready and the command was sent.
    pub(crate) ready: Option<Instant>,
    /// The command ended.
    pub(crate) ended: Option<Instant>,
    /// The machine had ended.
    pub(crate) end: Instant,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    /// Azure size, if it was one.
    size: Option<&'static str>,
    /// Processor model.
    model: &'static str,
    /// Number of processors.
    cpus: usize,
    /// Memory in bytes.
    memory: u64,
    /// Enclave page cache in bytes.
    epc: u64,
    /// From the machine's start to its end, in seconds.
    wall_seconds: f64,
    /// From the machine's start to the guest's first process.
    boot_to_init_seconds: Option<f64>,
    /// From the machine's start to the command's.
    boot_to_command_seconds: Option<f64>,
    /// From the command's start to its end.
    command_seconds: Option<f64>,
    /// Instructions retired by each processor.
    retired: Vec<u64>,
    /// The sum of them.
    retired_total: u64,
    /// Instructions that Kluis does not know.
    unimplemented: Vec<String>,
    /// The EPC at the end, with what was counted.
    sgx: Epc,
    /// How it ended.
    end: Ending,
    /// The exit code that Kluis gives.
    exit_code: u8,
}

impl Stats {
    /// Makes the report.
    pub(crate) fn new(
        plan: &Plan,
        times: &Times,
        retired: Vec<u64>,
        unimplemented: Vec<String>,
        sgx: Epc,
        end: Ending,
        exit_code: u8,
    ) -> Self {
        let from = |start: Option<Instant>, end: Option<Instant>| {
            Some(end?.saturating_duration_since(start?).as_secs_f64())
        };
        let start = Some(times.start);
        Self {
            size: plan.size.map(|s| s.name),
            model: plan.model.name,
            cpus: plan.cpus,
            memory: plan.memory,
            epc: plan.epc,
            wall_seconds: (times.end.saturating_duration_since(times.start)).as_secs_f64(),
            boot_to_init_seconds: from(start, times.init),
            boot_to_command_seconds: from(start, times.ready),
            command_seconds: from(times.ready, times.ended),
            retired_total: retired.iter().fold(0, |a, b| a.saturating_add(*b)),
            retired,
            unimplemented,
            sgx,
            end,
            exit_code,
        }
    }

    /// As a table for people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let mut time = |what: &str, seconds: Option<f64>| {
            if let Some(s) = seconds {
                let _ = writeln!(out, "{what:<22}{s:>12.3} s");
            }
        };
        time("boot to init", self.boot_to_init_seconds);
        time("boot to command", self.boot_to_command_seconds);
        time("command", self.command_seconds);
        time("wall time", Some(self.wall_seconds));
        for (i, retired) in self.retired.iter().enumerate() {
            let _ = writeln!(out, "{:<22}{:>12} instructions", format!("processor {i}"), retired);
        }
        let rate = self.retired_total as f64 / self.wall_seconds.max(1e-9) / 1e6;
        let _ = writeln!(out, "{:<22}{:>12} instructions, {rate:.0} million/s", "all", self.retired_total);
        if !self.unimplemented.is_empty() {
            let _ = writeln!(out, "{:<22}{:>12}", "unknown instructions", self.unimplemented.len());
        }
        if self.sgx.used() {
            out += &self.sgx.text();
        }
        out
    }
}

/// Seconds in words.
pub(crate) fn seconds(d: Duration) -> String {
    format!("{:.1} s", d.as_secs_f64())
}
