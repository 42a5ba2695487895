//! `kluis ps`: the machines that run.

use crate::control::{self, Answer, Ask};
use crate::exit::{self, Error};
use crate::run::Plan;
use crate::units;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a machine may take to tell of itself; one that is being saved takes longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a machine tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// What it was started from: an image's name, or a kernel's or a snapshot's path.
    pub(crate) from: String,
    /// Its Azure size, if one was asked for.
    pub(crate) size: Option<String>,
    /// Processor model.
    pub(crate) model: String,
    /// Processors.
    pub(crate) cpus: usize,
    /// Memory in bytes.
    pub(crate) memory: u64,
    /// Enclave page cache in bytes.
    pub(crate) epc: u64,
    /// Where gdb may connect.
    pub(crate) gdb: Option<String>,
}

/// What it tells that changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Now {
    /// It stands still.
    pub(crate) paused: bool,
    /// Seconds since it was started.
    pub(crate) uptime_seconds: f64,
    #[serde(flatten)]
    pub(crate) about: About,
}

/// A machine in the list.
#[derive(Debug, Serialize)]
struct Row {
    pid: u32,
    socket: PathBuf,
    /// Nothing, if it did not answer in time.
    #[serde(flatten)]
    now: Option<Now>,
}

impl About {
    /// What a machine of that plan tells; `gdb` is its debugger's port.
    pub(crate) fn of(plan: &Plan, snapshot: Option<&Path>, gdb: Option<SocketAddr>) -> Self {
        let from = match snapshot.or(plan.kernel.as_deref()) {
            Some(path) => path.display().to_string(),
            None => plan.image.name().into(),
        };
        Self {
            from,
            size: plan.size.map(|size| size.name.into()),
            model: plan.model.name.into(),
            cpus: plan.cpus,
            memory: plan.memory,
            epc: plan.epc,
            gdb: gdb.map(|address| address.to_string()),
        }
    }
}

impl Now {
    /// The answer to [`Ask::About`].
    ///
    /// # Errors
    /// Never in practice: it is all numbers and text.
    pub(crate) fn answer(&self) -> Result<Answer, String> {
        Ok(Answer { text: String::new(), value: serde_json::to_value(self).map_err(|e| e.to_string())? })
    }
}

/// Lists the user's machines.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn main(json: bool) -> Result<u8, Error> {
    let row = |(pid, socket): (u32, PathBuf)| {
        let answer =
            control::exchange(&socket, &Ask::About, None, PATIENCE, &mut |_, _| {}).ok().and_then(Result::ok);
        let now = answer.and_then(|answer| serde_json::from_value(answer.value).ok());
        Row { pid, socket, now }
    };
    let rows: Vec<Row> = control::machines().into_iter().map(row).collect();
    if json {
        crate::print_json(&rows)?
    } else {
        crate::print(&table(&rows))?
    }
    Ok(exit::OK)
}

fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<8} {:<8} {:>8} {:>4} {:>9}  {:<21} From\n",
        "PID", "State", "Up", "CPUs", "Memory", "gdb"
    );
    for row in rows {
        let Some(now) = &row.now else {
            let _ = writeln!(out, "{:<8} busy", row.pid);
            continue;
        };
        let about = &now.about;
        let _ = writeln!(
            out,
            "{:<8} {:<8} {:>8} {:>4} {:>9}  {:<21} {}",
            row.pid,
            if now.paused { "paused" } else { "runs" },
            up(now.uptime_seconds as u64),
            about.cpus,
            units::bytes(about.memory),
            about.gdb.as_deref().unwrap_or("-"),
            about.from
        );
    }
    out
}

/// Seconds as the two greatest units that they have.
fn up(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let of = |s| up(s);
        assert_eq!(
            [of(7), of(60), of(3599), of(3600), of(86399)],
            ["7s", "1m00s", "59m59s", "1h00m", "23h59m"]
        );
        assert_eq!(of(100_000), "1d03h");
    }

    #[test]
    fn a_machine_that_does_not_answer_is_in_the_list() {
        let about = About {
            from: "debian".into(),
            size: None,
            model: "xeon-8370c".into(),
            cpus: 2,
            memory: 1 << 30,
            epc: 0,
            gdb: Some("127.0.0.1:1234".into()),
        };
        let now = Now { paused: true, uptime_seconds: 61.5, about };
        let row = |pid, now| Row { pid, socket: "/s".into(), now };
        let text = table(&[row(17, None), row(4711, Some(now.clone()))]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["17", "busy"]);
        assert_eq!(lines[2], ["4711", "paused", "1m01s", "2", "1", "GiB", "127.0.0.1:1234", "debian"]);
        let told: Now = serde_json::from_value(now.answer().unwrap().value).unwrap();
        assert_eq!(told, now);
    }
}
