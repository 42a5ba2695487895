//! x87 arithmetic by the host's own FPU: exact to the last of the 80 bits,
//! with its status bits.
//!
//! Two ways, both in one thunk:
//!
//! * *In general* the host's FPU is loaded with the guest's whole state
//!   (FXRSTOR64), does the one instruction with the guest's own masks, and is
//!   saved (FXSAVE64). Between the two only non-waiting instructions follow,
//!   so that an unmasked exception stays a bit in the image: the host never
//!   traps.
//! * *Fast*, for instructions with a fixed number of operands that are all
//!   there: the operands are loaded by FLD m80, which neither rounds nor
//!   raises, the operation runs with every exception masked under the guest's
//!   precision and rounding control, and the result is taken. If an exception
//!   came up that the guest has unmasked, nothing has been changed yet and the
//!   general way does it again. Thunks leave the host's FPU with no flag raised and
//!   its initial control word; so flags are cleared only after they came up, and
//!   the control word is loaded only if the guest's controls are others.

use arch::Exception;
use arch::regs::rflags;

use super::stack::{C0, C1, C2, C3, ES, FLAGS, IE, PE, UE};
use super::{Ran, enter, note_pointers};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::state::X87;

// Op::dst
const SIZE: u8 = 0x0f;
const STORES: u8 = 0x10;
const ALL_CC: u8 = 0x20;
const EFLAGS: u8 = 0x40;
// Op::src
const STI: u8 = 0x07;
const HAS_STI: u8 = 0x08;
const TO_ST0: u8 = 0x10;
const TO_STI: u8 = 0x20;
const POPS: u32 = 6;
// Op::misc, beside the low bits of the opcode
pub(super) const FAST: u8 = 0x08;

/// FXSAVE's image.
#[repr(C, align(16))]
struct Image([u8; 512]);

/// Scratch of the fast way.
#[repr(C, align(16))]
#[derive(Default)]
struct Fast {
    /// Guest's control word with everything masked.
    cw: u16,
    /// [`HOST_CW`].
    host_cw: u16,
    _pad: u32,
    /// Flags after FCOMI.
    eflags: u64,
    /// Result.
    result: u128,
}

/// The control word of the host's code, as FNINIT leaves it: all exceptions masked.
const HOST_CW: u16 = 0x37f;

/// Bytes of a memory operand, with room to spare.
pub(super) type Operand = [u8; 16];

/// How the fast way is done.
pub(super) struct Plan {
    /// The operation on host ST(0) = guest ST(0) and, with `sti`, host
    /// ST(1) = guest ST(`sti`), and `[rsi]`.
    pub code: Vec<u8>,
    /// The other register operand.
    pub sti: Option<u8>,
    /// Register that gets the result, which is host ST(0) afterwards.
    pub result: Target,
    /// Registers the operation leaves on the host's stack.
    pub left: usize,
    /// Times the guest's stack is popped.
    pub pops: u8,
    /// All four condition bits are a result, not C1 alone.
    pub all_cc: bool,
    /// EFLAGS are a result.
    pub eflags: bool,
}

/// Where a result goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    None,
    St0,
    Sti,
}

/// Fills in the op for the instruction `code` (on `[rsi]` if it has a memory
/// operand of `size` bytes, which it reads or `stores`).
pub(super) fn prepare(
    b: &mut Build<'_>,
    code: &[u8],
    size: u8,
    stores: bool,
    plan: Option<&Plan>,
) -> Option<()> {
    b.op.dst |= size & SIZE | if stores { STORES } else { 0 };
    let mut host = Vec::with_capacity(96);
    if let Some(plan) = plan {
        let eflags = plan.eflags;
        b.op.misc |= FAST;
        b.op.dst |= if plan.all_cc { ALL_CC } else { 0 } | if eflags { EFLAGS } else { 0 };
        b.op.src = plan.sti.map_or(0, |i| HAS_STI | i & STI) | plan.pops << POPS;
        b.op.src |= match plan.result {
            Target::None => 0,
            Target::St0 => TO_ST0,
            Target::Sti => TO_STI,
        };
        let mut fast = Vec::with_capacity(48);
        let [low, high] = HOST_CW.to_le_bytes();
        fast.extend([0x66, 0x81, 0x3a, low, high]); // cmp word [rdx], HOST_CW
        fast.extend([0x74, 0x02, 0xd9, 0x2a]); // je over; fldcw [rdx]
        if let Some(i) = plan.sti {
            fast.extend([0xdb, 0x6f, i << 4]); // fld tbyte [rdi + 16 * i]
        }
        fast.extend([0xdb, 0x2f]); // fld tbyte [rdi]
        fast.extend(&plan.code);
        fast.extend([0xdf, 0xe0]); // fnstsw ax
        if eflags {
            fast.extend([0x9c, 0x59, 0x48, 0x89, 0x4a, 0x08]); // pushfq; pop rcx; mov [rdx + 8], rcx
        }
        let mut left = plan.left;
        if plan.result != Target::None {
            fast.extend([0xdb, 0x7a, 0x10]); // fstp tbyte [rdx + 16]
            left -= 1;
        }
        for _ in 0..left {
            fast.extend([0xdd, 0xd8]); // fstp st(0)
        }
        fast.extend([0xa8, 0x7f, 0x74, 0x02, 0xdb, 0xe2]); // test al, 0x7f; jz over; fnclex
        fast.extend([0x66, 0x81, 0x3a, low, high]); // cmp word [rdx], HOST_CW
        fast.extend([0x74, 0x03, 0xd9, 0x6a, 0x02, 0xc3]); // je over; fldcw [rdx + 2]; ret
        host.extend([0x48, 0x85, 0xff, 0x74, u8::try_from(fast.len()).ok()?]); // test rdi, rdi; jz general
        host.extend(fast);
    }
    host.extend([0x0f, 0xae, 0x5a, 0x18]); // stmxcsr [rdx + 24]
    host.extend([0xd9, 0xba, 0xf0, 0x01, 0, 0]); // fnstcw [rdx + 496]
    host.extend([0x48, 0x0f, 0xae, 0x0a]); // fxrstor64 [rdx]
    host.extend(code);
    host.extend([0x9c, 0x58]); // pushfq; pop rax
    host.extend([0x48, 0x0f, 0xae, 0x02]); // fxsave64 [rdx]
    host.extend([0xdb, 0xe3]); // fninit
    host.extend([0xd9, 0xaa, 0xf0, 0x01, 0, 0, 0xc3]); // fldcw [rdx + 496]; ret
    b.op.imm = b.cpu.thunks.add(&host)?.cast_signed();
    Some(())
}

/// The handler of ops that [`prepare`] filled in.
pub(super) fn handler(b: &Build<'_>) -> Handler {
    if b.op.misc & FAST != 0 { any(fast) } else { any(general) }
}

/// The general way, with the checks of a waiting instruction.
pub(super) fn general(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let mut operand = Operand::default();
    let la = fetch(cpu, op, &mut operand)?;
    run_general(cpu, op, la, &mut operand)
}

/// Reads the memory operand, if there is one that is read; its linear address.
#[inline(always)]
pub(super) fn fetch(cpu: &mut Cpu, op: &Op, operand: &mut Operand) -> Result<u64, Exception> {
    let size = op.dst & SIZE;
    if size == 0 {
        return Ok(0);
    }
    let stores = op.dst & STORES != 0;
    let la = cpu.ea(op, u64::from(size), stores)?;
    if !stores {
        cpu.read_bytes(la, &mut operand[..usize::from(size)], op.seg)?;
    }
    Ok(la)
}

/// The general way after the checks and [`fetch`].
#[inline(never)]
pub(super) fn run_general(cpu: &mut Cpu, op: &Op, la: u64, operand: &mut Operand) -> Ran {
    let mut image = Image([0; 512]);
    if let Some(legacy) = image.0.first_chunk_mut() {
        cpu.s.x87.save(legacy, true);
    }
    // SAFETY: the number is from `prepare`, since the last `clear` as for every
    // op; the code uses 16 bytes at most of `operand` and the 512 of `image`,
    // which is aligned.
    let flags = unsafe {
        let none = std::ptr::null_mut();
        let arguments = [none, operand.as_mut_ptr(), image.0.as_mut_ptr(), none];
        cpu.thunks.call(op.imm.cast_unsigned(), arguments)
    };
    let mut after = X87 { ..cpu.s.x87 };
    after.load(image.0.first_chunk().unwrap_or(&[0; 160]), true);
    let unmasked = after.sw & !after.cw & FLAGS;
    if op.dst & STORES != 0 {
        let size = usize::from(op.dst & SIZE);
        // Any unmasked exception but precision suppresses the store
        // (SDM vol. 1 §8.5); that the address is good is known before.
        if unmasked & !PE != 0 {
            cpu.probe_write(la, size as u64, op.seg)?;
        } else {
            cpu.write_bytes(la, &operand[..size], op.seg)?;
        }
    }
    let x = &mut cpu.s.x87;
    (x.st, x.sw, x.tag) = (after.st, after.sw, after.tag);
    if op.dst & EFLAGS != 0 {
        // The SDM clears C1; some hosts leave it.
        x.sw &= !C1;
        if unmasked & IE == 0 {
            set_eflags(cpu, flags);
        }
    }
    note_pointers(cpu, op, op.dst & SIZE != 0);
    Ok(Flow::Next)
}

fn set_eflags(cpu: &mut Cpu, host: u64) {
    // FCOMI clears the other three.
    cpu.s.flags.set_all(host & (rflags::ZF | rflags::PF | rflags::CF));
}

/// The fast way.
fn fast(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let mut operand = Operand::default();
    let la = fetch(cpu, op, &mut operand)?;
    let x = &mut cpu.s.x87;
    let sti = u16::from(op.src & STI);
    // Unmasked, underflow is raised for exact tiny results too (SDM vol. 1 §8.5.5).
    if x.cw & UE == 0 || x.empty(0) || op.src & HAS_STI != 0 && x.empty(sti) {
        return run_general(cpu, op, la, &mut operand);
    }
    let mut scratch = Fast { cw: x.cw | FLAGS, host_cw: HOST_CW, ..Fast::default() };
    // SAFETY: as in `run_general`; the code reads ST(0) and ST(i) of the eight
    // registers behind the first pointer, and uses `Fast` behind the third.
    let sw = unsafe {
        let st = x.st.as_mut_ptr();
        let scratch = (&raw mut scratch).cast();
        let arguments = [st.cast(), operand.as_mut_ptr(), scratch, std::ptr::null_mut()];
        cpu.thunks.call(op.imm.cast_unsigned(), arguments)
    } as u16;
    // An invalid operation may leave the condition bits as they were, and the
    // guest's are not in the host's status word.
    let invalid = op.dst & ALL_CC != 0 && sw & IE != 0;
    if invalid || sw & !x.cw & FLAGS != 0 {
        return run_general(cpu, op, la, &mut operand);
    }
    if op.dst & STORES != 0 {
        cpu.write_bytes(la, &operand[..usize::from(op.dst & SIZE)], op.seg)?;
    }
    let x = &mut cpu.s.x87;
    let cc = if op.dst & ALL_CC != 0 { C0 | C1 | C2 | C3 } else { C1 };
    x.sw = x.sw & !cc | sw & (cc | FLAGS);
    if op.src & TO_ST0 != 0 {
        x.st[0] = scratch.result;
    } else if op.src & TO_STI != 0 {
        x.st[usize::from(sti)] = scratch.result;
    }
    for _ in 0..op.src >> POPS {
        x.pop();
    }
    if op.dst & EFLAGS != 0 {
        set_eflags(cpu, scratch.eflags);
    }
    debug_assert!(cpu.s.x87.sw & ES == 0);
    note_pointers(cpu, op, op.dst & SIZE != 0);
    Ok(Flow::Next)
}
