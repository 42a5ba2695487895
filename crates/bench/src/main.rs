//! The standing benchmark: the same workloads on the host, under QEMU's
//! translator and in Kluis, in one run. See `docs/benchmarks.md`.
//!
//! Exit codes: 0 all that could run did and every answer was right; 1 a system
//! gave a wrong answer, no answer or did not finish; 2 bad usage or nothing
//! could be prepared.
#![forbid(unsafe_code)]

mod cpio;
mod guest;
mod observe;
mod prepare;
mod report;
mod systems;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Runs the standing benchmark natively, under QEMU TCG and in Kluis.
#[derive(Parser, Debug)]
#[command(
    name = "kluis-bench",
    version,
    after_help = "Examples:
  cargo run --release -p kluis-bench
  cargo run --release -p kluis-bench -- --quick
  cargo run --release -p kluis-bench -- --json --workload fib --workload getppid
  cargo run --release -p kluis-bench -- --before kluis-of-last-week
  cargo run --release -p kluis-bench -- --before old/kluis --before-init old/kluis-init

Exit codes: 0 all right; 1 a wrong answer, or a system that did not finish;
2 bad usage, or nothing could be prepared."
)]
struct Cli {
    /// A quarter of the work, each workload once
    #[arg(long)]
    quick: bool,
    /// Print the results as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Run only these workloads (guest/workloads --list names them)
    #[arg(long = "workload", value_name = "NAME", num_args = 1..)]
    workloads: Vec<String>,
    /// Multiply the work by this
    #[arg(long, value_name = "F")]
    scale: Option<f64>,
    /// Take the best of so many runs of each workload [default: 3, --quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: Option<u32>,
    /// Boot each machine so many times and take the best time to init
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    boots: u32,
    /// Leave these systems out
    #[arg(long, value_name = "SYSTEM", value_enum, num_args = 1..)]
    skip: Vec<systems::Kind>,
    /// Boot this kernel instead of the default image's (with --initrd)
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// Boot this initramfs instead of the default image's (with --kernel)
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// This kluis instead of the workspace's
    #[arg(long, value_name = "FILE")]
    kluis: Option<PathBuf>,
    /// Measure this kluis too, as that of before a change
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Boot that one with this init, built from its own guest/init: the two speak one
    /// version of the agent's protocol
    #[arg(long, value_name = "FILE", requires = "before")]
    before_init: Option<PathBuf>,
    /// Give `kluis run` one more argument (repeatable)
    #[arg(long = "kluis-arg", value_name = "ARG", allow_hyphen_values = true)]
    kluis_args: Vec<String>,
    /// This QEMU
    #[arg(long, value_name = "FILE", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// Give up on a system after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
}

impl Cli {
    fn plan(&self) -> anyhow::Result<systems::Plan> {
        let scale = self.scale.unwrap_or(if self.quick { 0.25 } else { 1.0 });
        anyhow::ensure!(
            scale.is_finite() && scale > 0.0 && scale <= 1e6,
            "--scale {scale}: give a number above 0"
        );
        Ok(systems::Plan {
            names: self.workloads.clone(),
            expected: Vec::new(),
            scale,
            repeat: self.repeat.unwrap_or(if self.quick { 1 } else { 3 }),
            boots: self.boots,
            timeout: Duration::from_secs(self.timeout),
            kluis_args: self.kluis_args.clone(),
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) => {
            if cli.json {
                match serde_json::to_string_pretty(&report) {
                    Ok(text) => println!("{text}"),
                    Err(e) => {
                        eprintln!("kluis-bench: cannot write the report as JSON: {e}");
                        return ExitCode::from(2);
                    }
                }
            } else {
                print!("{report}");
            }
            if report.passed() {
                ExitCode::SUCCESS
            } else {
                eprintln!("kluis-bench: FAILED: a system gave a wrong answer or did not finish");
                ExitCode::FAILURE
            }
        }
        Err(e) => {
            eprintln!("kluis-bench: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<report::Report> {
    let mut plan = cli.plan()?;
    let kernel_and_initrd = cli.kernel.clone().zip(cli.initrd.clone());
    let prepared = prepare::prepare(kernel_and_initrd, cli.before_init.as_deref(), &mut plan)?;
    let wanted = |kind| !cli.skip.contains(&kind);
    let mut results = Vec::new();
    if wanted(systems::Kind::Native) {
        results.push(systems::native(&plan, &prepared));
    }
    if wanted(systems::Kind::Tcg) {
        results.push(systems::tcg(&plan, &prepared, &cli.qemu));
    }
    if wanted(systems::Kind::Kluis) {
        results.push(systems::kluis(&plan, &prepared, systems::Kind::Kluis, cli.kluis.as_deref()));
    }
    if let Some(before) = &cli.before
        && wanted(systems::Kind::Before)
    {
        results.push(systems::kluis(&plan, &prepared, systems::Kind::Before, Some(before)));
    }
    Ok(report::Report::new(&plan, results))
}
