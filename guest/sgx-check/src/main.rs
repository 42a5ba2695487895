//! Exercises the kernel's SGX driver and an enclave from inside a guest.
//!
//! ```text
//! sgx-check life         an enclave's life step by step (needs SGX2 from "grow" on)
//! sgx-check sgx1         the part of it that SGX1 has
//! sgx-check page MIB     an enclave of MIB MiB of random content, verified twice
//! sgx-check bench        what entries, exits and leaves cost
//! sgx-check large MIB    what going through MIB MiB costs inside and outside
//! sgx-check secret       a production enclave that keeps a secret; what root sees of it
//! sgx-check debug        a debug enclave read through ptrace's way
//! sgx-check hold         keeps a secret until standard input ends, then tells it
//! sgx-check kexec KERNEL INITRD CMDLINE
//!                        starts another kernel while an enclave lives
//! ```
//!
//! Prints a line for each step. Exit codes: 0 all as it must be, 1 not, 2 bad usage.

mod bench;
mod driver;
mod image;
mod kexec;
mod life;
mod paging;
mod secret;
mod vdso;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(enter) = vdso::find() else {
        eprintln!("sgx-check: the kernel has no __vdso_sgx_enter_enclave");
        return ExitCode::from(1);
    };
    let done = match args[..] {
        ["life"] => life::run(enter, true),
        ["sgx1"] => life::run(enter, false),
        ["page", mib] => match mib.parse() {
            Ok(mib) if (1..=4096).contains(&mib) => paging::run(enter, mib),
            _ => return usage(),
        },
        ["secret"] => secret::production(enter),
        ["bench"] => bench::run(enter),
        ["large", mib] => match mib.parse() {
            Ok(mib) if (1..=4096).contains(&mib) => bench::large(enter, mib),
            _ => return usage(),
        },
        ["debug"] => secret::debug(enter),
        ["hold"] => secret::hold(enter),
        ["kexec", kernel, initrd, cmdline] => kexec::run(enter, kernel, initrd, cmdline),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::from(1)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: sgx-check life | sgx1 | page MIB | bench | large MIB | secret | debug | hold | \
         kexec KERNEL INITRD CMDLINE"
    );
    ExitCode::from(2)
}

/// A step: prints what was seen, and fails if it is not what must be.
pub fn step<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, must: T) -> Result<(), String> {
    if seen == must {
        println!("{what}: ok");
        Ok(())
    } else {
        Err(format!("{what}: {seen:x?}, not {must:x?}"))
    }
}
