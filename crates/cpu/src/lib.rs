//! The logical processor.
//!
//! * [`state`]: registers; [`flags`]: the status flags, lazily; [`model`]: what CPUID promises
//! * [`decode`]: bytes to [`op`]s by the instruction table [`ops`]; [`chain`]: how handlers follow one another
//! * [`cache`]: decoded blocks, [`jumps`]: the way to them
//! * [`mmu`]: linear addresses to memory, with the one place where a translation is formed
//! * [`exec`]: the handlers, one file for each group of instructions
//! * [`epc`]: the EPC as the processor reaches it; the SGX architecture itself is the `sgx` crate's
//! * [`engine`]: the loop that runs blocks and attends to requests
//! * [`debug`]: breakpoints, watchpoints and steps of a debugger outside
//! * [`thunk`]: guest instructions that the host executes
//! * [`snapshot`]: a processor's state on its way to disk
//! * [`shared`]: what other threads may touch; [`bus`]: what the processor asks of the board

pub mod apic;
pub mod bus;
pub mod cache;
pub mod chain;
pub mod cpuid;
pub mod debug;
pub mod decode;
mod deliver;
pub mod engine;
pub mod epc;
pub mod exec;
pub mod flags;
pub mod jumps;
pub mod mmu;
pub mod model;
pub mod msr;
pub mod op;
pub mod ops;
mod segmentation;
mod sgx_port;
pub mod shared;
pub mod snapshot;
mod stack;
pub mod state;
pub mod thunk;
pub mod xstate;

use std::sync::Arc;

use arch::Exception;
use mem::Ram;

pub use bus::Bus;
pub use engine::{Engine, Exit};
pub use model::Model;
pub use shared::Shared;
pub use state::State;

use op::{EA_16, EA_32, EA_SEG, Op};

/// What the processor is doing (*SDM vol. 3A §8.4, §8.10*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Executing instructions.
    Active,
    /// After HLT: waiting for an interrupt.
    Halted,
    /// After INIT, on an application processor: waiting for a start-up interrupt.
    WaitForSipi,
    /// After a triple fault.
    Shutdown,
}

/// A logical processor: architectural state and what executing it needs.
#[repr(C)]
pub struct Cpu {
    /// Architectural state.
    pub s: State,
    /// Translations.
    pub tlb: mmu::tlb::Tlb,
    /// Blocks by physical address.
    pub(crate) jumps: jumps::JumpCache,
    /// The block being executed, or executed last.
    block: cache::BlockRef,
    /// Count of retired instructions at which the chain being executed ends.
    chain_end: u64,
    /// Host code of vector and x87 instructions.
    pub thunks: thunk::Thunks,
    /// The block ends after the current instruction: see [`Cpu::stop_block`].
    stop: bool,
    /// Where and why the last block was left before its end.
    left: chain::Left,
    /// Instructions retired.
    pub retired: u64,
    /// Linear address of the page fault being raised.
    pub fault_addr: u64,
    /// DR6 bits of a debug exception to be delivered after the instruction.
    pub pending_db: u64,
    /// Interrupts are held off until after the next instruction (STI, MOV SS).
    pub shadow: bool,
    /// NMIs are held off until IRET.
    pub nmi_blocked: bool,
    /// Every user access is looked at (#AC).
    align_check: bool,
    /// Vector instructions that may not be used: see [`exec::vector::closed`].
    vector_closed: u8,
    /// PAUSE instructions executed.
    pauses: u32,
    /// What it is doing.
    pub activity: Activity,
    /// Exceptions raised by guest instructions so far, by vector: for reports.
    pub exceptions: [u64; 32],
    /// TF as it counts for the single-step trap, for instructions that take it
    /// not from before their execution.
    traced: Option<bool>,
    /// Physical page of the local APIC's registers.
    apic_page: u64,
    /// What MONITOR watches.
    monitor: Option<exec::system::Monitor>,
    /// Random bytes of the host, for RDRAND and RDSEED.
    entropy: exec::system::Entropy,
    /// The exception just given stands for no room in the EPC's plaintext
    /// cache: the instruction is executed again.
    retry: bool,
    /// What a debugger outside wants to be told.
    debug: Option<Box<debug::Debug>>,
    /// All decoded code is void: see [`Cpu::reset`].
    pub(crate) stale_code: bool,
    /// Its SGX part; see [`Cpu::set_sgx`].
    pub(crate) sgx: Option<epc::Sgx>,
    /// The first instructions met that have no handler: linear address and bytes.
    pub unimplemented: Vec<(u64, [u8; decode::MAX_LEN])>,
    /// Number of the processor on its board.
    pub id: usize,
    /// Physical memory.
    pub ram: Ram,
    /// The model.
    pub model: Arc<Model>,
    /// The board.
    pub bus: Arc<dyn Bus>,
    /// What other threads may touch.
    pub shared: Arc<Shared>,
}

impl Cpu {
    /// A processor after RESET.
    pub fn new(id: usize, model: Arc<Model>, ram: Ram, bus: Arc<dyn Bus>, shared: Arc<Shared>) -> Self {
        let mut cpu = Cpu {
            s: State::reset(),
            tlb: mmu::tlb::Tlb::default(),
            jumps: jumps::JumpCache::default(),
            block: cache::BlockRef::NONE,
            chain_end: 0,
            thunks: thunk::Thunks::new().expect("the host allows executable memory (see `kluis doctor`)"),
            stop: false,
            left: chain::Left { off: 0, ran: Ok(op::Flow::Next) },
            retired: 0,
            fault_addr: 0,
            pending_db: 0,
            shadow: false,
            nmi_blocked: false,
            align_check: false,
            vector_closed: 0,
            pauses: 0,
            activity: Activity::Active,
            exceptions: [0; 32],
            traced: None,
            apic_page: 0,
            monitor: None,
            entropy: exec::system::Entropy::default(),
            retry: false,
            debug: None,
            stale_code: false,
            sgx: None,
            unimplemented: Vec::new(),
            id,
            ram,
            model,
            bus,
            shared,
        };
        cpu.power_up();
        *shared::lock(&cpu.shared.apic) = cpu.new_apic();
        cpu.update_apic();
        cpu.control_changed();
        cpu
    }

    /// Ends the block after the current instruction, so that pending work is
    /// seen before the next one.
    #[inline(always)]
    pub(crate) fn stop_block(&mut self) {
        self.stop = true;
    }

    /// RIP after the current instruction.
    #[inline(always)]
    pub(crate) fn next_rip(&self, op: &Op) -> u64 {
        self.wrap_ip(self.s.regs.page_ip().wrapping_add(op.next_off()))
    }

    /// RIP of the current instruction.
    #[inline(always)]
    pub(crate) fn this_rip(&self, op: &Op) -> u64 {
        self.wrap_ip(self.s.regs.page_ip().wrapping_add(u64::from(op.off)))
    }

    /// Instruction pointers have 32 bits outside 64-bit mode.
    #[inline(always)]
    pub(crate) fn wrap_ip(&self, ip: u64) -> u64 {
        if self.s.long64() { ip } else { ip & 0xffff_ffff }
    }

    /// Linear address of the memory operand, for an access of `n` bytes.
    #[inline(always)]
    pub(crate) fn ea(&self, op: &Op, n: u64, write: bool) -> Result<u64, Exception> {
        let offset = self.ea_offset(op);
        match op.ea {
            0 => Ok(offset),
            EA_SEG => Ok(offset.wrapping_add(self.segment_base(op.seg))),
            _ => self.ea_special(op, offset, n, write),
        }
    }

    /// Base of a segment, by number.
    #[inline(always)]
    pub(crate) fn segment_base(&self, seg: u8) -> u64 {
        self.s.seg[(seg & 7).min(5) as usize].base
    }

    /// Effective address before truncation and segmentation.
    #[inline(always)]
    pub(crate) fn ea_offset(&self, op: &Op) -> u64 {
        let base = self.s.regs.read64(op.base);
        let index = self.s.regs.read64(op.index);
        base.wrapping_add(index.wrapping_shl(u32::from(op.scale))).wrapping_add(op.disp)
    }

    #[inline(never)]
    fn ea_special(&self, op: &Op, offset: u64, n: u64, write: bool) -> Result<u64, Exception> {
        let offset = truncate(op.ea, offset);
        self.linear(op.ea, op.seg, offset, n, write)
    }

    /// Linear address of `seg:offset`, with the checks of the mode; `ea` says
    /// what kind of addressing it is (`EA_*`).
    #[inline(always)]
    pub(crate) fn linear(&self, ea: u8, seg: u8, offset: u64, n: u64, write: bool) -> Result<u64, Exception> {
        if ea & op::EA_LEGACY == 0 {
            let base = if ea & EA_SEG != 0 { self.segment_base(seg) } else { 0 };
            return Ok(offset.wrapping_add(base));
        }
        self.segmented(seg, offset, n, write)
    }

    /// The same outside 64-bit mode: presence, type and limit (*SDM vol. 3A §5.3–5.5*).
    #[inline(never)]
    fn segmented(&self, seg: u8, offset: u64, n: u64, write: bool) -> Result<u64, Exception> {
        let segment = &self.s.seg[usize::from(seg).min(5)];
        let fail = || Self::segment_fault(seg);
        let attr = segment.attr;
        if self.s.cr0.contains(arch::regs::Cr0::PE) {
            let usable = attr.present() && if write { attr.is_writable() } else { attr.is_readable() };
            if !usable {
                return Err(fail());
            }
        }
        let last = offset.wrapping_add(n - 1);
        let inside = if attr.is_expand_down() {
            let top = if attr.big() { 0xffff_ffff } else { 0xffff };
            offset > u64::from(segment.limit) && last <= top
        } else {
            last <= u64::from(segment.limit) && offset <= last
        };
        if !inside {
            return Err(fail());
        }
        Ok(offset.wrapping_add(segment.base) & 0xffff_ffff)
    }

    /// Requires CPL 0.
    #[inline(always)]
    pub(crate) fn require_cpl0(&self) -> Result<(), Exception> {
        if self.s.cpl == 0 { Ok(()) } else { Err(Exception::GP0) }
    }

    /// Counts an instruction without a handler and keeps the first of them.
    #[cold]
    pub(crate) fn note_unimplemented(&mut self, op: &Op) {
        self.note_unimplemented_at(self.this_rip(op), usize::from(op.len));
    }

    /// Counts what Kluis does not do at `rip`, where `len` bytes are of interest.
    #[cold]
    pub(crate) fn note_unimplemented_at(&mut self, rip: u64, len: usize) {
        if self.unimplemented.len() < 64 {
            let la = self.wrap_la(rip.wrapping_add(self.s.seg[1].base));
            let mut bytes = [0; decode::MAX_LEN];
            for (i, byte) in bytes.iter_mut().enumerate().take(len) {
                let Some(gpa) = self.debug_translate(self.wrap_la(la.wrapping_add(i as u64))) else { break };
                self.ram.read(gpa, std::slice::from_mut(byte));
            }
            if !self.unimplemented.iter().any(|known| known.1 == bytes) {
                self.unimplemented.push((la, bytes));
            }
        }
    }
}

/// Truncates an offset to the address size.
#[inline(always)]
pub(crate) fn truncate(ea: u8, offset: u64) -> u64 {
    if ea & EA_32 != 0 {
        offset & 0xffff_ffff
    } else if ea & EA_16 != 0 {
        offset & 0xffff
    } else {
        offset
    }
}
