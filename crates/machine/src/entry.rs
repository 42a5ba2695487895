//! What a machine boots, and the state in which its first processor enters it.

use arch::descriptor::Attr;
use arch::regs::{Cr0, Cr4, Efer, Seg, gpr};
use boot::multiboot::{self, Module};
use boot::{BootError, Layout, Protocol};
use cpu::Cpu;
use cpu::state::{Segment, TableRegister};
use vm_memory::GuestMemory;

use crate::config::Config;

/// A kernel in memory, ready to be entered.
pub(crate) enum Entry {
    /// Linux, by its 64-bit or 32-bit boot protocol.
    Linux(boot::Entry),
    /// A multiboot image.
    Image(multiboot::Entry),
}

impl Entry {
    /// Reads the files and puts them into memory.
    pub(crate) fn load(config: &Config, mem: &impl GuestMemory, layout: &Layout) -> Result<Self, BootError> {
        let kernel = boot::read_kernel(&config.kernel)?;
        if !multiboot::is_image(&kernel) {
            let mut initrd = config.initrd.as_deref().map(boot::read_initrd).transpose()?;
            if let Some(initrd) = &mut initrd {
                initrd.extend_from_slice(&config.initrd_more);
            }
            return boot::load(mem, &kernel, initrd.as_deref(), &config.cmdline, layout).map(Entry::Linux);
        }
        let files = config.modules.iter().map(|m| boot::read_module(&m.path));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let modules: Vec<_> = files
            .iter()
            .zip(&config.modules)
            .map(|(data, module)| Module { data, text: module.text.as_bytes() })
            .collect();
        multiboot::load(mem, &kernel, &modules, config.cmdline.as_bytes(), layout).map(Entry::Image)
    }

    /// Puts the boot processor at its first instruction.
    pub(crate) fn enter(&self, cpu: &mut Cpu) {
        match self {
            Entry::Linux(entry) => enter_linux(cpu, entry),
            Entry::Image(entry) => enter_image(cpu, entry),
        }
        cpu.state_changed();
    }
}

/// As its boot protocol wants it.
fn enter_linux(cpu: &mut Cpu, entry: &boot::Entry) {
    let code = match entry.protocol {
        Protocol::Bits64 => Attr::CODE64,
        Protocol::Bits32 => Attr::CODE32,
    };
    segments(cpu, (boot::BOOT_CS, code), boot::BOOT_DS);
    let s = &mut cpu.s;
    s.gdtr = TableRegister { base: entry.gdt_base, limit: entry.gdt_limit };
    s.idtr = TableRegister::default();
    s.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
    if entry.protocol == Protocol::Bits64 {
        s.cr0 |= Cr0::PG | Cr0::WP;
        s.cr4 = Cr4::PAE;
        s.cr3 = entry.cr3;
        s.efer = Efer::LME | Efer::LMA;
    }
    s.regs.set(gpr::RSI, entry.rsi);
    s.rip = entry.rip;
}

/// As the multiboot specification wants it (§3.2).
fn enter_image(cpu: &mut Cpu, entry: &multiboot::Entry) {
    segments(cpu, (boot::IMAGE_CS, Attr::CODE32), boot::IMAGE_DS);
    let s = &mut cpu.s;
    s.gdtr = TableRegister { base: entry.gdt_base, limit: entry.gdt_limit };
    s.cr0 = Cr0::PE | Cr0::ET;
    s.regs.set(gpr::RAX, u64::from(multiboot::MAGIC));
    s.regs.set(gpr::RBX, u64::from(entry.ebx));
    s.regs.set(gpr::RSP, u64::from(entry.esp));
    s.rip = u64::from(entry.eip);
}

/// Flat segments of privilege level 0.
fn segments(cpu: &mut Cpu, code: (u16, Attr), data: u16) {
    let flat = |selector, attr| Segment { selector, attr, limit: u32::MAX, base: 0 };
    cpu.s.seg = [flat(data, Attr::DATA); 6];
    cpu.s.seg[Seg::Cs as usize] = flat(code.0, code.1);
}
