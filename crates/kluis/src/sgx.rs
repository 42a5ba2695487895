//! `kluis sgx`: what an operator may see of a machine's enclaves. Never the
//! content of a page.

use std::fmt::Write;

use serde::Serialize;
use sgx::Package;
use sgx::inspect::{self, EnclaveView, View};

use crate::cli::SgxCommand;
use crate::control::{self, Ask};
use crate::exit::Error;
use crate::units;

/// The EPC of a machine at one time.
#[derive(Debug, Serialize)]
pub(crate) struct Epc {
    /// Physical address of its first byte.
    address: u64,
    #[serde(flatten)]
    view: View,
    /// Why it is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<String>,
    memory: Memory,
}

/// The memory behind it.
#[derive(Debug, Serialize)]
struct Memory {
    /// What keeps plaintext from others.
    backend: &'static str,
    /// Most pages of plaintext, and those there are.
    plaintext_pages_max: usize,
    plaintext_pages: usize,
    /// Pages encrypted and written to ordinary memory, and verified on their way back.
    write_backs: u64,
    verified: u64,
    /// Ordinary memory in use for ciphertext, codes and the tree.
    encrypted_bytes: u64,
}

impl Epc {
    /// Looks at it.
    pub(crate) fn of(package: &Package) -> Epc {
        let stats = package.dram.stats();
        Epc {
            address: package.physical(sgx::EpcPage(0)),
            view: inspect::view(package),
            loss: package.dram.loss().map(|loss| loss.to_string()),
            memory: Memory {
                backend: stats.backend,
                plaintext_pages_max: stats.slots,
                plaintext_pages: stats.slots_used,
                write_backs: stats.write_backs,
                verified: stats.verified,
                encrypted_bytes: stats.dram_bytes,
            },
        }
    }

    /// A leaf was executed for an enclave: the kernel's first look at the EPC
    /// removes pages only.
    pub(crate) fn used(&self) -> bool {
        self.view.counters.leaves.iter().any(|(name, _)| *name == "ECREATE")
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let (view, memory) = (&self.view, &self.memory);
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<12} {value}");
        };
        let pages = view.epc_bytes >> 12;
        let size = units::bytes(view.epc_bytes);
        line("EPC", format!("{size} at {:#x}, {} of {pages} pages in use", self.address, view.pages_used));
        match &self.loss {
            Some(why) => line("state", format!("LOST until the machine is reset: {why}")),
            None => line("state", "good".into()),
        }
        let (now, most) = (memory.plaintext_pages, memory.plaintext_pages_max);
        line("plaintext", format!("{now} pages, at most {most}, in {}", memory.backend));
        let encrypted = units::bytes(memory.encrypted_bytes);
        let traffic = format!("{} pages written, {} verified", memory.write_backs, memory.verified);
        line("encrypted", format!("{encrypted} of memory; {traffic}"));
        if view.version_arrays != 0 {
            line("VA pages", view.version_arrays.to_string());
        }
        let counts = |all: &[(&'static str, u64)]| {
            all.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
        };
        let counters = &view.counters;
        if !counters.leaves.is_empty() {
            line("leaves", counts(&counters.leaves));
            line("", format!("{} of them refused", counters.failed));
        }
        let exits = counters.exits.iter().map(|(vector, n)| format!("vector {vector} {n}"));
        let exits: Vec<_> = exits.chain([format!("interrupts {}", counters.interrupts)]).collect();
        line("exits", exits.join(", "));
        line("EPCM faults", counters.epcm_faults.to_string());
        line("enclaves", view.enclaves.len().to_string());
        view.enclaves.iter().for_each(|enclave| out += &of_enclave(enclave));
        out
    }
}

fn of_enclave(enclave: &EnclaveView) -> String {
    let mut out = String::new();
    let state = if enclave.initialized { "initialised" } else { "not initialised yet" };
    let end = enclave.base.saturating_add(enclave.size);
    let _ = writeln!(
        out,
        "\nenclave      SECS in page {}, {:#x}-{end:#x}, {state}",
        enclave.secs_page, enclave.base
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    if enclave.initialized {
        line("MRENCLAVE", &enclave.mrenclave);
        line("MRSIGNER", &enclave.mrsigner);
        line("product", &format!("ISVPRODID {}, ISVSVN {}", enclave.isvprodid, enclave.isvsvn));
    }
    line("attributes", &format!("{}, XFRM {:#x}", enclave.attributes.join(" "), enclave.xfrm));
    line("threads", &format!("{} inside", enclave.processors_inside));
    for pages in &enclave.pages {
        let state = pages.state.join(" ");
        line(
            "pages",
            format!("{:>6} {:<5} {} {state}", pages.pages, pages.page_type, pages.permissions).trim_end(),
        );
    }
    out
}

/// Does what was asked.
///
/// # Errors
/// There is no such machine.
pub(crate) fn main(command: &SgxCommand, json: bool) -> Result<u8, Error> {
    let SgxCommand::Inspect { vm } = command;
    control::main(*vm, &Ask::Inspect, json)
}
