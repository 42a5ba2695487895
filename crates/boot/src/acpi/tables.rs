//! RSDT, MADT, MCFG and SRAT.

use super::{Board, OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

/// `Sdt` keeps length and checksum right with every byte appended.
fn table(signature: &[u8; 4], revision: u8) -> Sdt {
    Sdt::new(*signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION)
}

/// Root system description, with addresses of 32 bits (*ACPI 6.5 §5.2.7*).
pub(super) fn rsdt(tables: &[u64]) -> AmlSdt {
    let mut t = table(b"RSDT", 1);
    for &at in tables {
        t.append(at as u32); // they lie below 1 MiB
    }
    AmlSdt(t)
}

/// Flags of an interrupt source override (*ACPI 6.5 §5.2.12.5*, MPS INTI flags): active high,
/// level triggered.
const HIGH_LEVEL: u16 = 0b11 << 2 | 0b01;
/// Active high, edge triggered.
const HIGH_EDGE: u16 = 0b01 << 2 | 0b01;
const ENABLED: u32 = 1;

/// Multiple APIC description (*ACPI 6.5 §5.2.12*).
pub(super) fn madt(board: &Board) -> AmlSdt {
    let mut t = table(b"APIC", 5);
    t.append(board.lapic_base);
    t.append(u32::from(board.pic)); // PCAT_COMPAT
    for (uid, &id) in board.apic_ids.iter().enumerate() {
        match u8::try_from(id) {
            Ok(id) => {
                t.append_slice(&[0, 8, uid as u8, id]); // processor local APIC
                t.append(ENABLED);
            }
            Err(_) => {
                t.append_slice(&[9, 16, 0, 0]); // processor local x2APIC
                t.append(id);
                t.append(ENABLED);
                t.append(uid as u32);
            }
        }
    }
    t.append_slice(&[1, 12, board.ioapic.id, 0]); // I/O APIC
    t.append(board.ioapic.base);
    t.append(board.ioapic.gsi_base);
    // Interrupt source overrides: the PIT is on pin 2, as pin 0 is the 8259's;
    // the SCI is level triggered.
    let mut iso = |irq: u8, gsi: u32, flags: u16| {
        t.append_slice(&[2, 10, 0, irq]);
        t.append(gsi);
        t.append(flags);
    };
    iso(0, 2, HIGH_EDGE);
    iso(board.sci_irq, u32::from(board.sci_irq), HIGH_LEVEL);
    // NMI on LINT1 of every processor: 0xff, or all ones for x2APIC UIDs.
    t.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    if board.apic_ids.iter().any(|&id| id > 255) {
        t.append_slice(&[0xa, 12, 0, 0]);
        t.append(u32::MAX);
        t.append_slice(&[1, 0, 0, 0]);
    }
    AmlSdt(t)
}

/// ECAM (*PCI Firmware Specification 3.3 §4.1.2*).
pub(super) fn mcfg(board: &Board) -> MCFG {
    let mut t = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    t.add_ecam(board.pci.ecam_base, 0, 0, board.pci.last_bus);
    t
}

/// System resource affinity (*ACPI 6.5 §5.2.16*): all in node 0.
pub(super) fn srat(board: &Board) -> AmlSdt {
    let mut t = table(b"SRAT", 3);
    t.append(1u32); // reserved, must be 1
    t.append(0u64);
    for &id in &board.apic_ids {
        match u8::try_from(id) {
            Ok(id) => {
                t.append_slice(&[0, 16, 0, id]); // local APIC affinity
                t.append(ENABLED);
                t.append(0u64); // SAPIC EID, domain bits 8 to 31, clock domain
            }
            Err(_) => {
                t.append_slice(&[2, 24, 0, 0]); // local x2APIC affinity
                t.append(0u32); // domain
                t.append(id);
                t.append(ENABLED);
                t.append(0u64); // clock domain, reserved
            }
        }
    }
    for r in board.ram.iter().chain(&board.epc) {
        t.append_slice(&[1, 40]); // memory affinity
        t.append(0u32); // domain
        t.append(0u16);
        t.append(r.start);
        t.append(r.end - r.start);
        t.append(0u32);
        t.append(ENABLED);
        t.append(0u64);
    }
    AmlSdt(t)
}

/// An [`Sdt`] that is written like the other tables.
pub(super) struct AmlSdt(pub(super) Sdt);

impl acpi_tables::Aml for AmlSdt {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(self.0.as_slice());
    }
}
