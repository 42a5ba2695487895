//! The systems that are compared, and one run on each.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::guest::{Line, Sample, Verdict, parse};
use crate::observe::observe;
use crate::prepare::{self, Prepared};

/// Memory of the machines, in MiB.
const MEMORY_MIB: u32 = 1024;

/// Console on the serial port, so far as a person would follow it: at level 6
/// the kernel prints notices, with init's among them, and not its chatter.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 loglevel=6 panic=-1";

/// Lines are on their way for a while: so much may the clocks differ over any
/// run, in nanoseconds; over a long one, by a tenth.
const CLOCK_SLACK_NS: f64 = 1e8;

/// Arguments with which `kluis run` prints the guest's console, on either
/// stream, beside the command's own output. Without it there is no time to
/// init, only the time to the command; `--kluis-arg` adds more.
const KLUIS_CONSOLE: &[&str] = &["--console", "-"];

/// A system to run the workloads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The host itself.
    Native,
    /// QEMU's translator, the peer.
    Tcg,
    /// Kluis.
    Kluis,
    /// Another Kluis, of before a change.
    Before,
}

impl Kind {
    /// Name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Native => "native",
            Kind::Tcg => "QEMU TCG",
            Kind::Kluis => "Kluis",
            Kind::Before => "Kluis before",
        }
    }
}

/// What is run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Only these workloads, if any are named.
    pub(crate) names: Vec<String>,
    /// The workloads that must give a result.
    pub(crate) expected: Vec<String>,
    /// Factor of the iterations.
    pub(crate) scale: f64,
    /// Runs of each workload.
    pub(crate) repeat: u32,
    /// Boots of each machine.
    pub(crate) boots: u32,
    /// For one run of one system.
    pub(crate) timeout: Duration,
    /// Further arguments of `kluis run`.
    pub(crate) kluis_args: Vec<String>,
}

impl Plan {
    /// The workloads program's arguments.
    pub(crate) fn arguments(&self, busybox: Option<&str>) -> Vec<String> {
        let mut arguments = self.names.clone();
        arguments.extend(["--scale".into(), self.scale.to_string()]);
        arguments.extend(["--repeat".into(), self.repeat.to_string()]);
        if let Some(busybox) = busybox {
            arguments.extend(["--busybox".into(), busybox.into()]);
        }
        arguments
    }

    /// Asks the built program which workloads it will run.
    ///
    /// # Errors
    /// With its own words if it does not know a name.
    pub(crate) fn ask_names(&mut self, workloads: &Path, busybox: bool) -> anyhow::Result<()> {
        let output = Command::new(workloads)
            .args(&self.names)
            .arg("--list")
            .output()
            .with_context(|| format!("cannot run {}", workloads.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("{}", words.lines().next().unwrap_or("the workloads do not run here"));
        }
        self.expected.clear();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.split_ascii_whitespace();
            if let Some((name, class)) = words.next().zip(words.next())
                && (busybox || class != "busybox")
            {
                self.expected.push(name.to_owned());
            }
        }
        if self.expected.is_empty() {
            bail!("no busybox in the initramfs, and only workloads that need it are asked for");
        }
        Ok(())
    }
}

/// How it went on one system.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The system.
    pub(crate) system: Kind,
    /// Whether all went well.
    pub(crate) status: Status,
    /// What went wrong, or what is missing and the remedy.
    pub(crate) note: Option<String>,
    /// Process start to init's first line, the best of all boots, in milliseconds.
    pub(crate) boot_to_init_ms: Option<f64>,
    /// Process start to the first workload, likewise.
    pub(crate) boot_to_command_ms: Option<f64>,
    /// Whether the workloads used AVX2.
    pub(crate) avx2: Option<bool>,
    /// The system's time for the whole run over the host's: 1 if its clock is
    /// true, less if it flatters.
    pub(crate) clock: Option<f64>,
    /// Every run of every workload.
    pub(crate) samples: Vec<Sample>,
}

/// The sum of an [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Every answer right.
    Ok,
    /// An answer was wrong.
    Wrong,
    /// It did not start, or did not finish.
    Failed,
    /// Not on this host; not a failure.
    Absent,
}

impl Outcome {
    pub(crate) fn new(system: Kind) -> Outcome {
        Outcome {
            system,
            status: Status::Ok,
            note: None,
            boot_to_init_ms: None,
            boot_to_command_ms: None,
            avx2: None,
            clock: None,
            samples: Vec::new(),
        }
    }

    /// Best time of a workload's work, in milliseconds, if it was done right.
    pub(crate) fn best_ms(&self, name: &str) -> Option<f64> {
        let times = self.samples.iter();
        times
            .filter(|s| s.name == name && s.verdict == Verdict::Ok)
            .map(|s| s.nanoseconds as f64 / 1e6)
            .reduce(f64::min)
    }

    fn fail(mut self, status: Status, note: String) -> Outcome {
        eprintln!("kluis-bench: {}: {note}", self.system.name());
        self.status = status;
        self.note = Some(note);
        self
    }
}

/// The workloads on the host.
pub(crate) fn native(plan: &Plan, prepared: &Prepared) -> Outcome {
    let busybox = prepared.busybox.as_ref().map(|b| b.to_string_lossy().into_owned());
    run(plan, Outcome::new(Kind::Native), |_| {
        let mut command = Command::new(&prepared.workloads);
        command.args(plan.arguments(busybox.as_deref()));
        command
    })
}

/// The workloads under QEMU.
pub(crate) fn tcg(plan: &Plan, prepared: &Prepared, qemu: &Path) -> Outcome {
    let outcome = Outcome::new(Kind::Tcg);
    if let Err(e) = Command::new(qemu).arg("--version").output() {
        return outcome.fail(
            Status::Absent,
            format!(
                "cannot start {} ({e}): no peer to compare with; apt-get install qemu-system-x86",
                qemu.display()
            ),
        );
    }
    run(plan, outcome, |purpose| {
        let guest = match purpose {
            Purpose::Work => Prepared::guest_script(),
            Purpose::Boot => "true".into(),
        };
        let mut command = Command::new(qemu);
        command
            .args(["-accel", "tcg,thread=single", "-cpu", "max", "-m"])
            .arg(MEMORY_MIB.to_string())
            .args(["-nographic", "-no-reboot", "-kernel"])
            .arg(&prepared.kernel)
            .arg("-initrd")
            .arg(&prepared.initrd)
            .arg("-append")
            .arg(format!("{KERNEL_COMMAND_LINE} kluis.exec={guest}"));
        command
    })
}

/// The workloads in Kluis; `system` says which of the two it is.
pub(crate) fn kluis(plan: &Plan, prepared: &Prepared, system: Kind, program: Option<&Path>) -> Outcome {
    let outcome = Outcome::new(system);
    let program = match program.map_or_else(prepare::kluis, |p| Ok(p.to_owned())) {
        Ok(program) => program,
        Err(e) => return outcome.fail(Status::Failed, format!("{e:#}")),
    };
    let own = prepared.initrd_before.as_ref().filter(|_| system == Kind::Before);
    run(plan, outcome, |purpose| {
        let mut command = Command::new(&program);
        command
            .arg("run")
            .args(["--cpus", "1", "--memory", &format!("{MEMORY_MIB}M"), "--kernel"])
            .arg(&prepared.kernel)
            .arg("--initrd")
            .arg(own.unwrap_or(&prepared.initrd))
            .args(["--append", KERNEL_COMMAND_LINE])
            .args(KLUIS_CONSOLE)
            .args(&plan.kluis_args)
            .arg("--");
        match purpose {
            Purpose::Work => command
                .arg(Prepared::guest_workloads())
                .args(plan.arguments(prepared.guest_busybox.as_deref())),
            Purpose::Boot => command.arg("true"),
        };
        command
    })
}

/// What one start of a system is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The workloads.
    Work,
    /// The time to boot alone.
    Boot,
}

/// Runs the workloads and, for a machine, the boots still wanted.
fn run(plan: &Plan, mut outcome: Outcome, command: impl Fn(Purpose) -> Command) -> Outcome {
    let mut boots = if outcome.system == Kind::Native { 1 } else { plan.boots };
    let mut purpose = Purpose::Work;
    eprintln!("kluis-bench: {}", outcome.system.name());
    while boots > 0 {
        boots -= 1;
        if let Err(e) = start(plan, &mut outcome, &mut command(purpose), purpose) {
            return outcome.fail(Status::Failed, format!("{e:#}"));
        }
        purpose = Purpose::Boot;
    }
    if outcome.system == Kind::Native {
        outcome.boot_to_command_ms = None;
    }
    judge(plan, outcome)
}

fn start(plan: &Plan, outcome: &mut Outcome, command: &mut Command, purpose: Purpose) -> anyhow::Result<()> {
    let mut begin = None;
    let mut end = None;
    let ended = observe(command, plan.timeout, |at, line| match parse(line) {
        Some(Line::InitStarted) => best(&mut outcome.boot_to_init_ms, at),
        Some(Line::Begin { avx2 }) => {
            best(&mut outcome.boot_to_command_ms, at);
            outcome.avx2 = Some(avx2);
            begin = Some(at);
        }
        Some(Line::Sample(sample)) => {
            let ms = sample.nanoseconds as f64 / 1e6;
            eprintln!("  {:<20} {ms:>10.2} ms {:?}", sample.name, sample.verdict);
            outcome.samples.push(sample);
        }
        Some(Line::End { nanoseconds }) => end = Some((at, nanoseconds)),
        None => {}
    })?;
    let name = command.get_program().to_string_lossy();
    let tail = || ended.tail.join("\n");
    if purpose == Purpose::Boot {
        if !ended.status.success() {
            bail!("{name} ended with {}; its last lines:\n{}", ended.status, tail());
        }
        return Ok(());
    }
    let Some((begin, (end, nanoseconds))) = begin.zip(end) else {
        bail!(
            "{name} ended with {} before the workloads were through; its last lines:\n{}",
            ended.status,
            tail()
        );
    };
    let host = (end - begin).as_nanos() as f64;
    outcome.clock = (host > 0.0).then_some(nanoseconds as f64 / host);
    let clock_is_true = (nanoseconds as f64 - host).abs() <= CLOCK_SLACK_NS.max(host / 10.0);
    // A wrong answer has its own exit code and is judged by its line.
    if !ended.status.success() && outcome.samples.iter().all(|s| s.verdict == Verdict::Ok) {
        bail!("{name} ended with {}; its last lines:\n{}", ended.status, tail());
    }
    if !clock_is_true {
        bail!(
            "its clock says {:.2} s where the host's says {:.2} s: its times mean nothing",
            nanoseconds as f64 / 1e9,
            host / 1e9
        );
    }
    Ok(())
}

fn best(time: &mut Option<f64>, at: Duration) {
    let ms = at.as_secs_f64() * 1e3;
    *time = Some(time.map_or(ms, |t| t.min(ms)));
}

/// Gives the outcome its status.
fn judge(plan: &Plan, mut outcome: Outcome) -> Outcome {
    let of = |verdict: Verdict| {
        let names: BTreeSet<_> =
            outcome.samples.iter().filter(|s| s.verdict == verdict).map(|s| s.name.as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let (wrong, failed) = (of(Verdict::Wrong), of(Verdict::Failed));
    if !wrong.is_empty() {
        return outcome.fail(Status::Wrong, format!("wrong answer: {wrong}"));
    }
    if !failed.is_empty() {
        return outcome.fail(Status::Failed, format!("could not run: {failed}"));
    }
    let missing = missing(plan, &outcome.samples);
    if !missing.is_empty() {
        // On a console the kernel may have written into the middle of a line.
        return outcome.fail(Status::Failed, format!("no result: {}", missing.join(", ")));
    }
    if outcome.system != Kind::Native && outcome.boot_to_init_ms.is_none() {
        outcome.note = Some("no line of Kluis's init seen: no boot time".into());
    }
    outcome
}

fn missing(plan: &Plan, samples: &[Sample]) -> Vec<String> {
    plan.expected.iter().filter(|name| !samples.iter().any(|s| s.name == **name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            names: vec!["fib".into()],
            expected: vec!["fib".into()],
            scale: 0.5,
            repeat: 2,
            boots: 1,
            timeout: Duration::from_secs(60),
            kluis_args: Vec::new(),
        }
    }

    fn outcome_of(kind: Kind, script: &str) -> Outcome {
        run(&plan(), Outcome::new(kind), |_| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        })
    }

    #[test]
    fn arguments_say_the_plan() {
        assert_eq!(
            plan().arguments(Some("/bin/busybox")).join(" "),
            "fib --scale 0.5 --repeat 2 --busybox /bin/busybox"
        );
    }

    #[test]
    fn a_right_run_is_ok() {
        let o = outcome_of(
            Kind::Tcg,
            "echo '[1.0] kluis-init: started'; echo workloads-begin avx2=1; sleep 0.2
             echo workload fib integer 6 1000 ok; echo workloads-end 200000000",
        );
        assert_eq!(o.status, Status::Ok, "{:?}", o.note);
        assert_eq!((o.samples.len(), o.avx2), (1, Some(true)));
        assert!(o.boot_to_init_ms.is_some() && o.boot_to_command_ms.is_some());
    }

    #[test]
    fn every_way_to_fail_is_seen() {
        let wrong = "echo workloads-begin avx2=1; echo workload fib integer 6 0 WRONG
             echo workloads-end 1; exit 1";
        assert_eq!(outcome_of(Kind::Kluis, wrong).status, Status::Wrong);
        let cases = [
            (
                "unable",
                "echo workloads-begin avx2=1; echo workload fib integer 6 0 FAILED; echo workloads-end 1",
            ),
            ("died", "echo workloads-begin avx2=1"),
            ("silent", "true"),
            (
                "bad exit",
                "echo workloads-begin avx2=1; echo workload fib integer 6 5 ok; echo workloads-end 1; exit 9",
            ),
            ("lost", "echo workloads-begin avx2=1; sleep 0.1; echo workloads-end 100000000"),
            (
                "slow clock",
                "echo workloads-begin avx2=1; sleep 0.2; echo workload fib integer 6 5 ok; echo workloads-end 20000000",
            ),
        ];
        for (case, script) in cases {
            assert_eq!(outcome_of(Kind::Kluis, script).status, Status::Failed, "{case}");
        }
    }

    #[test]
    fn a_missing_qemu_is_absent_not_failed() {
        let prepared = Prepared {
            workloads: "w".into(),
            busybox: None,
            guest_busybox: None,
            kernel: "k".into(),
            initrd: "i".into(),
            initrd_before: None,
        };
        let o = tcg(&plan(), &prepared, Path::new("/nonexistent/qemu"));
        assert_eq!(o.status, Status::Absent);
        assert!(o.note.unwrap().contains("apt-get install qemu-system-x86"));
    }
}
