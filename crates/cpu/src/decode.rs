//! From bytes to blocks: iced-x86 reads the encoding, the instruction table
//! ([`crate::ops`]) names the handler, [`Build`] fills in the operands.

use arch::regs::Seg;
use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::cache::Mode;
use crate::chain::{Sequence, any};
use crate::exec::fuse::{Silent, Unseen};
use crate::exec::system::sti_before_last;
use crate::op::{EA_16, EA_32, EA_LEGACY, EA_SEG, Handler, Op};
use crate::ops;
use crate::state::Regs;
use crate::{Cpu, Model};

/// Instructions in a block at most.
pub(crate) const MAX_OPS: usize = 64;
/// Bytes of an instruction at most (*SDM vol. 2A §2.3.11*).
pub const MAX_LEN: usize = 15;

/// What decoding at some place gave.
#[derive(Debug)]
pub enum Decoded {
    /// A run of instructions.
    Run(Run),
    /// The bytes end inside the first instruction: give those of the next page too.
    Incomplete,
}

/// A run of decoded instructions.
#[derive(Debug)]
pub struct Run {
    /// The instructions.
    pub ops: Sequence,
    /// Bytes they take.
    pub len: usize,
    /// See [`crate::cache::Block::linkable`].
    pub linkable: bool,
}

/// How much is to be decoded.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// One instruction only.
    pub single: bool,
    /// The bytes go beyond the page, so there are no more to ask for; then one
    /// instruction only.
    pub beyond: bool,
    /// Enclave code, in which some instructions are undefined.
    pub enclave: bool,
}

/// Decodes one instruction.
#[cfg(test)]
pub(crate) fn decode_one(cpu: &mut Cpu, bytes: &[u8], off: u16, mode: Mode) -> Op {
    let extent = Extent { single: true, beyond: true, enclave: false };
    match decode(cpu, bytes, off, mode, extent) {
        Decoded::Run(run) => run.ops.ops()[0],
        Decoded::Incomplete => panic!("incomplete: {bytes:x?}"),
    }
}

/// Decodes a block from `bytes`, whose first byte lies at offset `off` of its
/// page.
pub fn decode(cpu: &mut Cpu, bytes: &[u8], off: u16, mode: Mode, extent: Extent) -> Decoded {
    let Extent { single, beyond, enclave } = extent;
    let bits = [16, 32, 64][mode as usize];
    // IP relative to the page: branch targets and RIP-relative addresses come
    // out relative to it too.
    let mut decoder = Decoder::with_ip(bits, bytes, u64::from(off), DecoderOptions::OLD_FPU);
    // Full size at once: growing would leave copies of enclave code behind.
    let mut ops = Vec::with_capacity(MAX_OPS);
    let (mut insn, mut previous) = (Instruction::default(), Instruction::default());
    let mut unseen = Unseen::new();
    let mut used = 0;
    let mut linkable = true;
    while ops.len() < MAX_OPS && decoder.can_decode() {
        decoder.decode_out(&mut insn);
        if insn.is_invalid() {
            reserved_nop(bits, &bytes[used..], u64::from(off) + used as u64, &mut insn);
        }
        if insn.is_invalid() {
            match decoder.last_error() {
                // Fifteen bytes were there and still not enough: #GP (SDM vol. 2A §2.3.11).
                DecoderError::NoMoreBytes if bytes.len() - used >= MAX_LEN => {
                    ops.push(plain(any(ops::too_long), off as usize + used, 1));
                    used += 1;
                }
                DecoderError::NoMoreBytes if ops.is_empty() && !beyond => return Decoded::Incomplete,
                // The rest of the instruction is in the next page: a block of its own.
                DecoderError::NoMoreBytes if !ops.is_empty() => break,
                _ => {
                    let len = (decoder.position() - used).clamp(1, MAX_LEN);
                    ops.push(plain(any(ops::undefined), off as usize + used, len));
                    used += len;
                }
            }
            break;
        }
        if decoder.last_error() != DecoderError::None {
            let _ = decoder.set_position(used + insn.len());
        }
        let at = off as usize + used;
        // After STI one instruction more, so that no interrupt comes between them.
        let after_sti = !ops.is_empty() && previous.mnemonic() == Mnemonic::Sti;
        if let (true, Some(sti)) = (after_sti, ops.last_mut()) {
            sti.run = sti_before_last();
        }
        let before = ops.last_mut().map(|op| Before { insn: &previous, op });
        let (op, end, silent) = build(cpu, &insn, at as u16, mode, enclave, before);
        ops.push(op);
        unseen.follow(&insn, silent, &mut ops);
        previous = insn;
        used += insn.len();
        // STI at the end leaves a shadow.
        linkable = end != End::Change && insn.mnemonic() != Mnemonic::Sti;
        // A debugger's breakpoint is at the beginning of a block.
        let begins = cpu.block_begins((off as usize + used) as u64);
        if end != End::None || after_sti || single || beyond || begins {
            break;
        }
    }
    let kept = Sequence::new(&ops, off + used as u16);
    if enclave {
        wipe(&mut ops);
    }
    Decoded::Run(Run { ops: kept, len: used, linkable })
}

/// Overwrites decoded instructions, so that nothing of them stays in freed memory.
pub(crate) fn wipe(ops: &mut [Op]) {
    ops.fill(plain(any(ops::undefined), 0, 0));
    // Not to be left out because nobody reads it.
    std::hint::black_box(ops);
}

/// Encodings that no extension has taken are NOPs in 0F 18–0F 1F;
/// iced-x86 says so only if asked, and then for those that were taken as well.
fn reserved_nop(bits: u32, bytes: &[u8], ip: u64, insn: &mut Instruction) {
    let mut decoder = Decoder::with_ip(bits, bytes, ip, DecoderOptions::FORCE_RESERVED_NOP);
    let nop = decoder.decode();
    if nop.mnemonic() == Mnemonic::Reservednop {
        *insn = nop;
    }
}

/// An op without operands.
fn plain(run: Handler, off: usize, len: usize) -> Op {
    Op { run, off: off as u16, len: len as u8, ..Op::NONE }
}

/// How an instruction ends its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    /// A near branch.
    Branch,
    /// Translation, mode or privilege may change.
    Change,
}

/// True for an instruction that is `#UD` inside an enclave (*SDM vol. 3D,
/// "Illegal Instructions"*): by its row, or a form of it that is a far transfer
/// or loads a segment register.
fn illegal_in_enclave(cpu: &Cpu, row: &ops::Row, insn: &Instruction) -> bool {
    let far =
        insn.is_jmp_far() || insn.is_call_far() || insn.is_jmp_far_indirect() || insn.is_call_far_indirect();
    let loads = matches!(insn.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && insn.op0_kind() == OpKind::Register
        && insn.op0_register().is_segment_register();
    far || loads
        || insn.mnemonic() == Mnemonic::Retf
        || match row.enclave {
            ops::Enclave::Legal => false,
            ops::Enclave::Sgx2 => !cpu.sgx.as_ref().is_some_and(|sgx| sgx.package.config.sgx2),
            ops::Enclave::Illegal => true,
        }
}

fn build(
    cpu: &mut Cpu,
    insn: &Instruction,
    off: u16,
    mode: Mode,
    enclave: bool,
    before: Option<Before<'_>>,
) -> (Op, End, Option<Silent>) {
    let op = plain(any(ops::undefined), off as usize, insn.len());
    let Some(row) = ops::row(insn.mnemonic()) else {
        return (Op { run: any(ops::unimplemented), ..op }, End::Change, None);
    };
    // An encoding of an extension that the model lacks is undefined; one with
    // a memory destination takes LOCK only if the row says so.
    if !(row.hint || cpu.model.supports(insn)) || insn.has_lock_prefix() && !lock_allowed(row, insn) {
        return (op, End::Change, None);
    }
    if enclave && illegal_in_enclave(cpu, row, insn) {
        return (op, End::Change, None);
    }
    let mut build = Build { insn, mode, cpu, op, ends: false, before, silent: None };
    build.memory();
    let handler = (row.build)(&mut build);
    let (op, ends, silent) = (build.op, build.ends, build.silent);
    match handler {
        Some(run) if ends => (Op { run, ..op }, End::Change, None),
        Some(run) => (Op { run, ..op }, end_of(row, insn), silent),
        None => (op, End::Change, None),
    }
}

fn end_of(row: &ops::Row, insn: &Instruction) -> End {
    use FlowControl::{Call, ConditionalBranch, IndirectBranch, IndirectCall, Return, UnconditionalBranch};
    match insn.flow_control() {
        _ if row.ends => End::Change,
        FlowControl::Next => End::None,
        ConditionalBranch | UnconditionalBranch | Call | IndirectBranch | IndirectCall | Return => {
            End::Branch
        }
        _ => End::Change,
    }
}

fn lock_allowed(row: &ops::Row, insn: &Instruction) -> bool {
    row.lock && insn.op0_kind() == OpKind::Memory
}

/// One instruction on its way to an [`Op`].
pub struct Build<'a> {
    /// What iced-x86 read.
    pub insn: &'a Instruction,
    /// Decoding mode.
    pub mode: Mode,
    /// The processor, for thunks and the model.
    pub cpu: &'a mut Cpu,
    /// The op so far: place, length and memory operand are filled in.
    pub op: Op,
    /// The block ends after this form, whatever its row says.
    pub ends: bool,
    /// The instruction before it in its block.
    pub before: Option<Before<'a>>,
    /// What it can do without its status flags, if that is known.
    pub(crate) silent: Option<Silent>,
}

/// An instruction that is built already, and whose op a builder may change to
/// do its own work as well.
pub struct Before<'a> {
    /// What iced-x86 read.
    pub insn: &'a Instruction,
    /// Its op.
    pub op: &'a mut Op,
}

/// How a memory operand can be reached ([`crate::mmu::reach`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In 64-bit mode by base and displacement; or there is only the stack.
    Simple,
    /// In 64-bit mode.
    General,
    /// Otherwise.
    Any,
}

/// How the memory operand of an op, once filled in, can be reached.
pub(crate) fn way(mode: Mode, op: &Op) -> Way {
    match op.ea {
        _ if mode != Mode::Bits64 => Way::Any,
        0 if op.index == Regs::ZERO => Way::Simple,
        0 | EA_SEG => Way::General,
        _ => Way::Any,
    }
}

/// Width in bytes of operand `n`, a general register or memory.
pub(crate) fn width(insn: &Instruction, n: u32) -> usize {
    match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n).size(),
        OpKind::Memory => insn.memory_size().size(),
        _ => 0,
    }
}

impl Build<'_> {
    /// How the memory operand, once filled in, can be reached.
    pub(crate) fn way(&self) -> Way {
        way(self.mode, &self.op)
    }

    /// The model the processor implements.
    pub fn model(&self) -> &Model {
        &self.cpu.model
    }

    /// True if operand `n` is memory (other than a string instruction's).
    pub fn is_mem(&self, n: u32) -> bool {
        n < self.insn.op_count() && self.insn.op_kind(n) == OpKind::Memory
    }

    /// True if operand `n` is a register.
    pub fn is_reg(&self, n: u32) -> bool {
        n < self.insn.op_count() && self.insn.op_kind(n) == OpKind::Register
    }

    /// True if operand `n` is an immediate of any kind.
    pub fn is_imm(&self, n: u32) -> bool {
        n < self.insn.op_count()
            && !matches!(
                self.insn.op_kind(n),
                OpKind::Register
                    | OpKind::Memory
                    | OpKind::NearBranch16
                    | OpKind::NearBranch32
                    | OpKind::NearBranch64
                    | OpKind::FarBranch16
                    | OpKind::FarBranch32
            )
            && self.insn.try_immediate(n).is_ok()
    }

    /// Byte offset of operand `n`, a general register, into [`Regs`].
    pub fn reg(&self, n: u32) -> u8 {
        gpr_offset(self.insn.op_register(n))
    }

    /// Number of operand `n`'s register in its class (XMM3 → 3, CR4 → 4, DS → 3).
    pub fn reg_number(&self, n: u32) -> u8 {
        self.insn.op_register(n).number() as u8
    }

    /// Width in bytes of operand `n`, a general register or memory.
    pub fn width(&self, n: u32) -> usize {
        width(self.insn, n)
    }

    /// Puts the immediate operand `n` into `op.imm`, sign-extended as encoded.
    /// 64-bit immediates do not fit and go to `op.disp` by their builder.
    pub fn imm(&mut self, n: u32) {
        self.op.imm = self.insn.immediate(n) as i32;
    }

    /// Fills in the memory operand, if there is one.
    fn memory(&mut self) {
        let Some(_) = (0..self.insn.op_count()).find(|&n| self.insn.op_kind(n) == OpKind::Memory) else {
            return;
        };
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        self.op.disp = self.insn.memory_displacement64();
        self.op.scale = self.insn.memory_index_scale().trailing_zeros() as u8;
        self.op.base = match base {
            Register::None => Regs::ZERO,
            Register::RIP | Register::EIP => Regs::PAGE_IP,
            base => gpr_offset(base),
        };
        // A vector index (gather) is the builder's business.
        self.op.index = if index.is_gpr() { gpr_offset(index) } else { Regs::ZERO };
        let address = match base {
            Register::EIP => 4,
            Register::None | Register::RIP if !index.is_gpr() => self.insn.memory_displ_size().min(8),
            Register::None | Register::RIP => index.size() as u32,
            base => base.size() as u32,
        };
        self.segment(self.insn.memory_segment(), address);
    }

    /// Notes segment and address size (bytes) of the memory operand.
    pub fn segment(&mut self, segment: Register, address: u32) {
        self.op.seg = segment.number() as u8;
        self.op.ea = 0;
        if self.mode == Mode::Bits64 {
            // Overrides other than FS and GS are ignored (SDM vol. 2A §2.2.1).
            if !matches!(segment, Register::FS | Register::GS) {
                let stack = matches!(
                    self.insn.memory_base(),
                    Register::RSP | Register::RBP | Register::ESP | Register::EBP
                );
                self.op.seg = if stack { Seg::Ss as u8 } else { Seg::Ds as u8 };
            }
            if matches!(segment, Register::FS | Register::GS) {
                self.op.ea |= EA_SEG;
            }
            if address == 4 {
                self.op.ea |= EA_32;
            }
        } else {
            self.op.ea = EA_LEGACY | if address == 2 { EA_16 } else { EA_32 };
        }
    }

    /// Bytes of an implicit address (string instructions, XLAT): the address size.
    pub fn address_size(&self) -> u32 {
        use iced_x86::CodeSize;
        let default = [2, 4, 8][self.mode as usize];
        match self.insn.op_kinds().find_map(string_address) {
            Some(size) => size,
            None if self.insn.code_size() == CodeSize::Unknown => default,
            None => default,
        }
    }
}

fn string_address(kind: OpKind) -> Option<u32> {
    Some(match kind {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
        OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => 8,
        _ => return None,
    })
}

/// Byte offset of a general register into [`Regs`].
pub fn gpr_offset(register: Register) -> u8 {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            (register as u8 - Register::AH as u8) * 8 + 1
        }
        // iced numbers 8-bit registers AL, CL, DL, BL, AH, …, SPL, …: go by the full register.
        register => register.full_register().number() as u8 * 8,
    }
}
