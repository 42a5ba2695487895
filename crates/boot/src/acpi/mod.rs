//! ACPI tables (*ACPI 6.5*): RSDP, XSDT, RSDT, FADT, FACS, DSDT, MADT, MCFG, SRAT.
//!
//! The platform is in ACPI mode from the start (`SMI_CMD` is 0), so the PM1
//! control register must read SCI_EN as 1. There is one NUMA node; SRAT is
//! there because the Linux SGX driver looks for the EPC's node in it. With one
//! node a SLIT would say nothing. The RSDT is for small systems that read nothing
//! else, as QEMU gives them nothing else; all others prefer the XSDT.

mod board;
mod dsdt;
mod fadt;
mod tables;

pub use board::{Board, IoApic, Pci, Pm, Reset, Serial};

use crate::{BootError, Layout};
use acpi_tables::{Aml, facs::FACS, rsdp::Rsdp, xsdt::XSDT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

const OEM_ID: [u8; 6] = *b"KLUIS ";
const OEM_TABLE_ID: [u8; 8] = *b"KLUISVM ";
const OEM_REVISION: u32 = 1;
/// Alignment of every table; the FACS demands it (*ACPI 6.5 §5.2.10*).
const ALIGN: usize = 64;

/// Tables as they are to appear in guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// All but the FACS, from `layout.acpi.start` on; the RSDP comes first.
    pub tables: Vec<u8>,
    /// The FACS, at `layout.nvs.start`.
    pub facs: Vec<u8>,
}

/// Builds the tables for the addresses in `layout`.
///
/// # Errors
/// [`BootError::Board`] when the board cannot be described,
/// [`BootError::Layout`] when the layout is invalid or has too little room.
pub fn build(board: &Board, layout: &Layout) -> Result<Tables, BootError> {
    layout.validate()?;
    board.validate()?;
    let base = layout.acpi.start;
    let mut blob = vec![0; size_of::<Rsdp>()];
    let mut place = |table: &dyn Aml| {
        blob.resize(blob.len().next_multiple_of(ALIGN), 0);
        let at = base + blob.len() as u64;
        table.to_aml_bytes(&mut blob);
        at
    };
    let dsdt = place(&dsdt::build(board));
    let fadt = place(&fadt::build(board, dsdt, layout.nvs.start));
    let madt = place(&tables::madt(board));
    let mcfg = place(&tables::mcfg(board));
    let srat = place(&tables::srat(board));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    // The FADT comes first; the DSDT and FACS are found through it.
    let all = [fadt, madt, mcfg, srat];
    for table in all {
        xsdt.add_entry(table);
    }
    let xsdt = place(&xsdt);
    let rsdt = place(&tables::rsdt(&all));
    let rsdp = rsdp(rsdt, xsdt);
    blob[..rsdp.len()].copy_from_slice(&rsdp);

    let room = layout.acpi.end - base;
    if blob.len() as u64 > room {
        return Err(BootError::Layout(format!(
            "the ACPI tables need {} bytes, their range has {room}",
            blob.len()
        )));
    }
    let mut facs = Vec::new();
    FACS::new().to_aml_bytes(&mut facs);
    Ok(Tables { tables: blob, facs })
}

/// The RSDP (*ACPI 6.5 §5.2.5.3*), which names both root tables.
fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    const CHECKSUM: usize = 8;
    const RSDT: usize = 16;
    const FIRST_PART: usize = 20;
    const EXTENDED_CHECKSUM: usize = 32;
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    // both lie below 1 MiB
    rsdp[RSDT..FIRST_PART].copy_from_slice(&(rsdt as u32).to_le_bytes());
    for (at, part) in [(CHECKSUM, FIRST_PART), (EXTENDED_CHECKSUM, rsdp.len())] {
        rsdp[at] = 0;
        rsdp[at] = rsdp[..part].iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    }
    rsdp
}

/// Writes the tables into guest memory and returns the address of the RSDP,
/// which is `layout.rsdp()`.
///
/// # Errors
/// As [`build`]; [`BootError::Memory`] when `mem` does not back the ranges.
pub fn write(mem: &impl GuestMemory, board: &Board, layout: &Layout) -> Result<u64, BootError> {
    let t = build(board, layout)?;
    mem.write_slice(&t.tables, GuestAddress(layout.acpi.start))?;
    mem.write_slice(&t.facs, GuestAddress(layout.nvs.start))?;
    Ok(layout.rsdp())
}
