//! The x87 FPU (*SDM vol. 1 chapter 8*).
//!
//! * [`stack`]: registers, status, tags; [`moves`]: what needs no arithmetic
//! * [`native`]: arithmetic, done by the host's FPU
//! * [`control`]: control words, environments, whole states
//!
//! An unmasked exception is reported as `#MF` by the next waiting instruction,
//! whatever CR0.NE says: with NE clear a board would see FERR# and answer with
//! an interrupt, as no board of the last thirty years is asked to.
//!
//! FIP, FDP and FOP follow every instruction that is not a control
//! instruction, in software: AMD's processors save them only while an
//! exception is pending.

pub(crate) mod control;
pub(crate) mod moves;
pub(crate) mod native;
pub(crate) mod stack;
#[cfg(test)]
pub(super) mod tests;

use arch::Exception;
use arch::regs::Cr0;
use iced_x86::{Mnemonic as M, OpCodeOperandKind, Register};

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{EA_16, Flow, Handler, Op};
use crate::ops::{Group, Row};
use native::{Plan, Target};
use stack::ES;

type Ran = Result<Flow, Exception>;

/// `#NM` if the FPU is emulated or its state is another task's (*SDM vol. 3A §2.5*).
#[inline(always)]
fn available(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.s.cr0.intersects(Cr0::EM | Cr0::TS) { Err(Exception::NM) } else { Ok(()) }
}

/// `#MF` if an unmasked exception is pending.
#[inline(always)]
fn waits(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.s.x87.sw & ES != 0 { Err(Exception::MF) } else { Ok(()) }
}

/// What precedes every waiting instruction.
#[inline(always)]
fn enter(cpu: &Cpu) -> Result<(), Exception> {
    available(cpu)?;
    waits(cpu)
}

/// Notes instruction, opcode and, with `memory`, data pointer
/// (*SDM vol. 1 §8.1.8, §8.1.9*).
#[inline(always)]
fn note_pointers(cpu: &mut Cpu, op: &Op, memory: bool) {
    let fip = cpu.this_rip(op);
    let fdp = if memory { crate::truncate(op.ea, cpu.ea_offset(op)) } else { cpu.s.x87.fdp };
    let fcs = cpu.s.seg[1].selector;
    let fds = if memory { cpu.s.seg[usize::from(op.seg).min(5)].selector } else { cpu.s.x87.fds };
    let x = &mut cpu.s.x87;
    (x.fip, x.fdp, x.fcs, x.fds) = (fip, fdp, fcs, fds);
    x.fop = u16::from(op.misc & 7) << 8 | u16::from(op.aux);
}

/// The instruction as the host will execute it, on `[rsi]` for a memory
/// operand, and its register operand ST(i).
struct Encoding {
    code: [u8; 2],
    sti: u8,
}

/// Reads the encoding and notes the opcode for FOP: three bits of the first
/// byte and the ModRM byte (*SDM vol. 1 figure 8-8*).
fn encoding(b: &mut Build<'_>) -> Option<Encoding> {
    let info = b.insn.code().op_code();
    let opcode = info.op_code();
    let mut sti = 0;
    let (code, modrm) = if info.op_code_len() == 1 {
        let reg = u8::try_from(info.group_index()).ok()? << 3;
        ([opcode as u8, reg | 6], reg | memory_modrm(b))
    } else {
        for n in 0..info.op_count() {
            if info.op_kind(n) == OpCodeOperandKind::sti_opcode {
                sti = b.reg_number(n) & 7;
            }
        }
        let second = opcode as u8 | sti;
        ([(opcode >> 8) as u8, second], second)
    };
    b.op.misc = code[0] & 7;
    b.op.aux = modrm;
    b.op.src = sti;
    Some(Encoding { code, sti })
}

/// ModRM.mod and ModRM.r/m of the memory operand. iced-x86 keeps the meaning,
/// not the byte; of encodings that mean the same, this is the shortest.
fn memory_modrm(b: &Build<'_>) -> u8 {
    let (base, index) = (b.insn.memory_base(), b.insn.memory_index());
    let displacement = b.insn.memory_displ_size();
    let short = |with: bool| {
        if !with {
            0
        } else if displacement == 1 {
            0x40
        } else {
            0x80
        }
    };
    if b.op.ea & EA_16 != 0 {
        let rm = match (base, index) {
            (Register::BX, Register::SI) => 0,
            (Register::BX, Register::DI) => 1,
            (Register::BP, Register::SI) => 2,
            (Register::BP, Register::DI) => 3,
            (Register::SI, _) => 4,
            (Register::DI, _) => 5,
            (Register::BP, _) => 6,
            (Register::BX, _) => 7,
            _ => return 6,
        };
        return short(displacement != 0) | rm;
    }
    let number = base.number() as u8 & 7;
    match base {
        Register::RIP | Register::EIP => 5,
        Register::None if index == Register::None && b.mode != crate::cache::Mode::Bits64 => 5,
        Register::None => 4,
        _ if index != Register::None || number == 4 => short(displacement != 0) | 4,
        _ => short(displacement != 0) | number,
    }
}

fn size(b: &Build<'_>) -> u8 {
    if b.is_mem(0) || b.is_mem(1) { b.insn.memory_size().size() as u8 } else { 0 }
}

/// Instructions that only the general way does: those that push, and those
/// that leave some condition bits alone (FPREM).
fn general(b: &mut Build<'_>) -> Option<Handler> {
    let encoding = encoding(b)?;
    native::prepare(b, &encoding.code, size(b), false, None)?;
    Some(native::handler(b))
}

/// An instruction with a handler in [`moves`] and the host behind it.
fn with_host(b: &mut Build<'_>, code: Option<[u8; 2]>, stores: bool, handler: Handler) -> Option<Handler> {
    let encoding = encoding(b)?;
    native::prepare(b, &code.unwrap_or(encoding.code), size(b), stores, None)?;
    Some(handler)
}

/// FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR with their popping and integer forms.
fn binary(b: &mut Build<'_>) -> Option<Handler> {
    let Encoding { code, sti } = encoding(b)?;
    let memory = size(b);
    let to_sti = memory == 0 && code[0] != 0xd8;
    let plan = Plan {
        code: match (memory, to_sti) {
            (0, false) => vec![0xd8, code[1] & 0xf8 | 1],
            // The popping form leaves the result on top of the host's stack.
            (0, true) => vec![0xde, code[1] & 0xf8 | 1],
            _ => code.to_vec(),
        },
        sti: (memory == 0).then_some(sti),
        result: if to_sti { Target::Sti } else { Target::St0 },
        left: if memory == 0 && !to_sti { 2 } else { 1 },
        pops: u8::from(to_sti && code[0] == 0xde),
        all_cc: false,
        eflags: false,
    };
    native::prepare(b, &code, memory, false, Some(&plan))?;
    Some(native::handler(b))
}

/// Comparisons with ST(i) or memory; `HOST` is the plain register form of the
/// comparison, `POPS` says how often it pops.
fn compare<const HOST: u16, const POPS: u8>(b: &mut Build<'_>) -> Option<Handler> {
    let Encoding { code, sti } = encoding(b)?;
    let memory = size(b);
    let host = HOST.to_be_bytes();
    let eflags = host[0] == 0xdb;
    // FCOMPP and FUCOMPP name no register.
    let sti = if POPS == 2 { 1 } else { sti };
    let plan = Plan {
        // FCOM is /2, FCOMP /3.
        code: if memory == 0 { vec![host[0], host[1] | 1] } else { vec![code[0], 0x16] },
        sti: (memory == 0).then_some(sti),
        result: Target::None,
        left: if memory == 0 { 2 } else { 1 },
        pops: POPS,
        all_cc: !eflags,
        eflags,
    };
    // FCOM and FCOMP have undocumented second encodings: use the first.
    let code = match code[0] {
        0xdc | 0xde if memory == 0 && POPS == 0 => [0xd8, 0xd0 | sti],
        0xdc | 0xde if memory == 0 && POPS == 1 => [0xd8, 0xd8 | sti],
        _ => code,
    };
    native::prepare(b, &code, memory, false, Some(&plan))?;
    Some(native::handler(b))
}

/// Instructions on ST(0) alone (FSQRT), or on ST(0) and ST(1) (`TWO`; with
/// `POP`, the result replaces ST(1) and becomes ST(0)); with `CC`, the
/// condition bits are a result.
fn on_stack<const TWO: bool, const POP: bool, const CC: bool>(b: &mut Build<'_>) -> Option<Handler> {
    let Encoding { code, .. } = encoding(b)?;
    let plan = Plan {
        code: code.to_vec(),
        sti: TWO.then_some(1),
        result: if POP { Target::Sti } else { Target::St0 },
        left: 1 + usize::from(TWO && !POP),
        pops: u8::from(POP),
        all_cc: CC,
        eflags: false,
    };
    native::prepare(b, &code, 0, false, Some(&plan))?;
    Some(native::handler(b))
}

/// FTST, FXAM: ST(0) is looked at.
fn test(b: &mut Build<'_>) -> Option<Handler> {
    let Encoding { code, .. } = encoding(b)?;
    let plan = Plan {
        code: code.to_vec(),
        sti: None,
        result: Target::None,
        left: 1,
        pops: 0,
        all_cc: true,
        eflags: false,
    };
    native::prepare(b, &code, 0, false, Some(&plan))?;
    Some(native::handler(b))
}

/// FST, FIST, FBSTP and their popping forms (`POP`), to memory with rounding.
fn store<const POP: bool>(b: &mut Build<'_>) -> Option<Handler> {
    let Encoding { code, .. } = encoding(b)?;
    let memory = size(b);
    let plan = Plan {
        // The host always pops: /2 stores, /3 stores and pops.
        code: vec![code[0], if code[1] == 0x16 { 0x1e } else { code[1] }],
        sti: None,
        result: Target::None,
        left: 0,
        pops: POP.into(),
        all_cc: false,
        eflags: false,
    };
    native::prepare(b, &code, memory, true, Some(&plan))?;
    Some(native::handler(b))
}

fn fld(b: &mut Build<'_>) -> Option<Handler> {
    let handler: Handler = match size(b) {
        0 => any(moves::load_sti),
        4 => any(moves::load::<moves::F32>),
        8 => any(moves::load::<moves::F64>),
        _ => any(moves::load::<moves::F80>),
    };
    with_host(b, None, false, handler)
}

fn fild(b: &mut Build<'_>) -> Option<Handler> {
    let handler: Handler = match size(b) {
        2 => any(moves::load::<moves::I16>),
        4 => any(moves::load::<moves::I32>),
        _ => any(moves::load::<moves::I64>),
    };
    with_host(b, None, false, handler)
}

fn fst<const POP: bool>(b: &mut Build<'_>) -> Option<Handler> {
    match size(b) {
        0 => {
            // FSTP has undocumented second encodings: use the first.
            let i = b.reg_number(0) & 7;
            let code = [0xdd, if POP { 0xd8 } else { 0xd0 } | i];
            with_host(b, Some(code), false, any(moves::store_sti::<POP>))
        }
        10 => with_host(b, None, true, any(moves::store80)),
        _ => store::<POP>(b),
    }
}

fn fxch(b: &mut Build<'_>) -> Option<Handler> {
    let i = b.reg_number(1) & 7;
    with_host(b, Some([0xd9, 0xc8 | i]), false, any(moves::exchange))
}

/// Builder of an instruction on registers with its handler in [`moves`].
macro_rules! moved {
    ($handler:expr) => {
        |b| with_host(b, None, false, any($handler))
    };
}

/// Builder of an instruction that never needs the host.
macro_rules! alone {
    ($handler:expr) => {
        |b| {
            encoding(b)?;
            Some(any($handler))
        }
    };
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::X87, build)
}

const FCOM: u16 = 0xd8d0;
const FUCOM: u16 = 0xdde0;
const FCOMI: u16 = 0xdbf0;
const FUCOMI: u16 = 0xdbe8;

/// The part of the instruction table for the FPU.
pub(super) const ROWS: &[Row] = &[
    row(M::F2xm1, "F2XM1", on_stack::<false, false, false>).thunk(),
    row(M::Fabs, "FABS", moved!(moves::sign::<true>)),
    row(M::Fadd, "FADD/FADDP/FIADD", binary).thunk(),
    row(M::Faddp, "FADD/FADDP/FIADD", binary).thunk(),
    row(M::Fiadd, "FADD/FADDP/FIADD", binary).thunk(),
    row(M::Fbld, "FBLD", general).thunk(),
    row(M::Fbstp, "FBSTP", store::<true>).thunk(),
    row(M::Fchs, "FCHS", moved!(moves::sign::<false>)),
    row(M::Fclex, "FCLEX/FNCLEX", control::fclex),
    row(M::Fnclex, "FCLEX/FNCLEX", control::fnclex),
    row(M::Fcmovb, "FCMOVcc", alone!(moves::cmov::<2>)),
    row(M::Fcmovnb, "FCMOVcc", alone!(moves::cmov::<3>)),
    row(M::Fcmove, "FCMOVcc", alone!(moves::cmov::<4>)),
    row(M::Fcmovne, "FCMOVcc", alone!(moves::cmov::<5>)),
    row(M::Fcmovbe, "FCMOVcc", alone!(moves::cmov::<6>)),
    row(M::Fcmovnbe, "FCMOVcc", alone!(moves::cmov::<7>)),
    row(M::Fcmovu, "FCMOVcc", alone!(moves::cmov::<10>)),
    row(M::Fcmovnu, "FCMOVcc", alone!(moves::cmov::<11>)),
    row(M::Fcom, "FCOM/FCOMP/FCOMPP", compare::<FCOM, 0>).thunk(),
    row(M::Fcomp, "FCOM/FCOMP/FCOMPP", compare::<FCOM, 1>).thunk(),
    row(M::Fcompp, "FCOM/FCOMP/FCOMPP", compare::<FCOM, 2>).thunk(),
    row(M::Fcomi, "FCOMI/FCOMIP/FUCOMI/FUCOMIP", compare::<FCOMI, 0>).thunk(),
    row(M::Fcomip, "FCOMI/FCOMIP/FUCOMI/FUCOMIP", compare::<FCOMI, 1>).thunk(),
    row(M::Fucomi, "FCOMI/FCOMIP/FUCOMI/FUCOMIP", compare::<FUCOMI, 0>).thunk(),
    row(M::Fucomip, "FCOMI/FCOMIP/FUCOMI/FUCOMIP", compare::<FUCOMI, 1>).thunk(),
    row(M::Fcos, "FCOS", on_stack::<false, false, true>).thunk(),
    row(M::Fdecstp, "FDECSTP", alone!(moves::turn::<true>)),
    row(M::Fdisi, "FENI/FDISI/FSETPM (no operation)", control::obsolete_waiting),
    row(M::Fndisi, "FENI/FDISI/FSETPM (no operation)", control::obsolete),
    row(M::Feni, "FENI/FDISI/FSETPM (no operation)", control::obsolete_waiting),
    row(M::Fneni, "FENI/FDISI/FSETPM (no operation)", control::obsolete),
    row(M::Fsetpm, "FENI/FDISI/FSETPM (no operation)", control::obsolete_waiting),
    row(M::Fnsetpm, "FENI/FDISI/FSETPM (no operation)", control::obsolete),
    row(M::Fdiv, "FDIV/FDIVP/FIDIV", binary).thunk(),
    row(M::Fdivp, "FDIV/FDIVP/FIDIV", binary).thunk(),
    row(M::Fidiv, "FDIV/FDIVP/FIDIV", binary).thunk(),
    row(M::Fdivr, "FDIVR/FDIVRP/FIDIVR", binary).thunk(),
    row(M::Fdivrp, "FDIVR/FDIVRP/FIDIVR", binary).thunk(),
    row(M::Fidivr, "FDIVR/FDIVRP/FIDIVR", binary).thunk(),
    row(M::Ffree, "FFREE", alone!(moves::free::<false>)),
    row(M::Ffreep, "FFREEP (vol. 1 §8.3.2)", alone!(moves::free::<true>)),
    row(M::Ficom, "FICOM/FICOMP", compare::<FCOM, 0>).thunk(),
    row(M::Ficomp, "FICOM/FICOMP", compare::<FCOM, 1>).thunk(),
    row(M::Fild, "FILD", fild),
    row(M::Fincstp, "FINCSTP", alone!(moves::turn::<false>)),
    row(M::Finit, "FINIT/FNINIT", control::finit),
    row(M::Fninit, "FINIT/FNINIT", control::fninit),
    row(M::Fist, "FIST/FISTP", store::<false>).thunk(),
    row(M::Fistp, "FIST/FISTP", store::<true>).thunk(),
    row(M::Fisttp, "FISTTP", store::<true>).thunk(),
    row(M::Fld, "FLD", fld),
    row(M::Fld1, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", moved!(moves::load_const::<true>)),
    row(M::Fldl2t, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", general).thunk(),
    row(M::Fldl2e, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", general).thunk(),
    row(M::Fldpi, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", general).thunk(),
    row(M::Fldlg2, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", general).thunk(),
    row(M::Fldln2, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", general).thunk(),
    row(M::Fldz, "FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ", moved!(moves::load_const::<false>)),
    row(M::Fldcw, "FLDCW", control::fldcw),
    row(M::Fldenv, "FLDENV", control::fldenv),
    row(M::Fmul, "FMUL/FMULP/FIMUL", binary).thunk(),
    row(M::Fmulp, "FMUL/FMULP/FIMUL", binary).thunk(),
    row(M::Fimul, "FMUL/FMULP/FIMUL", binary).thunk(),
    row(M::Fnop, "FNOP", alone!(moves::nop)),
    row(M::Fpatan, "FPATAN", on_stack::<true, true, false>).thunk(),
    row(M::Fprem, "FPREM", general).thunk(),
    row(M::Fprem1, "FPREM1", general).thunk(),
    row(M::Fptan, "FPTAN", general).thunk(),
    row(M::Frndint, "FRNDINT", on_stack::<false, false, false>).thunk(),
    row(M::Frstor, "FRSTOR", control::frstor),
    row(M::Fsave, "FSAVE/FNSAVE", control::fsave),
    row(M::Fnsave, "FSAVE/FNSAVE", control::fnsave),
    row(M::Fscale, "FSCALE", on_stack::<true, false, false>).thunk(),
    row(M::Fsin, "FSIN", on_stack::<false, false, true>).thunk(),
    row(M::Fsincos, "FSINCOS", general).thunk(),
    row(M::Fsqrt, "FSQRT", on_stack::<false, false, false>).thunk(),
    row(M::Fst, "FST/FSTP", fst::<false>).thunk(),
    row(M::Fstp, "FST/FSTP", fst::<true>).thunk(),
    row(M::Fstpnce, "FST/FSTP", fst::<true>).thunk(),
    row(M::Fstcw, "FSTCW/FNSTCW", control::fstcw),
    row(M::Fnstcw, "FSTCW/FNSTCW", control::fnstcw),
    row(M::Fstenv, "FSTENV/FNSTENV", control::fstenv),
    row(M::Fnstenv, "FSTENV/FNSTENV", control::fnstenv),
    row(M::Fstsw, "FSTSW/FNSTSW", control::fstsw),
    row(M::Fnstsw, "FSTSW/FNSTSW", control::fnstsw),
    row(M::Fsub, "FSUB/FSUBP/FISUB", binary).thunk(),
    row(M::Fsubp, "FSUB/FSUBP/FISUB", binary).thunk(),
    row(M::Fisub, "FSUB/FSUBP/FISUB", binary).thunk(),
    row(M::Fsubr, "FSUBR/FSUBRP/FISUBR", binary).thunk(),
    row(M::Fsubrp, "FSUBR/FSUBRP/FISUBR", binary).thunk(),
    row(M::Fisubr, "FSUBR/FSUBRP/FISUBR", binary).thunk(),
    row(M::Ftst, "FTST", test).thunk(),
    row(M::Fucom, "FUCOM/FUCOMP/FUCOMPP", compare::<FUCOM, 0>).thunk(),
    row(M::Fucomp, "FUCOM/FUCOMP/FUCOMPP", compare::<FUCOM, 1>).thunk(),
    row(M::Fucompp, "FUCOM/FUCOMP/FUCOMPP", compare::<FUCOM, 2>).thunk(),
    row(M::Fxam, "FXAM", test).thunk(),
    row(M::Fxch, "FXCH", fxch),
    row(M::Fxtract, "FXTRACT", general).thunk(),
    row(M::Fyl2x, "FYL2X", on_stack::<true, true, false>).thunk(),
    row(M::Fyl2xp1, "FYL2XP1", on_stack::<true, true, false>).thunk(),
    row(M::Wait, "WAIT/FWAIT", control::wait),
];
