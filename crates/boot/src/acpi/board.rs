//! What the ACPI tables say about the board.

use crate::BootError;
use std::ops::Range;

/// A PC-like board without VGA, 8042 or firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// APIC ID of every processor, boot processor first; its index is the
    /// ACPI processor UID.
    pub apic_ids: Vec<u32>,
    /// Local APIC page, physical address.
    pub lapic_base: u32,
    /// The I/O APIC.
    pub ioapic: IoApic,
    /// Whether there are two 8259 as well (`PCAT_COMPAT`).
    pub pic: bool,
    /// ISA IRQ and GSI of the system control interrupt.
    pub sci_irq: u8,
    /// Power management registers.
    pub pm: Pm,
    /// Reset register.
    pub reset: Reset,
    /// PCI host bridge.
    pub pci: Pci,
    /// COM1.
    pub serial: Option<Serial>,
    /// ISA IRQ of the RTC at ports 0x70 and 0x71, if there is one.
    pub rtc_irq: Option<u8>,
    /// RAM, for memory affinity.
    pub ram: Vec<Range<u64>>,
    /// Enclave page cache sections, for memory affinity and `INT0E0C` devices.
    pub epc: Vec<Range<u64>>,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// APIC ID of the I/O APIC.
    pub id: u8,
    /// Register page, physical address.
    pub base: u32,
    /// GSI of pin 0.
    pub gsi_base: u32,
}

/// Power management register block ports (*ACPI 6.5 §4.8.3*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pm {
    /// PM1a event block: status and enable, 2 bytes each.
    pub event: u16,
    /// PM1a control block, 2 bytes.
    pub control: u16,
    /// PM timer, 4 bytes.
    pub timer: u16,
    /// Whether the PM timer counts 32 bits rather than 24.
    pub timer_32bit: bool,
    /// Whether PM1 status and enable have the power button bit.
    pub power_button: bool,
    /// `SLP_TYP` for S5, 0 to 7.
    pub s5: u8,
}

/// Reset register: an I/O port and the value that resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Port, 1 byte.
    pub port: u16,
    /// Value to write.
    pub value: u8,
}

/// PCI host bridge of segment 0 with its buses from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// ECAM window, physical address, at a multiple of 1 MiB.
    pub ecam_base: u64,
    /// Highest bus number; the ECAM window has 1 MiB for each bus.
    pub last_bus: u8,
    /// Window for 32-bit memory BARs.
    pub mem32: Range<u64>,
    /// Window for 64-bit memory BARs, above 4 GiB.
    pub mem64: Option<Range<u64>>,
    /// GSIs for INTA# to INTD#: device `d`, pin `p` (0 for INTA#) uses
    /// `intx.start + (d + p) % intx.len()`.
    pub intx: Range<u32>,
}

impl Pci {
    /// GSI of an INTx pin, as `_PRT` says; `pin` is 0 for INTA#.
    #[must_use]
    pub fn gsi(&self, device: u8, pin: u8) -> u32 {
        let n = (self.intx.end.saturating_sub(self.intx.start)).max(1);
        self.intx.start + (u32::from(device) + u32::from(pin)) % n
    }

    /// ECAM window.
    #[must_use]
    pub fn ecam(&self) -> Range<u64> {
        self.ecam_base..self.ecam_base + ((u64::from(self.last_bus) + 1) << 20)
    }
}

/// A 16550 at an ISA address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial {
    /// First of 8 ports.
    pub port: u16,
    /// ISA IRQ.
    pub irq: u8,
}

impl Board {
    /// The usual board: processors with APIC IDs 0 to `cpus` − 1, 32-bit BARs
    /// from 0xc000_0000, ECAM for 256 buses at 0xe000_0000, I/O APIC at
    /// 0xfec0_0000 with INTx on GSI 16 to 23, PM registers at port 0x600,
    /// reset by 6 to port 0xcf9, off by 0x2000 to port 0x604 as on QEMU's boards.
    #[must_use]
    pub fn new(cpus: u32, ram: Vec<Range<u64>>) -> Self {
        Board {
            apic_ids: (0..cpus).collect(),
            lapic_base: 0xfee0_0000,
            ioapic: IoApic { id: 0, base: 0xfec0_0000, gsi_base: 0 },
            pic: false,
            sci_irq: 9,
            pm: Pm {
                event: 0x600,
                control: 0x604,
                timer: 0x608,
                timer_32bit: false,
                power_button: false,
                s5: 0,
            },
            reset: Reset { port: 0xcf9, value: 6 },
            pci: Pci {
                ecam_base: 0xe000_0000,
                last_bus: 255,
                mem32: 0xc000_0000..0xe000_0000,
                mem64: None,
                intx: 16..24,
            },
            serial: Some(Serial { port: 0x3f8, irq: 4 }),
            rtc_irq: Some(8),
            ram,
            epc: Vec::new(),
        }
    }

    /// Checks what the tables can express and that no two address ranges
    /// collide.
    ///
    /// # Errors
    /// [`BootError::Board`] naming the first rule broken.
    pub fn validate(&self) -> Result<(), BootError> {
        let fail = |s: String| Err(BootError::Board(s));
        if !(1..=255).contains(&self.apic_ids.len()) {
            return fail(format!("{} processors; 1 to 255 are possible", self.apic_ids.len()));
        }
        let mut ids = self.apic_ids.clone();
        ids.sort_unstable();
        ids.dedup();
        // 255 is the broadcast ID of the xAPIC, all ones that of the x2APIC.
        if ids.len() != self.apic_ids.len() || ids.contains(&255) || ids.contains(&u32::MAX) {
            return fail("APIC IDs must differ from each other and from 255".into());
        }
        let irqs = [Some(self.sci_irq), self.serial.map(|s| s.irq), self.rtc_irq];
        if irqs.iter().flatten().any(|i| *i > 15 || *i == 2) {
            return fail("ISA IRQs must be below 16 and not 2".into());
        }
        if self.pm.s5 > 7 {
            return fail(format!("SLP_TYP {} does not fit in 3 bits", self.pm.s5));
        }
        let pci = &self.pci;
        if pci.intx.is_empty() {
            return fail("INTx pins need at least one GSI".into());
        }
        if pci.ecam_base & 0xf_ffff != 0 || pci.ecam_base > 1 << 52 {
            return fail(format!("ECAM base {:#x} is no multiple of 1 MiB", pci.ecam_base));
        }
        if pci.mem32.is_empty() || pci.mem32.end > 1 << 32 {
            return fail(format!("32-bit PCI window {:#x?} is empty or above 4 GiB", pci.mem32));
        }
        if pci.mem64.as_ref().is_some_and(|m| m.is_empty() || m.start < 1 << 32) {
            return fail(format!("64-bit PCI window {:#x?} is empty or below 4 GiB", pci.mem64));
        }
        if self.ram.is_empty() || self.ram.iter().chain(&self.epc).any(Range::is_empty) {
            return fail("no RAM, or an empty RAM or EPC range".into());
        }
        let page = |base: u32| u64::from(base)..u64::from(base) + 0x1000;
        let mut all = vec![pci.ecam(), pci.mem32.clone(), page(self.lapic_base), page(self.ioapic.base)];
        all.extend(pci.mem64.clone());
        all.extend(self.ram.iter().chain(&self.epc).cloned());
        all.sort_by_key(|r| r.start);
        if let Some(w) = all.windows(2).find(|w| w[1].start < w[0].end) {
            return fail(format!("address ranges {:#x?} and {:#x?} overlap", w[0], w[1]));
        }
        Ok(())
    }
}
