//! Round trips per second, beside a function call and a system call.

use std::hint::black_box;
use std::time::Instant;

use check_interface::CheckClient;
use enclave_host::{Enclave, Files};
use enclave_interface::Caller;

use crate::options;

/// Measures `rounds` of each; a line for each, or one JSON object of all.
pub fn bench(files: &Files, rounds: u32, json: bool) -> Result<(), String> {
    let figures = measure_all(files, rounds)?;
    if json {
        let all: Vec<_> = figures.iter().map(|(what, rate)| format!("\"{what}\":{rate:.0}")).collect();
        println!("{{\"per_second\":{{{}}}}}", all.join(","));
    } else {
        figures.iter().for_each(|(what, rate)| println!("{what}: {rate:.0} per second"));
    }
    Ok(())
}

/// What was measured: how often per second.
type Figure = (&'static str, f64);

fn measure_all(files: &Files, rounds: u32) -> Result<Vec<Figure>, String> {
    let enclave = Enclave::load(files.clone(), options().switchless(1)).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    let data = vec![7; 4096];
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    let figures = vec![
        measure("function call", rounds, || {
            black_box(add as fn(u64, u64) -> u64)(black_box(1), black_box(2));
            Ok(())
        })?,
        measure("system call (getppid)", rounds, || {
            // SAFETY: getppid has no preconditions.
            black_box(unsafe { libc::getppid() });
            Ok(())
        })?,
        measure("ecall, empty", rounds, || enclave.call(0, &[]).map(drop).map_err(|e| failed(&e)))?,
        measure("ecall, 4 KiB in and out", rounds, || check.echo(&data).map(drop).map_err(|e| failed(&e)))?,
        inside("ocall, empty", || check.call_host(rounds).map_err(|e| failed(&e)))?,
        inside("ocall, 4 KiB out and in", || check.echo_by_host(rounds, &data).map_err(|e| failed(&e)))?,
        inside("ocall without leaving, empty", || {
            check.call_host_switchless(rounds).map_err(|e| failed(&e))
        })?,
    ];
    Ok(figures)
}

#[inline(never)]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Does some work so many times.
fn measure(
    what: &'static str,
    rounds: u32,
    mut work: impl FnMut() -> Result<(), String>,
) -> Result<Figure, String> {
    inside(what, || (0..rounds).try_for_each(|_| work()).map(|()| rounds))
}

/// Does work that says itself how often it was done.
fn inside(what: &'static str, work: impl FnOnce() -> Result<u32, String>) -> Result<Figure, String> {
    let start = Instant::now();
    let done = work()?;
    Ok((what, f64::from(done) / start.elapsed().as_secs_f64()))
}
