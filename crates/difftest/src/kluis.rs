//! Kluis's side: the same instruction, executed by the interpreter in a guest
//! that consists of page tables, an interrupt table and handlers.

use std::sync::{Arc, Mutex};

use arch::descriptor::Attr;
use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, Xcr0, rflags};
use cpu::bus::NoBus;
use cpu::state::{Segment, TableRegister};
use cpu::{Activity, Cpu, Engine, Exit, Model, Shared, State};
use mem::Ram;

use crate::area::{self, CODE, CODE_PAGES, DATA, MAPPED, Page};
use crate::snapshot::{Fault, Outcome, Registers};

// Physical layout.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT_CODE: u64 = 0x4000;
const PT_DATA: u64 = 0x5000;
const PT_SYSTEM: u64 = 0x6000;
const GPA_SYSTEM: u64 = 0x8000;
const GPA_CODE: u64 = 0x1_0000;
const GPA_DATA: u64 = GPA_CODE + CODE_PAGES * 4096;
const RAM_BYTES: u64 = GPA_DATA + 0x1_0000;

// Supervisor pages, by linear address.
const SYSTEM: u64 = 0x0800_0000;
const IDT: u64 = SYSTEM;
const GDT: u64 = SYSTEM + 0x1000;
const TSS: u64 = SYSTEM + 0x1800;
const HANDLERS: u64 = SYSTEM + 0x2000;
const STACK_TOP: u64 = SYSTEM + 0x4000;
const SYSTEM_PAGES: u64 = 4;

const KERNEL_CS: u16 = 0x10;
const KERNEL_SS: u16 = 0x18;
const USER_SS: u16 = 0x2b;
const USER_CS: u16 = 0x33;
const TSS_SELECTOR: u16 = 0x40;

/// Calls of [`Engine::run`] that one instruction may take (repeated string
/// instructions come up for air).
const PATIENCE: usize = 100_000;

/// Code that Kluis finds at every exit: `jmp $`, never reached by a correct run.
pub const EXIT_CODE: [u8; 7] = [0xeb, 0xfe, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc];

/// What kept Kluis from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Astray {
    /// A triple fault.
    #[error("triple fault")]
    Shutdown,
    /// Not one instruction in many calls.
    #[error("no progress")]
    Stuck,
    /// It waits for an interrupt, or left for another reason.
    #[error("stopped unexpectedly")]
    Stopped,
    /// At CPL 0, but not in a handler.
    #[error("at CPL 0 outside the handlers, RIP {0:#x}")]
    Lost(u64),
}

/// A guest for one instruction at a time.
pub struct Kluis {
    engine: Engine,
    fresh: State,
    data: [*mut u8; MAPPED],
}

impl Kluis {
    /// Builds the guest.
    pub fn new(model: Model) -> Result<Self, mem::MemError> {
        let ram = Ram::new(&[(0, RAM_BYTES)])?;
        build_tables(&ram);
        let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
        shared.set_peers(std::slice::from_ref(&shared));
        let mut cpu = Cpu::new(0, Arc::new(model), ram.clone(), Arc::new(NoBus::default()), shared);
        set_mode(&mut cpu.s);
        cpu.control_changed();
        let fresh = cpu.s.clone();
        let data = std::array::from_fn(|i| ram.page(GPA_DATA + 4096 * i as u64).expect("data pages are RAM"));
        Ok(Kluis { engine: Engine::new(cpu), fresh, data })
    }

    /// The processor's model.
    pub fn model(&self) -> &Model {
        &self.engine.cpu.model
    }

    /// One mapped data page.
    pub fn data(&mut self, index: usize) -> &mut [u8; 4096] {
        // SAFETY: a page of RAM that lives as long as the engine's `ram`; no
        // other thread has it, and the engine does not run meanwhile.
        unsafe { &mut *self.data[index].cast() }
    }

    /// Writes code, unannounced: the place was not used since [`Kluis::forget_code`].
    pub fn write_code(&mut self, address: u64, bytes: &[u8]) {
        assert!(self.engine.cpu.ram.write(address - CODE + GPA_CODE, bytes), "code lies in RAM");
    }

    /// Forgets all decoded code.
    pub fn forget_code(&mut self) {
        self.engine.forget_code();
    }

    /// Executes the instruction at `regs.rip`. With `single`, as under
    /// single-stepping; else as a block, of which the code after the
    /// instruction is a part.
    pub fn run(&mut self, regs: &Registers, single: bool) -> Result<Outcome, Astray> {
        self.load(regs, single);
        let mut tries = 0;
        loop {
            match self.engine.run(1) {
                Exit::Budget => {}
                Exit::Shutdown => return Err(Astray::Shutdown),
                _ => return Err(Astray::Stopped),
            }
            if self.engine.cpu.s.rip != regs.rip {
                break;
            }
            tries += 1;
            if tries > PATIENCE {
                return Err(Astray::Stuck);
            }
        }
        // A branch to where nothing can be executed has retired; its target faults.
        let s = &self.engine.cpu.s;
        if s.cpl == 3 && !(CODE..CODE + CODE_PAGES * 4096).contains(&s.rip) {
            self.engine.run(1);
        }
        self.store()
    }

    fn load(&mut self, regs: &Registers, single: bool) {
        let cpu = &mut self.engine.cpu;
        let s = &mut cpu.s;
        if s.cpl != 3 {
            s.cpl = 3;
            s.seg = self.fresh.seg;
        }
        for (i, &value) in regs.gpr.iter().enumerate() {
            s.regs.set(i, value);
        }
        s.rip = regs.rip;
        s.flags.set_all(regs.rflags);
        s.rflags = regs.rflags & !rflags::STATUS | rflags::FIXED | rflags::IF;
        if single {
            // Holds breakpoints off for one instruction, which is executed alone.
            s.rflags |= rflags::RF;
        }
        for (reg, value) in s.vec.iter_mut().zip(&regs.ymm) {
            reg.0[..4].copy_from_slice(value);
        }
        s.mxcsr = regs.mxcsr;
        (s.x87.cw, s.x87.sw, s.x87.tag, s.x87.st) = (regs.cw, regs.sw, regs.tag, regs.st);
        cpu.activity = Activity::Active;
        cpu.pending_db = 0;
        cpu.shadow = false;
        cpu.update_rights();
    }

    fn store(&self) -> Result<Outcome, Astray> {
        let s = &self.engine.cpu.s;
        let mut regs = Registers {
            gpr: std::array::from_fn(|i| s.regs.get(i)),
            rip: s.rip,
            rflags: s.rflags(),
            ymm: std::array::from_fn(|i| std::array::from_fn(|j| s.vec[i].0[j])),
            mxcsr: s.mxcsr,
            cw: s.x87.cw,
            sw: s.x87.sw,
            tag: s.x87.tag,
            st: s.x87.st.map(|st| st & ((1 << 80) - 1)),
        };
        if s.cpl != 0 {
            return Ok(Outcome { regs, fault: None });
        }
        if s.rip & !0xfff != HANDLERS {
            return Err(Astray::Lost(s.rip));
        }
        // The frame that delivery pushed (SDM vol. 3A §6.14.2).
        let vector = ((s.rip - HANDLERS) / 16) as u8;
        let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
        let word = |at: u64| {
            let mut bytes = [0; 8];
            let gpa = at.wrapping_sub(SYSTEM).wrapping_add(GPA_SYSTEM);
            self.engine.cpu.ram.read(gpa, &mut bytes);
            u64::from_le_bytes(bytes)
        };
        let mut at = regs.gpr[4];
        let mut error = 0;
        if has_error {
            error = word(at) as u32;
            at += 8;
        }
        regs.rip = word(at);
        regs.rflags = word(at + 16);
        regs.gpr[4] = word(at + 24);
        let address = if vector == 14 { s.cr2 } else { 0 };
        Ok(Outcome { regs, fault: Some(Fault { vector, error, address }) })
    }
}

fn build_tables(ram: &Ram) {
    let write = |gpa: u64, bytes: &[u8]| assert!(ram.write(gpa, bytes), "inside RAM");
    let entry = |table: u64, index: u64, value: u64| write(table + index * 8, &value.to_le_bytes());
    let table = pte::P | pte::W | pte::U | pte::A;
    entry(PML4, 0, PDPT | table);
    entry(PDPT, 0, PD | table);
    for (address, pt) in [(CODE, PT_CODE), (DATA, PT_DATA), (SYSTEM, PT_SYSTEM)] {
        entry(PD, address >> 21 & 511, pt | table);
    }
    let leaf = |pt: u64, address: u64, gpa: u64, bits: u64| {
        entry(pt, address >> 12 & 511, gpa | bits | pte::P | pte::A | pte::D);
    };
    for i in 0..CODE_PAGES {
        leaf(PT_CODE, CODE + i * 4096, GPA_CODE + i * 4096, pte::U);
    }
    for (i, (address, page)) in area::mapped_pages().enumerate() {
        let w = if page == Page::Rw { pte::W } else { 0 };
        leaf(PT_DATA, address, GPA_DATA + i as u64 * 4096, pte::U | pte::NX | w);
    }
    for i in 0..SYSTEM_PAGES {
        leaf(PT_SYSTEM, SYSTEM + i * 4096, GPA_SYSTEM + i * 4096, pte::W);
    }
    let system = |la: u64, bytes: &[u8]| write(la - SYSTEM + GPA_SYSTEM, bytes);
    let descriptor = |selector: u16, attr: u32| {
        let value = u64::from(attr & 0x00f0_ff00 | 0xf_0000) << 32 | 0xffff;
        system(GDT + u64::from(selector & !7), &value.to_le_bytes());
    };
    descriptor(KERNEL_CS, Attr::CODE64.0);
    descriptor(KERNEL_SS, Attr::DATA.0);
    descriptor(USER_SS, Attr::DATA.0 | 0x6000);
    descriptor(USER_CS, Attr::CODE64.0 | 0x6000);
    system(TSS + 4, &STACK_TOP.to_le_bytes());
    for vector in 0..256u64 {
        let to = HANDLERS + vector * 16;
        let low = to & 0xffff | u64::from(KERNEL_CS) << 16 | 0xee00 << 32 | (to >> 16 & 0xffff) << 48;
        system(IDT + vector * 16, &low.to_le_bytes());
        system(IDT + vector * 16 + 8, &(to >> 32).to_le_bytes());
        // cmp eax, eax; jmp $
        system(to, &[0x39, 0xc0, 0xeb, 0xfe]);
    }
}

fn set_mode(s: &mut State) {
    let user = |selector: u16, attr: Attr| Segment {
        selector,
        attr: Attr(attr.0 | 0x6000),
        limit: u32::MAX,
        base: 0,
    };
    let null = Segment::default();
    s.seg = [
        null,
        user(USER_CS, Attr::CODE64),
        user(USER_SS, Attr::DATA),
        null,
        null,
        Segment { base: area::GS_BASE, ..null },
    ];
    s.tr = Segment { selector: TSS_SELECTOR, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
    s.gdtr = TableRegister { base: GDT, limit: 0x7f };
    s.idtr = TableRegister { base: IDT, limit: 0xfff };
    s.cpl = 3;
    s.cr0 = Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::PG;
    s.cr3 = PML4;
    s.cr4 = Cr4::PAE | Cr4::PGE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE | Cr4::FSGSBASE;
    s.efer = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
    s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
}
