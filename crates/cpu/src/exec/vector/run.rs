//! Runs thunks, and does with MXCSR and its exceptions what the guest's
//! processor would (*SDM vol. 1 §11.5*).

use arch::Exception;
use arch::regs::{Cr4, mxcsr};
use iced_x86::{EncodingKind, Mnemonic as M, OpKind, Register};

use super::assemble::{Control, NEVER_STORE, Needs, assemble};
use super::{Ran, address, gate, mmx, moves, precision, source, write_scratch};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
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
    let needs = Needs { mxcsr: obeys_mxcsr(insn.mnemonic()), flags: insn.rflags_modified() != 0 };
    let code = assemble(insn, needs)?;
    b.op.imm = i32::try_from(b.cpu.thunks.add(&code)?).ok()?;
    b.op.aux = 0;
    if needs.mxcsr {
        precision::note(&mut b.op, insn);
    }
    let mut memory = NONE;
    if let Some(n) = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory) {
        let size = insn.memory_size().size();
        b.op.aux = u8::try_from(size).ok().filter(|&size| (1..=64).contains(&size))?;
        memory = match n {
            0 => STORE,
            _ if !vex && size == 16 && !any_alignment(insn.mnemonic()) => LOAD_ALIGNED,
            _ => LOAD,
        };
    }
    let registers = (0..insn.op_count()).filter(|&n| insn.op_kind(n) == OpKind::Register);
    let mut registers = registers.map(|n| insn.op_register(n));
    if registers.any(Register::is_mm) || (insn.mnemonic() == M::Cvtpi2ps) {
        return Some(mmx::thunk_handler(b, needs));
    }
    macro_rules! handler {
        ($($vex:literal $memory:ident $mxcsr:literal $flags:literal),* $(,)?) => {
            match (vex, memory, needs.mxcsr, needs.flags) {
                $(($vex, $memory, $mxcsr, $flags) => Some(any(run::<$vex, $memory, $mxcsr, $flags>)),)*
                _ => None,
            }
        };
    }
    handler![
        false NONE false false, false LOAD false false, false LOAD_ALIGNED false false, false STORE false false,
        false NONE true false, false LOAD true false, false LOAD_ALIGNED true false,
        false NONE false true, false LOAD false true, false LOAD_ALIGNED false true,
        false NONE true true, false LOAD true true,
        true NONE false false, true LOAD false false, true STORE false false,
        true NONE true false, true LOAD true false, true STORE true false,
        true NONE false true, true LOAD false true,
        true NONE true true, true LOAD true true,
    ]
}

#[inline(always)]
fn run<const VEX: bool, const MEMORY: u8, const MXCSR: bool, const FLAGS: bool>(
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
    let rax = if MXCSR {
        run_mxcsr(cpu, op, memory)?
    } else {
        // SAFETY: the thunk of this op; `memory` leads to the `n` bytes it
        // touches, in RAM or scratch.
        unsafe { cpu.thunks.call(op.imm as u32, &raw mut cpu.s, memory, std::ptr::null_mut()) }
    };
    if FLAGS {
        set_flags(cpu, rax);
    }
    if MEMORY == STORE && through_scratch {
        write_scratch(cpu, la, n, op.seg)?;
    }
    Ok(Flow::Next)
}

/// Sets the status flags from what LAHF and SETO AL left.
#[inline(always)]
pub(super) fn set_flags(cpu: &mut Cpu, rax: u64) {
    let ax = rax >> 32;
    cpu.s.flags.set_all(ax >> 8 & 0xd5 | (ax & 1) << 11);
}

/// Runs the thunk of an instruction that obeys MXCSR.
#[inline(always)]
pub(super) fn run_mxcsr(cpu: &mut Cpu, op: &Op, memory: *mut u8) -> Result<u64, Exception> {
    // With the control bits that the host's code has too, and no new flags,
    // which is nearly always, neither MXCSR has to be changed.
    if cpu.s.mxcsr & !mxcsr::FLAGS == mxcsr::RESET {
        // SAFETY: the thunk of this op, `memory` as in `run`.
        let rax = unsafe { cpu.thunks.call(op.imm as u32, &raw mut cpu.s, memory, std::ptr::null_mut()) };
        if rax as u32 == 0 {
            return Ok(rax);
        }
    }
    run_controlled(cpu, op, memory)
}

/// Runs it under the guest's MXCSR and raises what it has unmasked.
#[inline(never)]
fn run_controlled(cpu: &mut Cpu, op: &Op, memory: *mut u8) -> Result<u64, Exception> {
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
    let mut call = |control: &mut Control| {
        // SAFETY: the thunk of this op, on the copy of its operand.
        unsafe { cpu.thunks.call(op.imm as u32, &raw mut cpu.s, scratch, (&raw mut *control).cast()) }
    };
    if unmasked & UE != 0 {
        // Unmasked, tininess alone is underflow, and FTZ does nothing
        // (SDM vol. 1 §4.9.1.5, §10.2.3.3). Masked, the host says so only
        // of inexact results, or if FTZ makes them so.
        control.run |= mxcsr::FTZ;
        control.unmasked = NEVER_STORE;
        tiny = call(&mut control) as u32 & UE | if tiny_half { UE } else { 0 };
        control.run &= !mxcsr::FTZ;
        control.unmasked = if tiny != 0 { NEVER_STORE } else { unmasked };
    }
    let rax = call(&mut control);
    let mut raised = rax as u32 & mxcsr::FLAGS | tiny;
    let reported = raised & unmasked;
    if reported & PRE_COMPUTATION != 0 {
        // Then nothing is computed, of any element.
        raised &= PRE_COMPUTATION;
    } else if reported & (OE | UE) != 0 && raised & PE != 0 && precision::is_inexact(cpu, op) == Some(false) {
        raised &= !PE;
    }
    cpu.s.mxcsr |= raised;
    if reported == 0 {
        Ok(rax)
    } else if cpu.s.cr4.contains(Cr4::OSXMMEXCPT) {
        Err(Exception::XM)
    } else {
        Err(Exception::UD)
    }
}

/// Legacy instructions whose 16-byte memory operand may lie anywhere.
fn any_alignment(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Pcmpestri | M::Pcmpestri64 | M::Pcmpestrm | M::Pcmpestrm64 | M::Pcmpistri | M::Pcmpistrm
    )
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
