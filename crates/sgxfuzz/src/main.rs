//! The command `kluis-sgxfuzz`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sgxfuzz::{Counts, Fuzz};

/// Fuzzes SGX against a reference model.
///
/// Exits with 0 if all runs agree with the model, 1 if one does not, 2 if it cannot
/// work.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Seeds, the last one excluded; each is one run
    #[arg(long, default_value = "0..20")]
    seeds: String,
    /// Steps of each run
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Plant this bug, such as Owner or EWB.TRACKED
    #[cfg(feature = "planted")]
    #[arg(long)]
    plant: Option<String>,
}

fn main() -> ExitCode {
    match campaign(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("kluis-sgxfuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn campaign(args: &Args) -> anyhow::Result<bool> {
    let (first, end) = args.seeds.split_once("..").context("--seeds is FIRST..END")?;
    #[cfg(feature = "planted")]
    if let Some(wanted) = &args.plant {
        use sgxfuzz::planted::{BUGS, name, plant};
        let bug = BUGS.iter().find(|&&bug| name(bug).eq_ignore_ascii_case(wanted));
        let names = || BUGS.iter().map(|&bug| name(bug)).collect::<Vec<_>>().join(", ");
        plant(Some(*bug.with_context(|| format!("no bug {wanted}; there are {}", names()))?));
    }
    let mut total = Counts::default();
    let mut failures = 0u64;
    for seed in first.parse()?..end.parse()? {
        match Fuzz::run(seed, args.steps) {
            Ok(counts) => total.add(&counts),
            Err(failure) => {
                println!("{failure}\n");
                failures += 1;
                if !args.keep_going {
                    break;
                }
            }
        }
    }
    println!("{total:?}\nfailures: {failures}");
    Ok(failures == 0)
}
