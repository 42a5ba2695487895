//! Plain moves, where calling a thunk would cost more than the move.

use core::arch::asm;

use arch::Exception;
use iced_x86::{EncodingKind, Mnemonic as M, Register};
use mem::raw::Width;

use super::{Ran, address, gate, mmx, run, source};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

/// The source is memory.
const MEMORY: u8 = 0;
/// The source is memory, aligned to its size.
const ALIGNED: u8 = 1;
/// The source is a vector register.
const VECTOR: u8 = 2;
/// The source is a general register.
const GENERAL: u8 = 3;

/// Loads `N` bytes into a vector register at `to`, zero-extended to 16 bytes
/// or, by VEX encodings, to 32 (there are no more).
///
/// # Safety
/// `from` is valid for reads of `N` bytes, `to` for writes of 16 or 32.
#[inline(always)]
unsafe fn load_vector<const N: usize, const VEX: bool>(from: *const u8, to: *mut u8) {
    macro_rules! legacy {
        ($load:literal) => {
            asm!($load, "movups [{t}], {x}", x = out(xmm_reg) _, f = in(reg) from, t = in(reg) to,
                options(nostack, preserves_flags))
        };
    }
    macro_rules! vex {
        ($load:literal) => {
            asm!($load, "vmovups [{t}], ymm0", "vzeroupper", f = in(reg) from, t = in(reg) to,
                clobber_abi("sysv64"), options(nostack, preserves_flags))
        };
    }
    // SAFETY: one load and one store of what the caller vouches for.
    unsafe {
        match (N, VEX) {
            (4, false) => legacy!("movd {x}, dword ptr [{f}]"),
            (8, false) => legacy!("movq {x}, qword ptr [{f}]"),
            (_, false) => legacy!("movups {x}, [{f}]"),
            (4, true) => vex!("vmovd xmm0, dword ptr [{f}]"),
            (8, true) => vex!("vmovq xmm0, qword ptr [{f}]"),
            (16, true) => vex!("vmovups xmm0, [{f}]"),
            (_, true) => vex!("vmovups ymm0, [{f}]"),
        }
    }
}

/// Stores the low `N` bytes of a vector register.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `N` bytes.
#[inline(always)]
unsafe fn store_vector<const N: usize>(from: *const u8, to: *mut u8) {
    // SAFETY: one load and one store of what the caller vouches for.
    unsafe {
        match N {
            4 => u32::store(to, u32::load(from)),
            8 => u64::store(to, u64::load(from)),
            16 => asm!("movups {x}, [{f}]", "movups [{t}], {x}", x = out(xmm_reg) _,
                f = in(reg) from, t = in(reg) to, options(nostack, preserves_flags)),
            _ => asm!("vmovups ymm0, [{f}]", "vmovups [{t}], ymm0", "vzeroupper",
                f = in(reg) from, t = in(reg) to,
                clobber_abi("sysv64"), options(nostack, preserves_flags)),
        }
    }
}

#[inline(always)]
fn load<const N: usize, const VEX: bool, const FROM: u8>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let from: *const u8 = match FROM {
        MEMORY => {
            let la = address::<false, false>(cpu, op, N)?;
            source(cpu, la, N, op.seg)?
        }
        ALIGNED => {
            let la = address::<false, true>(cpu, op, N)?;
            source(cpu, la, N, op.seg)?
        }
        VECTOR => (&raw const cpu.s.vec[usize::from(op.src & 31)]).cast(),
        // SAFETY: `src` is the offset of one of the registers in `regs`.
        _ => unsafe { (&raw const cpu.s.regs).cast::<u8>().add(usize::from(op.src)) },
    };
    let to = (&raw mut cpu.s.vec[usize::from(op.dst & 31)]).cast();
    // SAFETY: `from` leads to N bytes, `to` to a whole register.
    unsafe { load_vector::<N, VEX>(from, to) };
    Ok(Flow::Next)
}

#[inline(always)]
fn store<const N: usize, const VEX: bool, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let la = address::<true, ALIGNED>(cpu, op, N)?;
    let from: *const u8 = (&raw const cpu.s.vec[usize::from(op.src & 31)]).cast();
    match cpu.ram_write(la, N as u64) {
        // SAFETY: `N` bytes of a register, and of RAM.
        Some(to) => unsafe { store_vector::<N>(from, to) },
        None => store_slow(cpu, la, op, N)?,
    }
    Ok(Flow::Next)
}

#[inline(never)]
fn store_slow(cpu: &mut Cpu, la: u64, op: &Op, n: usize) -> Result<(), Exception> {
    let words = cpu.s.vec[usize::from(op.src & 31)].0;
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    cpu.write_bytes(la, &bytes[..n], op.seg)
}

/// MOVD and MOVQ to a general register.
#[inline(always)]
fn to_general<W: Width, const VEX: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let value = cpu.s.vec[usize::from(op.src & 31)].0[0];
    cpu.s.regs.write(op.dst, W::truncate(value));
    Ok(Flow::Next)
}

/// An exclusive OR of a register with itself.
#[inline(always)]
fn zero<const VEX: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let to: *mut u8 = (&raw mut cpu.s.vec[usize::from(op.dst & 31)]).cast();
    // SAFETY: stores of one register, zero, to the whole register at `to`.
    unsafe {
        if VEX {
            asm!("vxorps xmm0, xmm0, xmm0", "vmovups [{t}], ymm0", "vzeroupper", t = in(reg) to,
                clobber_abi("sysv64"), options(nostack, preserves_flags));
        } else {
            asm!("xorps {x}, {x}", "movups [{t}], {x}", x = out(xmm_reg) _, t = in(reg) to,
                options(nostack, preserves_flags));
        }
    }
    Ok(Flow::Next)
}

/// The handler if the instruction is a way to clear an XMM or YMM register.
pub(super) fn zero_idiom(b: &mut Build<'_>) -> Option<Handler> {
    let insn = b.insn;
    let last = insn.op_count().checked_sub(1)?;
    let same = |a: u32| b.is_reg(a) && b.is_reg(last) && insn.op_register(a) == insn.op_register(last);
    let vex = match insn.mnemonic() {
        M::Pxor | M::Xorps | M::Xorpd if same(0) && !insn.op0_register().is_mm() => false,
        M::Vpxor | M::Vxorps | M::Vxorpd if same(1) => true,
        _ => return None,
    };
    b.op.dst = b.reg_number(0);
    Some(if vex { any(zero::<true>) } else { any(zero::<false>) })
}

fn is_aligned(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Movaps
            | M::Movapd
            | M::Movdqa
            | M::Movntdqa
            | M::Movntdq
            | M::Movntps
            | M::Movntpd
            | M::Vmovaps
            | M::Vmovapd
            | M::Vmovdqa
            | M::Vmovntdqa
            | M::Vmovntdq
            | M::Vmovntps
            | M::Vmovntpd
    )
}

fn build(b: &mut Build<'_>) -> Option<Handler> {
    let insn = b.insn;
    if (0..insn.op_count()).any(|n| b.is_reg(n) && insn.op_register(n).is_mm()) {
        return mmx::move_handler(b);
    }
    let scalar = matches!(insn.mnemonic(), M::Movss | M::Movsd | M::Vmovss | M::Vmovsd);
    if scalar && (0..insn.op_count()).all(|n| b.is_reg(n)) {
        // Merges with the destination.
        return run::build(b);
    }
    let vex = insn.code().encoding() == EncodingKind::VEX;
    let aligned = is_aligned(insn.mnemonic());
    let vector = |register: Register| register.is_xmm() || register.is_ymm();
    if b.is_mem(0) {
        b.op.src = b.reg_number(1);
        return store_handler(b.width(0), vex, aligned);
    }
    if !vector(insn.op0_register()) {
        b.op.dst = b.reg(0);
        b.op.src = b.reg_number(1);
        return match (b.width(0), vex) {
            (4, false) => Some(any(to_general::<u32, false>)),
            (8, false) => Some(any(to_general::<u64, false>)),
            (4, true) => Some(any(to_general::<u32, true>)),
            (8, true) => Some(any(to_general::<u64, true>)),
            _ => None,
        };
    }
    b.op.dst = b.reg_number(0);
    if b.is_mem(1) {
        let from = if aligned { ALIGNED } else { MEMORY };
        return load_handler(b.width(1), vex, from);
    }
    let source = insn.op1_register();
    if vector(source) {
        b.op.src = b.reg_number(1);
        // MOVQ is the one that moves less than a register here.
        let moves_half = matches!(insn.mnemonic(), M::Movq | M::Vmovq);
        load_handler(if moves_half { 8 } else { source.size() }, vex, VECTOR)
    } else {
        b.op.src = b.reg(1);
        load_handler(b.width(1), vex, GENERAL)
    }
}

fn load_handler(n: usize, vex: bool, from: u8) -> Option<Handler> {
    macro_rules! handler {
        ($($n:literal $vex:literal $from:ident),* $(,)?) => {
            match (n, vex, from) {
                $(($n, $vex, $from) => Some(any(load::<$n, $vex, $from>)),)*
                _ => None,
            }
        };
    }
    handler![
        4 false MEMORY, 8 false MEMORY, 16 false MEMORY, 16 false ALIGNED,
        4 true MEMORY, 8 true MEMORY, 16 true MEMORY, 32 true MEMORY, 16 true ALIGNED, 32 true ALIGNED,
        8 false VECTOR, 16 false VECTOR, 8 true VECTOR, 16 true VECTOR, 32 true VECTOR,
        4 false GENERAL, 8 false GENERAL, 4 true GENERAL, 8 true GENERAL,
    ]
}

fn store_handler(n: usize, vex: bool, aligned: bool) -> Option<Handler> {
    macro_rules! handler {
        ($($n:literal $vex:literal $aligned:literal),* $(,)?) => {
            match (n, vex, aligned) {
                $(($n, $vex, $aligned) => Some(any(store::<$n, $vex, $aligned>)),)*
                _ => None,
            }
        };
    }
    handler![
        4 false false, 8 false false, 16 false false, 16 false true,
        4 true false, 8 true false, 16 true false, 32 true false, 16 true true, 32 true true,
    ]
}

/// MOVSD of the vector kind: its mnemonic is also a string instruction's.
pub(in crate::exec) fn movsd(b: &mut Build<'_>) -> Option<Handler> {
    build(b)
}

const fn sse(mnemonic: M, sdm: &'static str) -> Row {
    Row::new(mnemonic, sdm, Group::Sse, build)
}

const fn avx(mnemonic: M, sdm: &'static str) -> Row {
    Row::new(mnemonic, sdm, Group::Avx, build)
}

const MOVAPS: &str = "MOVAPS—Move Aligned Packed Single Precision Floating-Point Values";
const MOVAPD: &str = "MOVAPD—Move Aligned Packed Double Precision Floating-Point Values";
const MOVUPS: &str = "MOVUPS—Move Unaligned Packed Single Precision Floating-Point Values";
const MOVUPD: &str = "MOVUPD—Move Unaligned Packed Double Precision Floating-Point Values";
const MOVDQA: &str = "MOVDQA, VMOVDQA32/64—Move Aligned Packed Integer Values";
const MOVDQU: &str = "MOVDQU, VMOVDQU8/16/32/64—Move Unaligned Packed Integer Values";
const LDDQU: &str = "LDDQU—Load Unaligned Integer 128 Bits";
const MOVNTDQA: &str = "MOVNTDQA—Load Double Quadword Non-Temporal Aligned Hint";
const MOVNTDQ: &str = "MOVNTDQ—Store Packed Integers Using Non-Temporal Hint";
const MOVNTPS: &str = "MOVNTPS—Store Packed Single Precision Floating-Point Values Using Non-Temporal Hint";
const MOVNTPD: &str = "MOVNTPD—Store Packed Double Precision Floating-Point Values Using Non-Temporal Hint";
const MOVD: &str = "MOVD/MOVQ—Move Doubleword/Move Quadword";
const MOVQ: &str = "MOVQ—Move Quadword";
const MOVSS: &str = "MOVSS—Move or Merge Scalar Single Precision Floating-Point Value";
const MOVSD: &str = "MOVSD—Move or Merge Scalar Double Precision Floating-Point Value";

/// Moves. (MOVSD's row is with the string instructions.)
pub(in crate::exec) const ROWS: &[Row] = &[
    sse(M::Movaps, MOVAPS),
    sse(M::Movapd, MOVAPD),
    sse(M::Movups, MOVUPS),
    sse(M::Movupd, MOVUPD),
    sse(M::Movdqa, MOVDQA),
    sse(M::Movdqu, MOVDQU),
    sse(M::Lddqu, LDDQU),
    sse(M::Movntdqa, MOVNTDQA),
    sse(M::Movntdq, MOVNTDQ),
    sse(M::Movntps, MOVNTPS),
    sse(M::Movntpd, MOVNTPD),
    sse(M::Movd, MOVD),
    sse(M::Movq, MOVQ),
    sse(M::Movss, MOVSS),
    Row::new(M::Movntq, "MOVNTQ—Store of Quadword Using Non-Temporal Hint", Group::Mmx, mmx::move_handler),
    avx(M::Vmovaps, MOVAPS),
    avx(M::Vmovapd, MOVAPD),
    avx(M::Vmovups, MOVUPS),
    avx(M::Vmovupd, MOVUPD),
    avx(M::Vmovdqa, MOVDQA),
    avx(M::Vmovdqu, MOVDQU),
    avx(M::Vlddqu, LDDQU),
    avx(M::Vmovntdqa, MOVNTDQA),
    avx(M::Vmovntdq, MOVNTDQ),
    avx(M::Vmovntps, MOVNTPS),
    avx(M::Vmovntpd, MOVNTPD),
    avx(M::Vmovd, MOVD),
    avx(M::Vmovq, MOVQ),
    avx(M::Vmovss, MOVSS),
    avx(M::Vmovsd, MOVSD),
];
