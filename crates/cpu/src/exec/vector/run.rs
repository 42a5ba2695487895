//! Runs thunks, and does with MXCSR and its exceptions what the guest's
//! processor would (*SDM vol. 1 §11.5*).

use arch::Exception;
use arch::regs::{Cr4, mxcsr};
use iced_x86::{EncodingKind, Mnemonic as M, OpKind, Register};

use super::assemble::{Control, NEVER_STORE, Needs, assemble, is_string_comparison};
use super::{Ran, address, gate, mmx, moves, precision, source, write_scratch};
use crate::Cpu;
use crate::chain::{Chain, any, given_up, native, next};
use crate::decode::Build;
use crate::mmu::reach::{Fast, Miss, Reach};
use crate::op::{Flow, Handler, Op};

/// No memory operand.
const NONE: u8 = 0;
/// A memory source.
const LOAD: u8 = 1;
/// A memory source that must be 16-byte aligned.
const LOAD_ALIGNED: u8 = 2;
/// A memory destination.
const STORE: u8 = 3;

/// MXCSR flags of exceptions found before computing: IE, DE, ZE.
const PRE_COMPUTATION: u32 = 7;
/// Overflow and underflow.
const OE: u32 = 1 << 3;
const UE: u32 = 1 << 4;
/// Precision.
const PE: u32 = 1 << 5;

/// Builds a thunk. `aux` is the size of the memory operand, `imm` the thunk;
/// `misc`, `dst` and `src` are for [`precision`].
pub(in crate::exec) fn build(b: &mut Build<'_>) -> Option<Handler> {
    if let Some(handler) = moves::zero_idiom(b) {
        return Some(handler);
    }
    let insn = b.insn;
    let vex = insn.code().encoding() == EncodingKind::VEX;
    let (mxcsr, flags) = (obeys_mxcsr(insn.mnemonic()), insn.rflags_modified() != 0);
    b.op.aux = 0;
    let mut memory = NONE;
    if let Some(n) = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory) {
        let size = insn.memory_size().size();
        b.op.aux = u8::try_from(size).ok().filter(|&size| (1..=64).contains(&size))?;
        memory = match n {
            0 => STORE,
            _ if !vex && size == 16 && !is_string_comparison(insn.mnemonic()) => LOAD_ALIGNED,
            _ => LOAD,
        };
    }
    let registers = (0..insn.op_count()).filter(|&n| insn.op_kind(n) == OpKind::Register);
    let mut registers = registers.map(|n| insn.op_register(n));
    let mmx = registers.any(Register::is_mm) || insn.mnemonic() == M::Cvtpi2ps;
    macro_rules! handlers {
        ($($vex:literal $memory:ident $mxcsr:literal $flags:literal),* $(,)?) => {
            match (vex, memory, mxcsr, flags) {
                $(($vex, $memory, $mxcsr, $flags) => {
                    let full = full::<$vex, $memory, $mxcsr, $flags>;
                    (native(place::<$vex, $memory, $mxcsr>, full), given_up(full))
                })*
                _ if mmx => (any(mmx::thunk), given_up(mmx::thunk)),
                _ => return None,
            }
        };
    }
    let (handler, given_up) = handlers![
        false NONE false false, false LOAD false false, false LOAD_ALIGNED false false, false STORE false false,
        false NONE true false, false LOAD true false, false LOAD_ALIGNED true false,
        false NONE false true, false LOAD false true, false LOAD_ALIGNED false true,
        false NONE true true, false LOAD true true,
        true NONE false false, true LOAD false false, true STORE false false,
        true NONE true false, true LOAD true false, true STORE true false,
        true NONE false true, true LOAD false true,
        true NONE true true, true LOAD true true,
    ];
    let code = assemble(insn, Needs { mxcsr, flags, onward: with_flags, given_up })?;
    b.op.imm = i32::try_from(b.cpu.thunks.add(&code)?).ok()?;
    if mxcsr {
        precision::note(&mut b.op, insn);
    }
    if mmx { Some(mmx::thunk_handler(b, mxcsr)) } else { Some(handler) }
}

/// The memory operand, if the thunk needs nothing else: the instruction is allowed, its
/// memory at hand, and the control bits of MXCSR are those of the host's code,
/// which is nearly always.
#[inline(always)]
fn place<const VEX: bool, const MEMORY: u8, const MXCSR: bool>(cpu: &Cpu, op: &Op) -> Result<*mut u8, Miss> {
    if super::is_closed::<VEX>(cpu) || MXCSR && cpu.s.mxcsr & !mxcsr::FLAGS != mxcsr::RESET {
        return Err(Miss);
    }
    let n = u64::from(op.aux);
    match MEMORY {
        NONE => Ok(std::ptr::null_mut()),
        // What an exception may yet forbid must not be in memory.
        STORE if MXCSR => Err(Miss),
        STORE => cpu.ram_write(Fast::<true>::address(cpu, op, n, true)?, n).ok_or(Miss),
        _ => {
            let la = Fast::<true>::address(cpu, op, n, false)?;
            if MEMORY == LOAD_ALIGNED && la & 15 != 0 {
                return Err(Miss);
            }
            Ok(cpu.ram_read(la, n).ok_or(Miss)?.cast_mut())
        }
    }
}

/// Sets the status flags from what LAHF and SETO AL left, and goes on.
unsafe extern "sysv64-unwind" fn with_flags(cpu: &mut Cpu, op: *const Op, ax: u64) -> Chain {
    set_flags(cpu, ax);
    // SAFETY: a thunk of that op has come here.
    unsafe { next(cpu, op) }
}

/// Executes the instruction with all that there may be to do.
#[inline(always)]
fn full<const VEX: bool, const MEMORY: u8, const MXCSR: bool, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Ran {
    gate::<VEX>(cpu)?;
    let n = usize::from(op.aux);
    let mut la = 0;
    let mut through_scratch = false;
    let memory: *mut u8 = match MEMORY {
        NONE => std::ptr::null_mut(),
        STORE => {
            la = address::<true, false>(cpu, op, n)?;
            match cpu.ram_write(la, n as u64) {
                // What an exception may yet forbid must not be in memory.
                Some(ptr) if !MXCSR => ptr,
                _ => {
                    cpu.probe_write(la, n as u64, op.seg)?;
                    through_scratch = true;
                    (&raw mut *cpu.thunks.scratch).cast()
                }
            }
        }
        _ => {
            la = cpu.ea(op, n as u64, false)?;
            if MEMORY == LOAD_ALIGNED {
                super::aligned(la, 16)?;
            }
            source(cpu, la, n, op.seg)?.cast_mut()
        }
    };
    // SAFETY: `memory` leads to the `n` bytes that the thunk touches, in RAM or scratch.
    let ax = if MXCSR { run_controlled(cpu, op, memory)? } else { unsafe { run_plain(cpu, op, memory) } };
    if FLAGS {
        set_flags(cpu, ax);
    }
    if MEMORY == STORE && through_scratch {
        write_scratch(cpu, la, n, op.seg)?;
    }
    Ok(Flow::Next)
}

/// Sets the status flags from what LAHF and SETO AL left.
#[inline(always)]
fn set_flags(cpu: &mut Cpu, ax: u64) {
    cpu.s.flags.set_all(ax >> 8 & 0xd5 | (ax & 1) << 11);
}

/// Runs the thunk of an instruction that does not obey MXCSR.
///
/// # Safety
/// `memory` leads to the bytes of its memory operand, if it has one.
pub(super) unsafe fn run_plain(cpu: &mut Cpu, op: &Op, memory: *mut u8) -> u64 {
    let scratch = (&raw mut *cpu.thunks.scratch).cast();
    let this = std::ptr::from_ref(op).cast_mut().cast();
    // SAFETY: the thunk of this op, which does not write it, and returns because its last
    // argument, which it does not follow, is not null.
    unsafe { cpu.thunks.call(op.imm.cast_unsigned(), [(&raw mut cpu.s).cast(), this, memory, scratch]) }
}

/// Runs the thunk under the guest's MXCSR and raises what it has unmasked.
#[inline(never)]
pub(super) fn run_controlled(cpu: &mut Cpu, op: &Op, memory: *mut u8) -> Result<u64, Exception> {
    let n = usize::from(op.aux).min(64);
    let scratch: *mut u8 = (&raw mut *cpu.thunks.scratch).cast();
    if n != 0 && memory != scratch {
        // The instruction may run more than once, on the same operand.
        // SAFETY: `memory` leads to `n` bytes outside of the scratch.
        unsafe { mem::raw::copy(memory, scratch, n) };
    }
    let guest = cpu.s.mxcsr;
    let unmasked = !(guest >> 7) & mxcsr::FLAGS;
    let mut control = Control {
        run: guest & !(mxcsr::FLAGS | mxcsr::MASKS) | mxcsr::MASKS,
        host: mxcsr::RESET,
        unmasked,
        after: 0,
    };
    let tiny_half = unmasked & UE != 0 && precision::has_tiny_half(cpu, op);
    let mut tiny = 0;
    let this = std::ptr::from_ref(op).cast_mut().cast();
    let mut call = |control: &mut Control| {
        let arguments = [(&raw mut cpu.s).cast(), this, scratch, (&raw mut *control).cast()];
        // SAFETY: the thunk of this op, which does not write it, on the copy of its operand.
        unsafe { cpu.thunks.call(op.imm.cast_unsigned(), arguments) }
    };
    if unmasked & UE != 0 {
        // Unmasked, tininess alone is underflow, and FTZ does nothing
        // (SDM vol. 1 §4.9.1.5, §10.2.3.3). Masked, the host says so only
        // of inexact results, or if FTZ makes them so.
        control.run |= mxcsr::FTZ;
        control.unmasked = NEVER_STORE;
        call(&mut control);
        tiny = control.after & UE | if tiny_half { UE } else { 0 };
        control.run &= !mxcsr::FTZ;
        control.unmasked = if tiny != 0 { NEVER_STORE } else { unmasked };
    }
    let ax = call(&mut control);
    let mut raised = control.after & mxcsr::FLAGS | tiny;
    let reported = raised & unmasked;
    if reported & PRE_COMPUTATION != 0 {
        // Then nothing is computed, of any element.
        raised &= PRE_COMPUTATION;
    } else if reported & (OE | UE) != 0 && raised & PE != 0 && precision::is_inexact(cpu, op) == Some(false) {
        raised &= !PE;
    }
    cpu.s.mxcsr |= raised;
    if reported == 0 {
        Ok(ax)
    } else if cpu.s.cr4.contains(Cr4::OSXMMEXCPT) {
        Err(Exception::XM)
    } else {
        Err(Exception::UD)
    }
}

/// Instructions that are rounded by MXCSR or raise its exceptions: those with
/// a "SIMD Floating-Point Exceptions" section other than "None".
pub(super) fn obeys_mxcsr(mnemonic: M) -> bool {
    // The mnemonics are systematic, and nothing here is on a hot path.
    let name = format!("{mnemonic:?}").to_ascii_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    let starts = ["add", "sub", "mul", "div", "sqrt", "min", "max", "cmp", "hadd", "hsub", "round", "dp"];
    let float = ["ps", "pd", "ss", "sd"].iter().any(|end| name.ends_with(end));
    match name {
        // Exact: integers of 32 bits as doubles.
        "cvtdq2pd" | "cvtpi2pd" => false,
        "comiss" | "comisd" | "ucomiss" | "ucomisd" => true,
        _ if ["cvt", "fm", "fnm"].iter().any(|start| name.starts_with(start)) => true,
        _ => float && starts.iter().any(|start| name.starts_with(start)),
    }
}
