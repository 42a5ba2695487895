//! ACPI tables, read back by a parser that shares nothing with the builder.
#![allow(clippy::single_range_in_vec_init)] // one RAM range is meant

mod common;

use boot::Layout;
use boot::acpi::{Board, write};
use common::*;
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

struct Read {
    mem: Mem,
    tables: BTreeMap<String, (u64, Vec<u8>)>,
}

fn ram() -> Vec<std::ops::Range<u64>> {
    vec![0..2 * GIB, 4 * GIB..5 * GIB]
}

/// Writes the tables and follows every pointer, checking signature, length,
/// checksum and place.
fn read(board: &Board) -> Read {
    let (mem, _) = guest(&[0..1 << 20]);
    let layout = Layout::new(ram(), vec![]);
    let rsdp = write(&mem, board, &layout).unwrap();
    assert_eq!((rsdp, rsdp % 16), (layout.rsdp(), 0));
    let r = bytes(&mem, rsdp, 36);
    assert_eq!(&r[..8], b"RSD PTR ");
    assert_eq!((sum(&r[..20]), sum(&r)), (0, 0));
    assert_eq!((r[15], u32_at(&mem, rsdp + 20)), (2, 36));

    let mut tables = BTreeMap::new();
    let mut table = |at: u64| {
        let len = u32_at(&mem, at + 4) as usize;
        let t = bytes(&mem, at, len);
        let name = String::from_utf8(t[..4].to_vec()).unwrap();
        assert!(at >= layout.acpi.start && at + len as u64 <= layout.acpi.end, "{name}");
        assert_eq!((sum(&t), at % 64), (0, 0), "{name}");
        tables.insert(name, (at, t.clone()));
        t
    };
    let xsdt = table(u64_at(&mem, rsdp + 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let rsdt = table(u64::from(u32_at(&mem, rsdp + 16)));
    assert_eq!(&rsdt[..4], b"RSDT");
    let old = rsdt[36..].chunks_exact(4).map(|e| u64::from(u32_in(e, 0)));
    let new: Vec<_> = xsdt[36..].chunks_exact(8).map(|e| u64_in(e, 0)).collect();
    assert!(old.eq(new.iter().copied()) && new.len() == 4, "both root tables name the same");
    for at in new {
        table(at);
    }
    let fadt = tables["FACP"].1.clone();
    let dsdt = u64::from(u32_in(&fadt, 40));
    assert_eq!(u64_in(&fadt, 140), dsdt);
    let facs = u64::from(u32_in(&fadt, 36));
    assert_eq!((facs, u64_in(&fadt, 132)), (layout.nvs.start, 0));
    assert_eq!((bytes(&mem, facs, 4), u32_at(&mem, facs + 4)), (b"FACS".to_vec(), 64));
    let len = u32_at(&mem, dsdt + 4) as usize;
    let d = bytes(&mem, dsdt, len);
    assert_eq!((sum(&d), &d[..4]), (0, b"DSDT".as_slice()));
    tables.insert("DSDT".into(), (dsdt, d));

    // No table overlaps another.
    let mut at: Vec<_> = tables.values().map(|(a, t)| (*a, *a + t.len() as u64)).collect();
    at.sort_unstable();
    assert!(at.windows(2).all(|w| w[0].1 <= w[1].0));
    Read { mem, tables }
}

fn sum(b: &[u8]) -> u8 {
    b.iter().fold(0, |a, b| a.wrapping_add(*b))
}

fn u16_in(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}

fn u32_in(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u64_in(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

/// Entries of MADT or SRAT: type and whole entry.
fn entries(table: &[u8], from: usize) -> Vec<(u8, &[u8])> {
    let (mut at, mut out) = (from, Vec::new());
    while at < table.len() {
        let len = usize::from(table[at + 1]);
        assert!(len >= 2 && at + len <= table.len());
        out.push((table[at], &table[at..at + len]));
        at += len;
    }
    out
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn fadt_says_what_the_board_has() {
    let f = &read(&Board::new(4, ram())).tables["FACP"].1;
    assert_eq!((f.len(), f[8], f[131]), (276, 6, 5));
    assert_eq!(u16_in(f, 46), 9, "SCI");
    assert_eq!((u32_in(f, 48), f[52], f[53]), (0, 0, 0), "always in ACPI mode");
    assert_eq!((u32_in(f, 56), u32_in(f, 64), u32_in(f, 76)), (0x600, 0x604, 0x608));
    assert_eq!((f[88], f[89], f[91]), (4, 2, 4));
    assert_eq!(f[108], 0x32, "century");
    assert_eq!(u16_in(f, 109), 0b1_0101, "ISA devices, no VGA, no ASPM; MSI works, no 8042");
    let flags = u32_in(f, 112);
    assert_eq!(flags >> 20 & 1, 0, "not hardware-reduced");
    assert_eq!(flags >> 10 & 1, 1, "reset register");
    assert_eq!(flags >> 8 & 1, 0, "24-bit timer");
    assert_eq!((f[116], u64_in(f, 120), f[128]), (1, 0xcf9, 6));
    // Extended addresses agree with the old ones.
    for (x, old) in [(148, 56), (172, 64), (208, 76)] {
        assert_eq!((f[x], u64_in(f, x + 4)), (1, u64::from(u32_in(f, old))));
    }

    let mut b = Board::new(1, ram());
    b.pm.timer_32bit = true;
    b.pm.power_button = true;
    b.rtc_irq = None;
    let f = &read(&b).tables["FACP"].1;
    let flags = u32_in(f, 112);
    assert_eq!((flags >> 8 & 1, flags >> 4 & 1), (1, 0));
    assert_eq!((f[108], u16_in(f, 109) >> 5 & 1), (0, 1));
}

#[test]
fn madt_lists_processors_and_interrupts() {
    let m = &read(&Board::new(3, ram())).tables["APIC"].1;
    assert_eq!((u32_in(m, 36), u32_in(m, 40)), (0xfee0_0000, 0));
    let e = entries(m, 44);
    let of = |t: u8| e.iter().filter(|e| e.0 == t).map(|e| e.1).collect::<Vec<_>>();
    let lapics = of(0);
    assert_eq!(lapics.len(), 3);
    for (i, l) in lapics.iter().enumerate() {
        assert_eq!(*l, [0, 8, i as u8, i as u8, 1, 0, 0, 0]);
    }
    assert_eq!(of(1), [[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]]);
    assert_eq!(of(2), [[2, 10, 0, 0, 2, 0, 0, 0, 5, 0], [2, 10, 0, 9, 9, 0, 0, 0, 13, 0]]);
    assert_eq!(of(4), [[4, 6, 0xff, 0, 0, 1]]);
    assert!(of(9).is_empty() && of(10).is_empty());

    let mut b = Board::new(2, ram());
    b.apic_ids = vec![0, 0x1234];
    b.pic = true;
    let r = read(&b);
    let m = &r.tables["APIC"].1;
    assert_eq!(u32_in(m, 40), 1, "PCAT_COMPAT");
    let e = entries(m, 44);
    let x = e.iter().find(|e| e.0 == 9).unwrap().1;
    assert_eq!((x.len(), u32_in(x, 4), u32_in(x, 8), u32_in(x, 12)), (16, 0x1234, 1, 1));
    assert!(e.iter().any(|e| e.0 == 10 && e.1.len() == 12));
    let s = &r.tables["SRAT"].1;
    let e = entries(s, 48);
    let x = e.iter().find(|e| e.0 == 2).unwrap().1;
    assert_eq!((x.len(), u32_in(x, 8), u32_in(x, 12)), (24, 0x1234, 1));
}

#[test]
fn srat_covers_processors_ram_and_epc() {
    let mut b = Board::new(2, ram());
    b.epc = vec![8 * GIB..8 * GIB + (64 << 20)];
    let r = read(&b);
    let s = &r.tables["SRAT"].1;
    let e = entries(s, 48);
    let cpus: Vec<_> = e.iter().filter(|e| e.0 == 0).collect();
    assert_eq!(cpus.len(), 2);
    assert!(cpus.iter().all(|c| c.1.len() == 16 && c.1[2] == 0 && u32_in(c.1, 4) == 1));
    let memory: Vec<_> = e
        .iter()
        .filter(|e| e.0 == 1)
        .map(|e| (e.1.len(), u32_in(e.1, 2), u64_in(e.1, 8), u64_in(e.1, 16), u32_in(e.1, 28)))
        .collect();
    assert_eq!(memory, [(40, 0, 0, 2 * GIB, 1), (40, 0, 4 * GIB, GIB, 1), (40, 0, 8 * GIB, 64 << 20, 1),]);
    assert!(contains(&r.tables["DSDT"].1, b"INT0E0C\0"));
}

#[test]
fn mcfg_names_the_ecam_window() {
    let mut b = Board::new(1, ram());
    b.pci.last_bus = 15;
    let r = read(&b);
    let m = &r.tables["MCFG"].1;
    assert_eq!((m.len(), u64_in(m, 44), u16_in(m, 52), m[54], m[55]), (60, 0xe000_0000, 0, 0, 15));
    // The same window as a motherboard resource: Memory32Fixed.
    let d = &r.tables["DSDT"].1;
    assert!(contains(d, &[0x86, 9, 0, 1, 0, 0, 0, 0xe0, 0, 0, 0, 1]));
}

#[test]
fn dsdt_has_the_devices() {
    let mut b = Board::new(2, ram());
    b.pci.mem64 = Some(0x10_0000_0000..0x20_0000_0000);
    let r = read(&b);
    let d = &r.tables["DSDT"].1;
    assert_eq!(d[8], 2, "64-bit integers");
    // Name (_S5, Package (4) {0, 0, 0, 0}): what programs that know QEMU write blindly
    assert!(contains(d, b"\x08_S5_\x12\x06\x04\x00\x00\x00\x00"));
    // Device () {Name (_HID, "ACPI0007") Name (_UID, One)
    assert!(contains(d, b"C001\x08_HID\x0dACPI0007\0\x08_UID\x01"));
    assert!(!contains(d, b"C002"));
    // Bus numbers 0 to 255.
    assert!(contains(d, &[0x88, 13, 0, 2, 12, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 1]));
    // 64-bit window.
    let mut q = vec![0x8a, 43, 0, 0, 12, 1];
    for v in [0u64, 0x10_0000_0000, 0x1f_ffff_ffff, 0, 0x10_0000_0000] {
        q.extend(v.to_le_bytes());
    }
    assert!(contains(d, &q));
    // _PRT, device 3, INTB#: GSI 16 + (3 + 1) % 8 = 20.
    assert!(contains(d, b"\x0c\xff\xff\x03\x00\x01\x00\x0a\x14"));
    assert_eq!(b.pci.gsi(3, 1), 20);
    // COM1: PNP0501, ports, edge-triggered active-high interrupt 4.
    assert!(contains(d, &[0x0c, 0x41, 0xd0, 0x05, 0x01]));
    assert!(contains(d, &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0]));
    b.serial = None;
    assert!(!contains(&read(&b).tables["DSDT"].1, b"COM1"));
}

#[test]
fn the_largest_board_fits() {
    let mut b = Board::new(255, ram());
    b.epc = (0..8).map(|i| (8 + i) * GIB..(9 + i) * GIB).collect();
    let r = read(&b);
    assert!(contains(&r.tables["DSDT"].1, b"C0FE"));
    assert_eq!(bytes(&r.mem, boot::layout::ACPI_NVS.start, 4), b"FACS");
}

#[test]
fn impossible_boards_are_refused() {
    let layout = Layout::new(ram(), vec![]);
    let check = |change: &dyn Fn(&mut Board), what: &str| {
        let mut b = Board::new(2, ram());
        change(&mut b);
        let text = boot::acpi::build(&b, &layout).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    check(&|b| b.apic_ids.clear(), "0 processors");
    check(&|b| b.apic_ids = (0..256).collect(), "256 processors");
    check(&|b| b.apic_ids = vec![3, 3], "APIC IDs");
    check(&|b| b.apic_ids = vec![0, 255], "APIC IDs");
    check(&|b| b.sci_irq = 16, "ISA IRQs");
    check(&|b| b.pm.s5 = 8, "3 bits");
    check(&|b| b.pci.intx = 16..16, "INTx");
    check(&|b| b.pci.ecam_base = 0xe000_1000, "ECAM");
    check(&|b| b.pci.ecam_base = u64::MAX << 20, "ECAM");
    check(&|b| b.pci.mem32 = 5..5, "32-bit PCI window");
    check(&|b| b.pci.mem32.end = 1 << 33, "32-bit PCI window");
    check(&|b| b.pci.mem64 = Some(1..2), "64-bit PCI window");
    check(&|b| b.ram.clear(), "RAM");
    check(&|b| b.epc = vec![GIB..2 * GIB], "overlap");
    check(&|b| b.pci.mem32.start = GIB, "overlap");

    let mut small = layout.clone();
    small.acpi.end = small.acpi.start + 0x1000;
    let text = boot::acpi::build(&Board::new(64, ram()), &small).unwrap_err().to_string();
    assert!(text.contains("4096"), "{text}");
}

/// `cargo test -p boot --test acpi -- --ignored` with `ACPI_OUT` set writes one
/// file a table, for `iasl -d`.
#[test]
#[ignore = "writes files for iasl"]
fn dump() {
    let dir = std::env::var("ACPI_OUT").expect("set ACPI_OUT to a folder");
    let mut b = Board::new(4, ram());
    b.pci.mem64 = Some(0x10_0000_0000..0x20_0000_0000);
    b.epc = vec![8 * GIB..8 * GIB + (64 << 20)];
    for (name, (_, t)) in read(&b).tables {
        std::fs::write(format!("{dir}/{name}.aml"), t).unwrap();
    }
}
