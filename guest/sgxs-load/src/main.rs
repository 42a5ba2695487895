//! Loads an enclave inside a guest with the loader of the Fortanix tools (the
//! `sgxs-loaders` crate, its Linux driver back end) and enters it.
//!
//! ```text
//! sgxs-load ENCLAVE.sgxs ENCLAVE.sig [RDI...]
//! ```
//!
//! Prints what the `sgxs` crate measures, what SIGSTRUCT is signed for, where
//! the enclave lies once it is initialised, and the offset of each TCS. Then it
//! enters the first TCS once for each RDI (hexadecimal), with RSI at a zeroed
//! page, and prints RDI and RSI at EEXIT and what the enclave has put into that
//! page. Exit codes: 0 done, 1 not loaded, 2 bad usage.

mod enter;

use std::fs::File;
use std::process::ExitCode;

use sgxs::crypto::{Hash, SgxHashOps};
use sgxs::loader::{Load, MappingInfo, Tcs};
use sgxs::sigstruct::{self, EnclaveHash};
use sgxs_loaders::isgx::Device;
use sha2::{Digest, Sha256};

/// SHA-256 for the `sgxs` crate, whose own feature for it wants an older `sha2`.
struct Sha(Sha256);

impl SgxHashOps for Sha {
    fn new() -> Self {
        Sha(Sha256::new())
    }
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [stream, signature, entries @ ..] = &args[..] else { return usage() };
    let entries: Result<Vec<u64>, _> = entries.iter().map(|n| u64::from_str_radix(n, 16)).collect();
    let Ok(entries) = entries else { return usage() };
    match run(stream, signature, &entries) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::from(1)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: sgxs-load ENCLAVE.sgxs ENCLAVE.sig [RDI...]");
    ExitCode::from(2)
}

fn run(stream: &str, signature: &str, entries: &[u64]) -> Result<(), String> {
    let open = |name: &str| File::open(name).map_err(|e| format!("cannot open {name}: {e}"));
    let hash = EnclaveHash::from_stream::<_, Sha>(&mut open(stream)?)
        .map_err(|e| format!("{stream} is not a stream of an enclave: {e:#}"))?;
    let sig = sigstruct::read(&mut open(signature)?).map_err(|e| format!("cannot read {signature}: {e}"))?;
    println!("measurement {}", hex(&hash.hash()));
    println!("signed {}", hex(&sig.enclavehash));

    // No provider of tokens: the driver has the signer allowed.
    let mut device = Device::new().map_err(|e| format!("no SGX device: {e}"))?.build();
    let loaded = device
        .load(&mut open(stream)?, &sig, sig.attributes, sig.miscselect)
        .map_err(|e| format!("the loader refused: {e:#}"))?;
    let base = loaded.info.address() as u64;
    println!("initialised base {base:#x} size {:#x}", loaded.info.size());
    for tcs in &loaded.tcss {
        println!("tcs {:#x}", tcs.address() as u64 - base);
    }
    for &rdi in entries {
        let Some(tcs) = loaded.tcss.first() else { return Err("no TCS to enter by".into()) };
        let mut page = enter::Page::zeroed();
        let [out_rdi, out_rsi] = enter::enter(tcs, rdi, &mut page);
        let len = page.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        println!("exit rdi {out_rdi:#x} rsi {out_rsi:#x} page {}", hex(&page.0[..len]));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
