//! The machine under test: processors with SGX, RAM, and a kernel of page tables
//! and handlers that halt.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arch::descriptor::Attr;
use arch::regs::{Cr0, Cr4, Efer, Seg, Xcr0, gpr, rflags};
use cpu::bus::NoBus;
use cpu::shared::{self, request};
use cpu::state::{Segment, TableRegister, VectorReg};
use cpu::{Activity, Cpu, Engine, Exit, Model};
use mem::{DmaBus, Ram};
use sgx::Package;
use sgx::keys::Roots;

use crate::layout::*;

/// Processors.
pub const PROCESSORS: usize = 2;
/// Plaintext pages: fewer than the EPC has, so that pages come and go.
const SLOTS: u32 = 34;
/// Times an instruction is tried.
const RETRIES: u32 = 16;
/// Vectors with an error code.
const WITH_ERROR: [u8; 8] = [8, 10, 11, 12, 13, 14, 17, 21];

/// A fault or interrupt as its handler finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Vector.
    pub vector: u8,
    /// Error code, 0 if there is none.
    pub error: u32,
    /// CR2.
    pub cr2: u64,
    /// The handler's stack is where it should be; else the rest is not known.
    pub readable: bool,
    /// RIP, RFLAGS and RSP on the handler's stack.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
}

/// What running came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// No fault.
    Done,
    /// A handler was reached.
    Trap(Trap),
    /// A triple fault, or the budget of the run ended in a handler.
    Broken,
}

/// The machine.
pub struct Machine {
    engines: Vec<Engine>,
    /// What the processors share.
    pub package: Arc<Package>,
    /// RAM.
    pub ram: Ram,
    /// Memory as devices see it.
    pub dma: DmaBus,
}

/// Writes a 64-bit word of RAM.
pub fn put64(ram: &Ram, at: u64, value: u64) {
    assert!(ram.write(at, &value.to_le_bytes()), "{at:#x} is RAM");
}

/// Reads a 64-bit word of RAM.
pub fn get64(ram: &Ram, at: u64) -> u64 {
    let mut bytes = [0; 8];
    assert!(ram.read(at, &mut bytes), "{at:#x} is RAM");
    u64::from_le_bytes(bytes)
}

impl Machine {
    /// A machine after its kernel has set itself up.
    pub fn new() -> Machine {
        let ram = Ram::with_top(&[(0, RAM_BYTES)], EPC + EPC_PAGES * PAGE).expect("the host has memory");
        crate::tables::write(&ram);
        let model = Arc::new(Model::xeon_8370c());
        let dram = mee::Dram::new(EPC_PAGES as u32, mee::Config::new(SLOTS, PROCESSORS))
            .expect("the host has memory for secrets");
        let roots = Roots {
            seal_fuses: [1; 16],
            provisioning_fuses: [2; 16],
            owner_epoch: [3; 16],
            cpusvn: 1,
            svn_secret: [4; 32],
        };
        let package = Arc::new(Package::new(model.sgx(), dram, roots).expect("the host gives random bytes"));
        let all = shared::processors(PROCESSORS);
        ram.code().set_listeners(all.iter().map(|one| one.clone() as Arc<dyn mem::CodeListener>).collect());
        let dma = DmaBus::new(ram.guest().clone(), EPC..EPC + EPC_PAGES * PAGE).expect("the host has memory");
        let mut machine = Machine { engines: Vec::new(), package, ram, dma };
        for (id, shared) in all.iter().enumerate() {
            let bus = Arc::new(NoBus::default());
            let mut cpu = Cpu::new(id, model.clone(), machine.ram.clone(), bus, shared.clone());
            cpu.set_sgx(machine.package.clone(), EPC);
            machine.engines.push(machine.engine(cpu, id));
        }
        machine
    }

    fn engine(&self, mut cpu: Cpu, id: usize) -> Engine {
        let tss = TSS + 0x100 * id as u64;
        put64(&self.ram, tss + 4, STACK_TOP + PAGE * id as u64);
        let s = &mut cpu.s;
        s.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::NE | Cr0::ET;
        s.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXSAVE | Cr4::FSGSBASE;
        s.cr3 = PML4;
        s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
        s.efer = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
        s.gdtr = TableRegister { base: GDT, limit: 0x57 };
        s.idtr = TableRegister { base: IDT, limit: 0xfff };
        s.tr = Segment { selector: 0x30, attr: Attr::TSS_BUSY, limit: 0x67, base: tss };
        for (seg, selector) in [(Seg::Ss, DATA0), (Seg::Cs, CODE0)] {
            cpu.set_segment_from_gdt(seg, selector).expect("the descriptor is there");
        }
        for seg in [Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs] {
            cpu.set_segment_from_gdt(seg, DATA3).expect("the descriptor is there");
        }
        cpu.s.seg[Seg::Fs as usize].base = outside_base(id, 0);
        cpu.s.seg[Seg::Gs as usize].base = outside_base(id, 1);
        cpu.activity = Activity::Active;
        cpu.state_changed();
        Engine::new(cpu)
    }

    /// A processor.
    pub fn cpu(&self, lp: usize) -> &Cpu {
        &self.engines[lp].cpu
    }

    /// A processor, to set its registers.
    pub fn cpu_mut(&mut self, lp: usize) -> &mut Cpu {
        &mut self.engines[lp].cpu
    }

    /// True if the processor is in enclave mode.
    pub fn inside(&self, lp: usize) -> bool {
        self.cpu(lp).s.enclave.is_some()
    }

    /// Puts a processor that is outside at a privilege level, with plain flags.
    pub fn level(&mut self, lp: usize, user: bool) {
        let cpu = &mut self.engines[lp].cpu;
        cpu.s.cpl = 0;
        let (ss, cs) = if user { (DATA3, CODE3) } else { (DATA0, CODE0) };
        cpu.set_segment_from_gdt(Seg::Ss, ss).expect("the descriptor is there");
        cpu.set_segment_from_gdt(Seg::Cs, cs).expect("the descriptor is there");
        cpu.s.rflags = 2;
        cpu.s.flags.set_all(0);
        cpu.nmi_blocked = false;
        cpu.pending_db = 0;
        cpu.s.dr7 = 0x400;
        cpu.activity = Activity::Active;
        // Nothing that flushes: what is left of other translations is to be found.
        cpu.control_changed();
    }

    /// Sets general registers and leaves the others.
    pub fn set(&mut self, lp: usize, registers: &[(usize, u64)]) {
        for &(number, value) in registers {
            self.cpu_mut(lp).s.regs.set(number, value);
        }
    }

    /// A general register.
    pub fn get(&self, lp: usize, number: usize) -> u64 {
        self.cpu(lp).s.regs.get(number)
    }

    /// Sets the low halves of vector registers to what the function gives.
    pub fn set_vectors(&mut self, lp: usize, mut word: impl FnMut() -> u64) {
        for register in self.cpu_mut(lp).s.vec.iter_mut().take(16) {
            *register = VectorReg::default();
            register.0[..4].fill_with(&mut word);
        }
    }

    /// Executes the gadget at `rip`: its one instruction, if `single`, or with the
    /// jump behind it.
    pub fn run(&mut self, lp: usize, rip: u64, single: bool) -> Event {
        let engine = &mut self.engines[lp];
        engine.cpu.s.rip = rip;
        self.resume(lp, if single { 1 } else { 12 })
    }

    /// Executes about `budget` instructions from where the processor is.
    pub fn resume(&mut self, lp: usize, budget: u64) -> Event {
        let engine = &mut self.engines[lp];
        engine.cpu.activity = Activity::Active;
        let before = engine.cpu.retired;
        for _ in 0..RETRIES {
            match engine.run(budget) {
                Exit::Idle => return self.trap(lp),
                Exit::Shutdown | Exit::Requested => return Event::Broken,
                Exit::Budget => {}
            }
            // An instruction that waits for room in the plaintext cache uses the budget
            // up, and so does a fault whose handler has not run yet.
            let in_handler = (HANDLERS..HANDLERS + PAGE).contains(&engine.cpu.s.rip);
            if engine.cpu.retired != before && !in_handler {
                return Event::Done;
            }
        }
        Event::Broken
    }

    /// Makes a non-maskable interrupt pending and goes on.
    pub fn interrupt(&mut self, lp: usize) -> Event {
        self.cpu(lp).shared.request(request::NMI);
        let event = self.resume(lp, 1);
        let _ = self.cpu(lp).shared.pending.fetch_and(!request::NMI, Ordering::SeqCst);
        event
    }

    /// Sets where handlers have their stack; gives what it was.
    pub fn set_stack(&mut self, lp: usize, top: u64) -> u64 {
        let at = TSS + 0x100 * lp as u64 + 4;
        let old = get64(&self.ram, at);
        put64(&self.ram, at, top);
        old
    }

    fn trap(&self, lp: usize) -> Event {
        let cpu = self.cpu(lp);
        let Some(at) = cpu.s.rip.checked_sub(HANDLERS + 1).filter(|at| at % 16 == 0 && at / 16 < 256) else {
            return Event::Broken;
        };
        let vector = (at / 16) as u8;
        let rsp = cpu.s.regs.get(gpr::RSP);
        let with_error = WITH_ERROR.contains(&vector);
        let frame = rsp + if with_error { 8 } else { 0 };
        let readable = frame + 32 <= RAM_BYTES;
        let word = |at| if readable { get64(&self.ram, at) } else { 0 };
        Event::Trap(Trap {
            vector,
            error: if with_error { word(rsp) as u32 } else { 0 },
            cr2: cpu.s.cr2,
            readable,
            rip: word(frame),
            rflags: word(frame + 16) & !rflags::RF,
            rsp: word(frame + 24),
        })
    }

    /// Content of an EPC page as the enclave would see it.
    pub fn content(&self, page: usize) -> Vec<u8> {
        let mut bytes = vec![0; PAGE as usize];
        self.package.dram.read(page as u32, 0, &mut bytes).expect("the EPC is not lost");
        bytes
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// What the bases of FS (0) and GS (1) are outside.
pub fn outside_base(lp: usize, which: u64) -> u64 {
    0x7000_0000 + 0x1_0000 * lp as u64 + 0x1000 * which
}
