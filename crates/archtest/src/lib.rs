//! Architecture tests: a few instructions of guest code, assembled by the
//! compiler ([`guest!`]), run on real [`Engine`]s in a small world of page
//! tables, descriptors and an interrupt table ([`World`]).
//!
//! Every exception ends a run in a HLT of its own, so a test reads off which
//! vector was delivered, with which frame and error code. Each test names the
//! place of the SDM that it judges by.

pub mod legacy;

use std::sync::Arc;

use arch::descriptor::Attr;
use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, Seg, gpr};
use cpu::bus::NoBus;
use cpu::state::{Segment, TableRegister};
use cpu::{Activity, Cpu, Engine, Exit, Model, Shared};
use mem::Ram;

/// Assembles guest code: `guest!(NAME, "instruction", "instruction", …)`
/// defines `fn NAME() -> &'static [u8]`. The code may refer to its own labels only.
#[macro_export]
macro_rules! guest {
    ($name:ident, $($line:literal),+ $(,)?) => {
        fn $name() -> &'static [u8] {
            let (start, end): (*const u8, *const u8);
            // SAFETY: the code is jumped over, never run here; the two
            // addresses are of its first byte and of the one after its last.
            unsafe {
                std::arch::asm!(
                    "lea {start}, [rip + 771f]",
                    "lea {end}, [rip + 772f]",
                    "jmp 772f",
                    "771:",
                    $($line,)+
                    "772:",
                    start = out(reg) start,
                    end = out(reg) end,
                    options(nostack, preserves_flags, nomem),
                );
                std::slice::from_raw_parts(start, end.offset_from(start) as usize)
            }
        }
    };
}

/// Linear (and, unless remapped, physical) address of the code.
pub const CODE: u64 = 0x10_0000;
/// A page of data, user-accessible and writable.
pub const DATA: u64 = 0x20_0000;
/// Top of the supervisor stack.
pub const STACK: u64 = 0x30_0000;
/// Top of the user stack.
pub const USER_STACK: u64 = 0x31_0000;
/// Top of the stack that IST 1 names.
pub const IST1: u64 = 0x32_0000;
/// Exception `n` ends in the HLT at `STUBS + 16 * n`.
pub const STUBS: u64 = 0x4000;
/// Level-4 page table.
pub const PML4: u64 = 0x8000;
/// Page table of the first 2 MiB; those of the next follow.
pub const PT: u64 = 0xb000;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x5000;
/// Global descriptor table.
pub const GDT: u64 = 0x7000;
/// Task state segment.
pub const TSS: u64 = 0x7800;
/// Selectors of the GDT, as Linux orders them: SYSCALL and SYSRET fit.
#[allow(missing_docs)]
pub mod sel {
    pub const KERNEL_CS: u16 = 0x10;
    pub const KERNEL_DS: u16 = 0x18;
    pub const USER_CS32: u16 = 0x23;
    pub const USER_DS: u16 = 0x2b;
    pub const USER_CS: u16 = 0x33;
    pub const TSS: u16 = 0x40;
}
/// Bytes of RAM in a world.
pub const RAM: u64 = 8 << 20;
/// Physical address of the enclave page cache, for tests that have one, and its end.
pub const EPC: u64 = 0x200_0000;
/// See [`EPC`].
pub const EPC_END: u64 = 0x220_0000;

/// Memory with page tables, descriptors and interrupt stubs, and processors on it.
pub struct World {
    /// Physical memory; the first 8 MiB are mapped one to one.
    pub ram: Ram,
    /// The processors.
    pub engines: Vec<Engine>,
}

/// What a run ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The code's own HLT.
    Halt,
    /// Delivery of this vector.
    Vector(u8),
    /// Shutdown.
    Shutdown,
    /// The budget of instructions.
    Budget,
}

impl World {
    /// One processor at CPL 0 in 64-bit mode with `code` at [`CODE`].
    pub fn new(code: &[u8]) -> World {
        World::with_cpus(&[code])
    }

    /// Processors with code of their own each, 64 KiB apart from [`CODE`] on
    /// (and stacks 4 KiB apart below [`STACK`]).
    pub fn with_cpus(codes: &[&[u8]]) -> World {
        let ram = Ram::with_top(&[(0, RAM)], EPC_END).expect("memory");
        let model = Arc::new(Model::xeon_8370c());
        let shared: Arc<[Arc<Shared>]> = cpu::shared::processors(codes.len());
        ram.code().set_listeners(shared.iter().map(|s| s.clone() as Arc<dyn mem::CodeListener>).collect());
        let mut world = World { ram: ram.clone(), engines: Vec::new() };
        world.tables();
        let bus = Arc::new(NoBus::default());
        for (id, code) in codes.iter().enumerate() {
            let at = CODE + id as u64 * 0x1_0000;
            world.write(at, code);
            let mut cpu = Cpu::new(id, model.clone(), ram.clone(), bus.clone(), shared[id].clone());
            cpu.activity = Activity::Active;
            supervisor(&mut cpu, at, STACK - id as u64 * 0x1000);
            world.engines.push(Engine::new(cpu));
        }
        world
    }

    fn tables(&mut self) {
        let flags = pte::P | pte::W | pte::U;
        self.write64(PML4, 0x9000 | flags);
        self.write64(0x9000, 0xa000 | flags);
        for table in 0..RAM >> 21 {
            let at = PT + table * 0x1000;
            self.write64(0xa000 + table * 8, at | flags);
            for page in 0..512 {
                self.write64(at + page * 8, table << 21 | page << 12 | flags);
            }
        }
        for n in 0..256u64 {
            self.write(STUBS + n * 16, &[0xf4]); // hlt
            self.gate(n as u8, STUBS + n * 16, 0x8e00, 0);
        }
        let gdt = [
            (sel::KERNEL_CS, 0x00af_9b00_0000_ffff_u64),
            (sel::KERNEL_DS, 0x00cf_9300_0000_ffff),
            (sel::USER_CS32, 0x00cf_fb00_0000_ffff),
            (sel::USER_DS, 0x00cf_f300_0000_ffff),
            (sel::USER_CS, 0x00af_fb00_0000_ffff),
            (sel::TSS, 0x0000_8b00_7800_0067),
        ];
        for (selector, descriptor) in gdt {
            self.write64(GDT + u64::from(selector & !7), descriptor);
        }
        self.write64(TSS + 4, STACK);
        self.write64(TSS + 36, IST1);
    }

    /// Sets an interrupt gate: `kind` holds type, DPL and P as bits 15–8.
    pub fn gate(&mut self, vector: u8, target: u64, kind: u64, ist: u64) {
        let at = gate_at(vector);
        let low = target & 0xffff
            | u64::from(sel::KERNEL_CS) << 16
            | ist << 32
            | kind << 32
            | (target >> 16 & 0xffff) << 48;
        self.write64(at, low);
        self.write64(at + 8, target >> 32);
    }

    /// Physical address of the page-table entry that maps `la` (below 8 MiB).
    pub fn pte(la: u64) -> u64 {
        PT + (la >> 21) * 0x1000 + (la >> 12 & 0x1ff) * 8
    }

    /// Writes RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        assert!(self.ram.write(gpa, bytes));
    }
    /// Writes a quadword of RAM.
    pub fn write64(&self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes());
    }
    /// Reads a quadword of RAM.
    pub fn read64(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.ram.read(gpa, &mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// The first processor.
    pub fn cpu(&mut self) -> &mut Cpu {
        &mut self.engines[0].cpu
    }

    /// Makes the first processor start in user mode, 64-bit or 32-bit.
    pub fn user(&mut self, bits: u32) -> &mut Self {
        user(self.cpu(), bits);
        self
    }

    /// Runs the first processor until it halts, shuts down or has done `budget` instructions.
    pub fn run(&mut self, budget: u64) -> Ended {
        Self::run_engine(&mut self.engines[0], budget)
    }

    /// Runs any processor likewise.
    pub fn run_engine(engine: &mut Engine, budget: u64) -> Ended {
        match engine.run(budget) {
            Exit::Budget | Exit::Requested => Ended::Budget,
            Exit::Shutdown => Ended::Shutdown,
            Exit::Idle => {
                let rip = engine.cpu.s.rip;
                match rip.wrapping_sub(STUBS + 1) {
                    offset if offset < 256 * 16 && offset % 16 == 0 => Ended::Vector((offset / 16) as u8),
                    _ => Ended::Halt,
                }
            }
        }
    }

    /// Quadword `n` of the frame on the current stack (0: error code or RIP).
    pub fn frame(&mut self, n: u64) -> u64 {
        let rsp = self.cpu().s.regs.get(gpr::RSP);
        self.read64(rsp + 8 * n)
    }
}

/// 256 gates of 16 bytes take one page.
const fn gate_at(vector: u8) -> u64 {
    IDT + vector as u64 * 16
}

/// Puts a processor into 64-bit mode at CPL 0, as a world starts it.
pub fn supervisor(cpu: &mut Cpu, rip: u64, rsp: u64) {
    let s = &mut cpu.s;
    let data = Segment { selector: sel::KERNEL_DS, attr: Attr::DATA, limit: u32::MAX, base: 0 };
    s.seg = [data; 6];
    s.seg[Seg::Cs as usize] =
        Segment { selector: sel::KERNEL_CS, attr: Attr::CODE64, limit: u32::MAX, base: 0 };
    s.tr = Segment { selector: sel::TSS, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
    s.gdtr = TableRegister { base: GDT, limit: 0x4f };
    s.idtr = TableRegister { base: IDT, limit: 0xfff };
    s.cr0 = Cr0::PE | Cr0::PG | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::MP;
    s.cr4 = Cr4::PAE | Cr4::PGE | Cr4::OSFXSR | Cr4::OSXMMEXCPT;
    s.cr3 = PML4;
    s.efer = Efer::LME | Efer::LMA | Efer::NXE | Efer::SCE;
    s.regs.set(gpr::RSP, rsp);
    s.rip = rip;
    s.cpl = 0;
    cpu.state_changed();
}

/// Puts a processor into user mode, 64-bit or 32-bit, at the RIP that it has.
pub fn user(cpu: &mut Cpu, bits: u32) {
    let (selector, attr) =
        if bits == 64 { (sel::USER_CS, 0x00af_fb00) } else { (sel::USER_CS32, 0x00cf_fb00) };
    let data = Segment { selector: sel::USER_DS, attr: Attr(0x00c0_f300), limit: u32::MAX, base: 0 };
    for seg in [Seg::Ss, Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
        cpu.s.seg[seg as usize] = data;
    }
    cpu.s.seg[Seg::Cs as usize] =
        Segment { selector, attr: Attr(attr & Attr::MASK), limit: u32::MAX, base: 0 };
    cpu.s.cpl = 3;
    cpu.s.regs.set(gpr::RSP, USER_STACK);
    cpu.state_changed();
}

/// Names the place of the SDM that a test judges by; `--nocapture` lists them.
pub fn sdm(reference: &str) {
    println!("SDM {reference}");
}

/// Kind of a data access or fetch, for [`sdm_allows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Read,
    Write,
    Fetch,
}

/// What access rights depend on besides the page.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Rights {
    pub user: bool,
    pub wp: bool,
    pub smep: bool,
    pub smap: bool,
    pub ac: bool,
}

impl Rights {
    /// From five bits of a number, so that a loop meets all.
    pub fn from_bits(bits: u32) -> Rights {
        let flag = |n: u32| bits >> n & 1 != 0;
        Rights { user: flag(0), wp: flag(1), smep: flag(2), smap: flag(3), ac: flag(4) }
    }

    /// Puts them into the control registers and flags of a processor.
    pub fn apply(self, cpu: &mut Cpu) {
        cpu.s.cr0.set(Cr0::WP, self.wp);
        cpu.s.cr4.set(Cr4::SMEP, self.smep);
        cpu.s.cr4.set(Cr4::SMAP, self.smap);
        if self.ac {
            cpu.s.rflags |= arch::regs::rflags::AC;
        }
        cpu.state_changed();
    }
}

/// A literal transcription of *SDM vol. 3A §4.6.1*, written apart from the
/// walk: may the access be made? `page` has U, W and NX as all levels together
/// give them.
pub fn sdm_allows(rights: Rights, access: Kind, page: u64) -> bool {
    let Rights { user, wp, smep, smap, ac } = rights;
    let (u, w, nx) = (page & pte::U != 0, page & pte::W != 0, page & pte::NX != 0);
    match (user, access) {
        // "For user-mode accesses"
        (true, Kind::Read) => u,
        (true, Kind::Write) => u && w,
        (true, Kind::Fetch) => u && !nx,
        // "For supervisor-mode accesses": "Data may be read (implicitly or
        // explicitly) from any supervisor-mode address"; user-mode addresses
        // "If CR4.SMAP = 0 … or EFLAGS.AC = 1".
        (false, Kind::Read) => !u || !smap || ac,
        // "If CR0.WP = 0, data may be written to any supervisor-mode address"
        (false, Kind::Write) if !u => !wp || w,
        (false, Kind::Write) => (!smap || ac) && (!wp || w),
        // "If IA32_EFER.NXE = 1 … XD"; "If CR4.SMEP = 1 … may not be fetched
        // from any user-mode address".
        (false, Kind::Fetch) => !(nx || u && smep),
    }
}
