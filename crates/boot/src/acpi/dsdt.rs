//! DSDT: the devices that cannot be found by probing (*ACPI 6.5 §5.2.11.1,
//! §6*).

use super::tables::AmlSdt;
use super::{Board, OEM_ID, OEM_REVISION, OEM_TABLE_ID, Pci};
use acpi_tables::aml::*;
use acpi_tables::{Aml, sdt::Sdt};
use std::ops::Range;

pub(super) fn build(board: &Board) -> AmlSdt {
    let mut aml = Vec::new();
    let s5 = Package::new(vec![&board.pm.s5, &board.pm.s5, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(&mut aml);

    let mut sb = Vec::new();
    pci_root(&board.pci, &mut sb);
    motherboard(board, &mut sb);
    if let Some(serial) = board.serial {
        isa_device("COM1", "PNP0501", serial.port, 8, serial.irq, &mut sb);
    }
    if let Some(irq) = board.rtc_irq {
        isa_device("RTC_", "PNP0B00", 0x70, 2, irq, &mut sb);
    }
    for uid in 0..board.apic_ids.len() {
        Device::new(
            format!("C{uid:03X}").as_str().into(),
            vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &uid)],
        )
        .to_aml_bytes(&mut sb);
    }
    for (i, range) in board.epc.iter().enumerate() {
        epc(i, range, &mut sb);
    }
    aml.extend(Scope::raw("\\_SB_".into(), sb));

    // Revision 2: integers have 64 bits.
    let mut t = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    t.append_slice(&aml);
    AmlSdt(t)
}

/// PCI Express root bridge: bus range, windows and INTx routing.
fn pci_root(pci: &Pci, sink: &mut Vec<u8>) {
    let bus = AddressSpace::new_bus_number(0u16, u16::from(pci.last_bus));
    // The bridge decodes all ports but its own configuration ports.
    let config = IO::new(0xcf8, 0xcf8, 1, 8);
    let io_low = AddressSpace::new_io(0u16, 0xcf7, None);
    let io_high = AddressSpace::new_io(0xd00u16, 0xffff, None);
    let (start, last) = (pci.mem32.start as u32, (pci.mem32.end - 1) as u32);
    let mem32 = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, start, last, None);
    let mem64 = pci.mem64.as_ref().map(memory);
    let mut resources: Vec<&dyn Aml> = vec![&bus, &config, &io_low, &io_high, &mem32];
    if let Some(m) = &mem64 {
        resources.push(m);
    }

    let mut prt = PackageBuilder::new();
    for device in 0..32u8 {
        for pin in 0..4u8 {
            let address = u32::from(device) << 16 | 0xffff; // every function
            let gsi = pci.gsi(device, pin);
            prt.add_element(&Package::new(vec![&address, &pin, &ZERO, &gsi]));
        }
    }

    Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            &Name::new("_PRT".into(), &prt),
            // The system may control every PCI Express feature it asks for:
            // hand the capabilities buffer back unchanged (PCI Firmware 3.3
            // §4.5.1).
            &Method::new("_OSC".into(), 4, false, vec![&Return::new(&Arg(3))]),
        ],
    )
    .to_aml_bytes(sink);
}

/// Motherboard resources: the ECAM window, which Linux uses only when it is
/// reserved here or in the memory map, and the PM ports.
fn motherboard(board: &Board, sink: &mut Vec<u8>) {
    let ecam = board.pci.ecam();
    let ecam32 = (ecam.end <= 1 << 32)
        .then(|| Memory32Fixed::new(true, ecam.start as u32, (ecam.end - ecam.start) as u32));
    let ecam64 = memory(&ecam);
    let pm = &board.pm;
    let event = IO::new(pm.event, pm.event, 1, 4);
    let control = IO::new(pm.control, pm.control, 1, 2);
    let timer = IO::new(pm.timer, pm.timer, 1, 4);
    let first: &dyn Aml = match &ecam32 {
        Some(m) => m,
        None => &ecam64,
    };
    Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![first, &event, &control, &timer])),
        ],
    )
    .to_aml_bytes(sink);
}

fn isa_device(name: &str, hid: &str, port: u16, ports: u8, irq: u8, sink: &mut Vec<u8>) {
    let io = IO::new(port, port, 1, ports);
    let interrupt = Interrupt::new(true, true, false, false, u32::from(irq));
    Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(hid)),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io, &interrupt])),
        ],
    )
    .to_aml_bytes(sink);
}

/// Enclave page cache section. Linux finds the EPC by CPUID; others look for
/// this device.
fn epc(index: usize, range: &Range<u64>, sink: &mut Vec<u8>) {
    let name = format!("EP{index:02X}");
    // _STR is a buffer of UTF-16 (§6.1.10).
    let description = "Enclave Page Cache 1.0\0".encode_utf16().flat_map(u16::to_le_bytes);
    Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &"INT0E0C"),
            &Name::new("_UID".into(), &index),
            &Name::new("_STR".into(), &BufferData::new(description.collect())),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&memory(range)])),
            &Name::new("_STA".into(), &0xfu8),
        ],
    )
    .to_aml_bytes(sink);
}

/// `range` must not be empty.
fn memory(range: &Range<u64>) -> AddressSpace<u64> {
    let cacheable = AddressSpaceCacheable::NotCacheable;
    AddressSpace::new_memory(cacheable, true, range.start, range.end - 1, None)
}
