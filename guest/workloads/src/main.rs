//! The standing benchmark: fixed work with known answers, timed.
//!
//! The same static binary runs on the host and in each guest, so the ratio of
//! two times is the ratio of two machines. See `docs/benchmarks.md`.
//!
//! ```text
//! workloads [NAME…] [--scale F] [--repeat N] [--busybox PATH] [--list]
//! ```
//!
//! Output, one line each:
//!
//! ```text
//! workloads-begin avx2=1
//! workload NAME CLASS ITERATIONS NANOSECONDS ok|WRONG|FAILED
//! workloads-end NANOSECONDS
//! ```
//!
//! `workloads-end` carries the time between the two lines by this machine's
//! own clock; a reader with another clock can tell whether it runs true.
//!
//! Exit codes: 0 all answers right, 1 an answer was wrong or a workload could
//! not run, 2 bad usage.

mod busybox;
mod fp;
mod integer;
mod os;
mod workload;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use workload::{Failure, Workload};

const USAGE: &str = "usage: workloads [NAME...] [--scale F] [--repeat N] [--busybox PATH] [--list]
  NAME            run only these (see --list); default: all
  --scale F       multiply every iteration count by F (default 1)
  --repeat N      go through the workloads N times (default 1)
  --busybox PATH  also run the busybox workloads, with this busybox
  --list          print the names, classes and descriptions";

struct Options {
    names: Vec<String>,
    scale: f64,
    repeat: u32,
    busybox: Option<PathBuf>,
    list: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { names: Vec::new(), scale: 1.0, repeat: 1, busybox: None, list: false };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--scale" => {
                let text = value()?;
                options.scale = text
                    .parse()
                    .ok()
                    .filter(|f: &f64| f.is_finite() && *f > 0.0 && *f <= 1e6)
                    .ok_or_else(|| format!("--scale {text}: not a number above 0"))?;
            }
            "--repeat" => {
                let text = value()?;
                options.repeat = text
                    .parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or_else(|| format!("--repeat {text}: not a number above 0"))?;
            }
            "--busybox" => options.busybox = Some(value()?.into()),
            "--list" => options.list = true,
            "--help" | "-h" => return Err(String::new()),
            name if !name.starts_with('-') => options.names.push(name.to_string()),
            other => return Err(format!("{other}: unknown option")),
        }
    }
    Ok(options)
}

/// Keeps this process and its children on the processor it is on: guests are
/// measured with one processor, and a pipe between two processors is another
/// workload than a pipe on one.
fn stay_on_one_processor() {
    // SAFETY: cpu_set_t is a plain bit array for which zero is the empty set;
    // the calls read or write only it. Failure leaves the affinity as it was.
    unsafe {
        let cpu = libc::sched_getcpu();
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu >= 0 && (cpu as usize) < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu as usize, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

/// Has the C library give large buffers back to the kernel when they are freed.
/// By default it comes to keep them, and then the price of a fork depends on
/// which workloads ran before.
fn give_memory_back() {
    const THRESHOLD: libc::c_int = 128 << 10;
    // SAFETY: sets two numbers of the allocator. If refused, they stay as they were.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLD);
    }
}

fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    all.extend(integer::WORKLOADS);
    all.extend(fp::WORKLOADS);
    all.extend(os::WORKLOADS);
    all.extend(busybox::WORKLOADS);
    all
}

fn run(options: &Options, workloads: &[Workload]) -> bool {
    // Lines go out whole and at once: on a console they may meet the kernel's.
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    };
    stay_on_one_processor();
    give_memory_back();
    let avx2 = u8::from(std::arch::is_x86_feature_detected!("avx2"));
    say(format!("workloads-begin avx2={avx2}\n"));
    let begin = Instant::now();
    let mut good = true;
    // In rounds: what disturbs the host for a moment does not hit all runs of one
    // workload.
    for w in (0..options.repeat).flat_map(|_| workloads) {
        let iterations = ((w.iterations as f64 * options.scale).round() as u64).max(1);
        let (nanoseconds, verdict) = match w.run(iterations, options.busybox.as_deref()) {
            Ok(time) => (time.as_nanos(), "ok"),
            Err(failure) => {
                good = false;
                eprintln!("workloads: {}: {failure}", w.name);
                match failure {
                    Failure::Wrong { .. } => (0, "WRONG"),
                    Failure::Os { .. } => (0, "FAILED"),
                }
            }
        };
        say(format!("workload {} {} {iterations} {nanoseconds} {verdict}\n", w.name, w.class));
    }
    say(format!("workloads-end {}\n", begin.elapsed().as_nanos()));
    good
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            if message.is_empty() {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            eprintln!("workloads: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let all = all();
    if let Some(name) = options.names.iter().find(|n| all.iter().all(|w| w.name != **n)) {
        eprintln!("workloads: {name}: no such workload; --list prints their names");
        return ExitCode::from(2);
    }
    let chosen: Vec<Workload> = all
        .into_iter()
        .filter(|w| options.names.is_empty() || options.names.iter().any(|n| n == w.name))
        .filter(|w| options.list || !w.needs_busybox() || options.busybox.is_some())
        .collect();
    if options.list {
        for w in chosen {
            println!("{:<19} {:<8} {}", w.name, w.class.to_string(), w.about);
        }
        return ExitCode::SUCCESS;
    }
    if run(&options, &chosen) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
