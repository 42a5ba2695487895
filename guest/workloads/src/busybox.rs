//! Shell scripts under busybox: an interpreter, pipes, forks and execs.
//!
//! The scripts are in `scripts/`; each prints one line an iteration.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::workload::{Body, Class, Failure, Workload, check};

const fn script(
    name: &'static str,
    iterations: u64,
    about: &'static str,
    text: &'static str,
    answer: &'static str,
) -> Workload {
    Workload { name, class: Class::Busybox, about, iterations, body: Body::Script { text, answer } }
}

/// The four busybox workloads.
pub const WORKLOADS: [Workload; 4] = [
    script(
        "shell-loop",
        6,
        "2,000 turns of shell arithmetic",
        include_str!("../scripts/shell-loop.sh"),
        "46914",
    ),
    script(
        "sha256sum",
        2,
        "1 MiB of zeros through a pipe",
        include_str!("../scripts/sha256sum.sh"),
        "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58  -",
    ),
    script("fork-exec", 2, "20 runs of busybox true", include_str!("../scripts/fork-exec.sh"), "20"),
    script(
        "sort",
        4,
        "10,000 numbers, reversed, as text",
        include_str!("../scripts/sort.sh"),
        "ec0a6ab01ffff63dd6218cf60095a76e1454dd14be022d30da354334afb8426e  -",
    ),
];

/// Runs `text` under `busybox sh` and checks that it prints `answer` once for
/// every iteration. The time includes starting the shell.
pub fn run(busybox: &Path, text: &str, answer: &str, iterations: u64) -> Result<Duration, Failure> {
    let os = |what| move |error| Failure::Os { what, error };
    let start = Instant::now();
    let child = Command::new(busybox)
        .args(["sh", "-c", text, "sh", &iterations.to_string()])
        .env_clear()
        .env("BB", busybox)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(os("starting busybox"))?;
    let output = child.wait_with_output().map_err(os("waiting for busybox"))?;
    let time = start.elapsed();
    let got = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("{answer}\n").repeat(usize::try_from(iterations).unwrap_or(0));
    check((Some(0), expected), (output.status.code(), got))?;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_judged_by_output_and_status() {
        let sh = |text: &str| run(Path::new("/bin/busybox"), text, "a", 2);
        if !Path::new("/bin/busybox").exists() {
            return;
        }
        assert!(sh("echo a; echo a").is_ok());
        assert!(matches!(sh("echo a"), Err(Failure::Wrong { .. })));
        assert!(matches!(sh("echo a; echo a; exit 1"), Err(Failure::Wrong { .. })));
        for w in WORKLOADS {
            w.run(1, None).unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
    }

    #[test]
    fn a_missing_busybox_is_reported() {
        let gone = run(Path::new("/nonexistent/busybox"), "echo a", "a", 1);
        assert!(matches!(gone, Err(Failure::Os { .. })));
    }
}
