//! Round trips per second, beside a function call and a system call.

use std::hint::black_box;
use std::time::Instant;

use check_interface::CheckClient;
use enclave_host::{Enclave, Files};
use enclave_interface::Caller;

use crate::options;

/// Measures `rounds` of each.
pub fn bench(files: &Files, rounds: u32) -> Result<(), String> {
    let enclave = Enclave::load(files.clone(), options().switchless(1)).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    let data = vec![7; 4096];
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    measure("function call", rounds, || {
        black_box(add as fn(u64, u64) -> u64)(black_box(1), black_box(2));
        Ok(())
    })?;
    measure("system call (getppid)", rounds, || {
        // SAFETY: getppid has no preconditions.
        black_box(unsafe { libc::getppid() });
        Ok(())
    })?;
    measure("ecall, empty", rounds, || enclave.call(0, &[]).map(drop).map_err(|e| failed(&e)))?;
    measure("ecall, 4 KiB in and out", rounds, || check.echo(&data).map(drop).map_err(|e| failed(&e)))?;
    let start = Instant::now();
    let done = check.call_host(rounds).map_err(|e| failed(&e))?;
    report("ocall, empty", done, start);
    let start = Instant::now();
    let done = check.echo_by_host(rounds, &data).map_err(|e| failed(&e))?;
    report("ocall, 4 KiB out and in", done, start);
    let start = Instant::now();
    let done = check.call_host_switchless(rounds).map_err(|e| failed(&e))?;
    report("ocall without leaving, empty", done, start);
    Ok(())
}

#[inline(never)]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn measure(what: &str, rounds: u32, mut work: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let start = Instant::now();
    for _ in 0..rounds {
        work()?;
    }
    report(what, rounds, start);
    Ok(())
}

fn report(what: &str, rounds: u32, start: Instant) {
    println!("{what}: {:.0} per second", f64::from(rounds) / start.elapsed().as_secs_f64());
}
