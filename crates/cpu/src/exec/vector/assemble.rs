//! Assembles thunks: operands from the state into host registers, the guest's
//! instruction itself, results back into the state.
//!
//! The arguments are the processor, the op, the memory operand and what is asked of
//! the thunk. If the last is null, it goes on to the next op by itself; else it returns.
//! Vector registers keep their numbers. General registers become R10 and R11,
//! the memory operand becomes `[rdx]`.

use std::mem::offset_of;

use iced_x86::{
    Code, Encoder, EncodingKind, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic as M, OpAccess,
    OpKind, Register,
};

use crate::chain::{Chain, Handler};
use crate::op::Op;
use crate::state::X87;
use crate::{Cpu, State};

/// What a thunk that returns finds at its last argument, if it obeys MXCSR. One that
/// goes on runs under the host's MXCSR, whose control bits are the reset value's, and gives
/// up, having stored nothing, if the instruction may have raised a flag that
/// the guest's MXCSR lacks.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Control {
    /// MXCSR to run with.
    pub(super) run: u32,
    /// MXCSR to leave behind.
    pub(super) host: u32,
    /// Nothing is stored if the instruction raises one of these flags;
    /// [`NEVER_STORE`] always holds.
    pub(super) unmasked: u32,
    /// MXCSR after the instruction.
    pub(super) after: u32,
}

/// See [`Control::unmasked`].
pub(super) const NEVER_STORE: u32 = 0x40;

/// What else a thunk has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Where it goes on with AX as LAHF and SETO AL leave it, if it sets status flags.
    pub(super) onward: WithFlags,
    /// Where it goes on with the same op if it gives up.
    pub(super) given_up: Handler,
    /// The instruction obeys MXCSR.
    pub(super) mxcsr: bool,
    /// It sets status flags.
    pub(super) flags: bool,
}

/// Sets status flags from AX and goes on.
pub(super) type WithFlags = unsafe extern "sysv64-unwind" fn(&mut Cpu, *const Op, u64) -> Chain;

// The state comes first in the processor.
const _: () = assert!(offset_of!(Cpu, s) == 0);
const VEC: i64 = offset_of!(State, vec) as i64;
const REGS: i64 = offset_of!(State, regs) as i64;
const ST: i64 = (offset_of!(State, x87) + offset_of!(X87, st)) as i64;
const MXCSR: i64 = offset_of!(State, mxcsr) as i64;

/// A register to load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// XMM or YMM register.
    Vector { number: i64, wide: bool },
    /// MMX register.
    Mmx(i64),
    /// General register of the guest, and the host's in its stead.
    General { number: i64, host: Register },
}

/// Thunks that return give AX as LAHF and SETO AL leave it, if they set flags.
pub(super) fn assemble(insn: &Instruction, needs: Needs) -> Option<Vec<u8>> {
    let vex = insn.code().encoding() == EncodingKind::VEX;
    let mut plan = Plan::new(insn, vex)?;
    let mut out = Assembler { code: Vec::new(), encoder: Encoder::new(64), vex };
    if plan.strings {
        out.raw(&[0x49, 0x89, 0xd0, 0x49, 0x89, 0xc9]); // mov r8, rdx; mov r9, rcx
    }
    // Is it to return?
    let returns: &[u8] = if plan.strings { &[0x4d, 0x85, 0xc9] } else { &[0x48, 0x85, 0xc9] };
    if needs.mxcsr {
        out.raw(returns); // test rcx, rcx
        let over = out.jump(0x74); // jz
        out.raw(&[0x0f, 0xae, 0x11]); // ldmxcsr [rcx]
        out.land(over)?;
    }
    // The wide ones last: one register may be an operand of both widths.
    plan.loads.sort_by_key(|place| matches!(place, Place::Vector { wide: true, .. }));
    plan.stores.dedup();
    for &place in &plan.loads {
        out.load(place)?;
    }
    out.emit(&plan.insn)?;
    if needs.flags {
        out.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
        out.raw(&[0x44, 0x0f, 0xb7, 0xd8]); // movzx r11d, ax
    }
    if needs.mxcsr {
        out.raw(returns);
        let controlled = out.long_jump(0x85); // jnz
        out.raw(&[0x0f, 0xae, 0x5c, 0x24, 0xf8]); // stmxcsr [rsp-8]
        out.raw(&[0x8b, 0x87]); // mov eax, [rdi+MXCSR]
        out.raw(&i32::try_from(MXCSR).ok()?.to_le_bytes());
        out.raw(&[0xf7, 0xd0, 0x23, 0x44, 0x24, 0xf8]); // not eax; and eax, [rsp-8]
        out.raw(&[0xa8, 0x3f]); // test al, 0x3f
        let given_up = out.long_jump(0x85); // jnz
        out.finish(&plan)?;
        out.onward(needs)?;
        out.land_long(given_up)?;
        out.tidy(plan.mmx);
        out.leave_for(needs.given_up as usize);
        out.land_long(controlled)?;
        out.raw(&[0x0f, 0xae, 0x59, 0x0c]); // stmxcsr [rcx+12]
        out.raw(&[0x0f, 0xae, 0x51, 0x04]); // ldmxcsr [rcx+4]
        out.raw(&[0x8b, 0x41, 0x0c, 0x83, 0xe0, 0x3f]); // mov eax, [rcx+12]; and eax, 0x3f
        out.raw(&[0x83, 0xc8, 0x40]); // or eax, NEVER_STORE
        out.raw(&[0x85, 0x41, 0x08]); // test [rcx+8], eax
        let reported = out.long_jump(0x85); // jnz
        out.finish(&plan)?;
        out.give_back(needs);
        out.land_long(reported)?;
        out.tidy(plan.mmx);
        out.give_back(needs);
    } else {
        out.finish(&plan)?;
        out.raw(returns);
        let back = out.long_jump(0x85); // jnz
        out.onward(needs)?;
        out.land_long(back)?;
        out.give_back(needs);
    }
    Some(out.code)
}

struct Plan {
    insn: Instruction,
    loads: Vec<Place>,
    stores: Vec<Place>,
    mmx: bool,
    /// A comparison of strings, which may have operands in RAX, RCX and RDX: the memory
    /// operand becomes `[r8]`, and what is asked R9.
    strings: bool,
}

impl Plan {
    fn new(insn: &Instruction, vex: bool) -> Option<Plan> {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(insn);
        let strings = is_string_comparison(insn.mnemonic());
        let mut plan = Plan { insn: *insn, loads: Vec::new(), stores: Vec::new(), mmx: false, strings };
        let mut spare = [Register::R10, Register::R11].into_iter();
        for n in 0..insn.op_count() {
            let (reads, writes) = access(info.op_access(n));
            match insn.op_kind(n) {
                OpKind::Memory => plan.move_memory(),
                OpKind::Register => {
                    let register = insn.op_register(n);
                    let number = register.number() as i64;
                    let place = if register.is_gpr() {
                        let host = spare.next()?;
                        plan.insn.set_op_register(n, resize(host, register)?);
                        Place::General { number: register.full_register().number() as i64, host }
                    } else if register.is_mm() {
                        plan.mmx = true;
                        Place::Mmx(number)
                    } else if register.is_xmm() || register.is_ymm() {
                        Place::Vector { number, wide: register.is_ymm() }
                    } else {
                        return None;
                    };
                    // Legacy destinations are loaded always: what an instruction
                    // leaves of them stays.
                    if reads || (!vex && !register.is_gpr()) {
                        plan.loads.push(place);
                    }
                    if writes {
                        plan.stores.push(place);
                    }
                }
                _ => {}
            }
        }
        plan.implicit();
        Some(plan)
    }

    fn move_memory(&mut self) {
        let insn = &mut self.insn;
        insn.set_memory_base(if self.strings { Register::R8 } else { Register::RDX });
        insn.set_memory_index(Register::None);
        insn.set_memory_index_scale(1);
        insn.set_memory_displacement64(0);
        insn.set_memory_displ_size(0);
        insn.set_segment_prefix(Register::None);
    }

    /// Operands that the encoding implies.
    fn implicit(&mut self) {
        let xmm0 = Place::Vector { number: 0, wide: false };
        let general = |number, host| Place::General { number, host };
        let mnemonic = self.insn.mnemonic();
        match mnemonic {
            M::Blendvpd | M::Blendvps | M::Pblendvb | M::Sha256rnds2 => self.loads.push(xmm0),
            M::Pcmpestrm | M::Pcmpestrm64 | M::Pcmpistrm => {
                self.loads.push(xmm0);
                self.stores.push(xmm0);
            }
            M::Vpcmpestrm | M::Vpcmpestrm64 | M::Vpcmpistrm => self.stores.push(xmm0),
            M::Pcmpestri
            | M::Pcmpestri64
            | M::Pcmpistri
            | M::Vpcmpestri
            | M::Vpcmpestri64
            | M::Vpcmpistri => {
                self.stores.push(general(1, Register::RCX));
            }
            _ => {}
        }
        if matches!(
            mnemonic,
            M::Pcmpestri
                | M::Pcmpestri64
                | M::Pcmpestrm
                | M::Pcmpestrm64
                | M::Vpcmpestri
                | M::Vpcmpestri64
                | M::Vpcmpestrm
                | M::Vpcmpestrm64
        ) {
            self.loads.push(general(0, Register::RAX));
            self.loads.push(general(2, Register::RDX));
        }
    }
}

/// PCMPESTRI, PCMPISTRM and their like, which also take a 16-byte memory operand
/// that lies anywhere.
pub(super) fn is_string_comparison(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Pcmpestri
            | M::Pcmpestri64
            | M::Pcmpestrm
            | M::Pcmpestrm64
            | M::Pcmpistri
            | M::Pcmpistrm
            | M::Vpcmpestri
            | M::Vpcmpestri64
            | M::Vpcmpestrm
            | M::Vpcmpestrm64
            | M::Vpcmpistri
            | M::Vpcmpistrm
    )
}

/// Whether an operand is read, and whether it is written.
fn access(access: OpAccess) -> (bool, bool) {
    use OpAccess::{CondRead, CondWrite, Read, ReadCondWrite, ReadWrite, Write};
    (
        matches!(access, Read | CondRead | ReadWrite | ReadCondWrite | CondWrite),
        matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite),
    )
}

/// The part of `host` that has the size of `like`.
fn resize(host: Register, like: Register) -> Option<Register> {
    Some(match (host, like.size()) {
        (_, 8) => host,
        (Register::R10, 4) => Register::R10D,
        (Register::R11, 4) => Register::R11D,
        _ => return None,
    })
}

struct Assembler {
    code: Vec<u8>,
    encoder: Encoder,
    vex: bool,
}

impl Assembler {
    fn raw(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn emit(&mut self, insn: &Instruction) -> Option<()> {
        self.encoder.encode(insn, 0).ok()?;
        self.code.extend_from_slice(&self.encoder.take_buffer());
        Some(())
    }

    /// A conditional jump over at most 127 bytes; where it goes is for [`Self::land`].
    fn jump(&mut self, opcode: u8) -> usize {
        self.raw(&[opcode, 0]);
        self.code.len()
    }

    fn land(&mut self, from: usize) -> Option<()> {
        self.code[from - 1] = i8::try_from(self.code.len() - from).ok()? as u8;
        Some(())
    }

    fn long_jump(&mut self, opcode: u8) -> usize {
        self.raw(&[0x0f, opcode, 0, 0, 0, 0]);
        self.code.len()
    }

    fn land_long(&mut self, from: usize) -> Option<()> {
        let distance = i32::try_from(self.code.len() - from).ok()?;
        self.code[from - 4..from].copy_from_slice(&distance.to_le_bytes());
        Some(())
    }

    /// Results back into the state, and the host's registers as its code expects them.
    fn finish(&mut self, plan: &Plan) -> Option<()> {
        plan.stores.iter().try_for_each(|&place| self.store(place))?;
        self.tidy(plan.mmx);
        Some(())
    }

    /// Goes on after the instruction.
    fn onward(&mut self, needs: Needs) -> Option<()> {
        if needs.flags {
            self.raw(&[0x44, 0x89, 0xda]); // mov edx, r11d
            self.leave_for(needs.onward as usize);
        } else {
            self.raw(&[0x48, 0x83, 0xc6, u8::try_from(size_of::<Op>()).ok()?]); // add rsi, size of an op
            self.raw(&[0xff, 0x66, u8::try_from(offset_of!(Op, run)).ok()?]); // jmp [rsi+RUN]
        }
        Some(())
    }

    /// Jumps to code of this program.
    fn leave_for(&mut self, to: usize) {
        self.raw(&[0x48, 0xb8]); // mov rax, to
        self.raw(&(to as u64).to_le_bytes());
        self.raw(&[0xff, 0xe0]); // jmp rax
    }

    /// Returns to the caller.
    fn give_back(&mut self, needs: Needs) {
        if needs.flags {
            self.raw(&[0x44, 0x89, 0xd8]); // mov eax, r11d
        }
        self.raw(&[0xc3]);
    }

    fn load(&mut self, place: Place) -> Option<()> {
        let (code, register, at) = match place {
            Place::Vector { number, wide } => {
                let (code, first) = match (self.vex, wide) {
                    (true, true) => (Code::VEX_Vmovups_ymm_ymmm256, Register::YMM0),
                    (true, false) => (Code::VEX_Vmovups_xmm_xmmm128, Register::XMM0),
                    (false, _) => (Code::Movups_xmm_xmmm128, Register::XMM0),
                };
                (code, first + number as u32, VEC + 64 * number)
            }
            Place::Mmx(number) => (Code::Movq_mm_mmm64, Register::MM0 + number as u32, ST + 16 * number),
            Place::General { number, host } => (Code::Mov_r64_rm64, host, REGS + 8 * number),
        };
        let memory = MemoryOperand::with_base_displ(Register::RDI, at);
        let insn = Instruction::with2(code, register, memory).ok()?;
        self.emit(&insn)
    }

    fn store(&mut self, place: Place) -> Option<()> {
        let (code, register, at) = match place {
            // A VEX-encoded instruction clears the register beyond its result:
            // the host has done so up to bit 255, and no model has more.
            Place::Vector { number, .. } => {
                let (code, first) = if self.vex {
                    (Code::VEX_Vmovups_ymmm256_ymm, Register::YMM0)
                } else {
                    (Code::Movups_xmmm128_xmm, Register::XMM0)
                };
                (code, first + number as u32, VEC + 64 * number)
            }
            Place::Mmx(number) => (Code::Movq_mmm64_mm, Register::MM0 + number as u32, ST + 16 * number),
            Place::General { number, host } => (Code::Mov_rm64_r64, host, REGS + 8 * number),
        };
        let memory = MemoryOperand::with_base_displ(Register::RDI, at);
        let insn = Instruction::with2(code, memory, register).ok()?;
        self.emit(&insn)?;
        if let Place::Mmx(number) = place {
            // Sign and exponent become ones (SDM vol. 3A §12.2).
            let exponent = MemoryOperand::with_base_displ(Register::RDI, ST + 16 * number + 8);
            self.emit(&Instruction::with2(Code::Mov_rm16_imm16, exponent, 0xffffu32).ok()?)?;
        }
        Some(())
    }

    /// Leaves vector and x87 registers as the host's code expects them.
    fn tidy(&mut self, mmx: bool) {
        if self.vex {
            self.raw(&[0xc5, 0xf8, 0x77]); // vzeroupper
        }
        if mmx {
            self.raw(&[0x0f, 0x77]); // emms
        }
    }
}
