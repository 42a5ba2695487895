//! Moves that need no arithmetic: loads that are always exact, stores of 80
//! bits, exchanges, sign changes, and the handling of the stack itself.
//!
//! Each does the undisturbed case; a stack fault, or a conversion that raises
//! an exception, is left to the host ([`super::native`]).

use super::native::{Operand, fetch, run_general};
use super::stack::{self, C1};
use super::{Ran, enter, note_pointers};
use crate::Cpu;
use crate::op::{Flow, Op};

/// Register operand of the ops in this file.
const STI: u8 = 7;

/// Loads.
pub(super) trait Load {
    /// The operand as a register; `None` if that raises an exception.
    fn convert(operand: &Operand) -> Option<u128>;
}

macro_rules! load {
    ($name:ident, $bytes:literal, |$x:ident: $t:ty| $convert:expr) => {
        pub(super) struct $name;
        impl Load for $name {
            #[inline(always)]
            fn convert(operand: &Operand) -> Option<u128> {
                let $x: $t = operand.first_chunk::<$bytes>()?;
                $convert
            }
        }
    };
}

load!(F32, 4, |x: &[u8; 4]| stack::from_f32(u32::from_le_bytes(*x)));
load!(F64, 8, |x: &[u8; 8]| stack::from_f64(u64::from_le_bytes(*x)));
load!(F80, 10, |x: &[u8; 10]| Some(stack::from_bytes(x)));
load!(I16, 2, |x: &[u8; 2]| Some(stack::from_int(i16::from_le_bytes(*x).into())));
load!(I32, 4, |x: &[u8; 4]| Some(stack::from_int(i32::from_le_bytes(*x).into())));
load!(I64, 8, |x: &[u8; 8]| Some(stack::from_int(i64::from_le_bytes(*x))));

/// FLD, FILD from memory.
pub(super) fn load<L: Load>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let mut operand = Operand::default();
    let la = fetch(cpu, op, &mut operand)?;
    match L::convert(&operand) {
        Some(value) if cpu.s.x87.empty(7) => cpu.s.x87.push(value),
        _ => return run_general(cpu, op, la, &mut operand),
    }
    note_pointers(cpu, op, true);
    Ok(Flow::Next)
}

/// Finishes an op without memory operand: by the host if `done` is false.
#[inline(always)]
fn finish(cpu: &mut Cpu, op: &Op, done: bool) -> Ran {
    if !done {
        return run_general(cpu, op, 0, &mut Operand::default());
    }
    note_pointers(cpu, op, false);
    Ok(Flow::Next)
}

/// FLD ST(i).
pub(super) fn load_sti(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let (x, i) = (&mut cpu.s.x87, op.src & STI);
    let done = !x.empty(i.into()) && x.empty(7);
    if done {
        x.push(x.st[usize::from(i)]);
    }
    finish(cpu, op, done)
}

/// FLDZ, FLD1 (`ONE`): the constants that no rounding mode changes.
pub(super) fn load_const<const ONE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let done = cpu.s.x87.empty(7);
    if done {
        cpu.s.x87.push(stack::from_int(ONE.into()));
    }
    finish(cpu, op, done)
}

/// FSTP m80.
pub(super) fn store80(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let la = cpu.ea(op, 10, true)?;
    if cpu.s.x87.empty(0) {
        return run_general(cpu, op, la, &mut Operand::default());
    }
    cpu.write_bytes(la, &cpu.s.x87.bytes(0), op.seg)?;
    cpu.s.x87.pop();
    cpu.s.x87.sw &= !C1;
    note_pointers(cpu, op, true);
    Ok(Flow::Next)
}

/// FST ST(i), FSTP ST(i) (`POP`).
pub(super) fn store_sti<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let (x, i) = (&mut cpu.s.x87, op.src & STI);
    let done = !x.empty(0);
    if done {
        x.st[usize::from(i)] = x.st[0];
        x.set_empty(i.into(), false);
        x.sw &= !C1;
        if POP {
            x.pop();
        }
    }
    finish(cpu, op, done)
}

/// FXCH.
pub(super) fn exchange(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let (x, i) = (&mut cpu.s.x87, op.src & STI);
    let done = !x.empty(0) && !x.empty(i.into());
    if done {
        x.st.swap(0, usize::from(i));
        x.sw &= !C1;
    }
    finish(cpu, op, done)
}

/// FCHS, FABS (`ABS`).
pub(super) fn sign<const ABS: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let x = &mut cpu.s.x87;
    let done = !x.empty(0);
    if done {
        let bit = 1 << 79;
        x.st[0] = if ABS { x.st[0] & !bit } else { x.st[0] ^ bit };
        x.sw &= !C1;
    }
    finish(cpu, op, done)
}

/// FFREE, FFREEP (`POP`).
pub(super) fn free<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let x = &mut cpu.s.x87;
    x.set_empty(u16::from(op.src & STI), true);
    if POP {
        x.pop();
    }
    finish(cpu, op, true)
}

/// FINCSTP, FDECSTP (`DOWN`): the tags stay.
pub(super) fn turn<const DOWN: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let x = &mut cpu.s.x87;
    x.set_top(if DOWN { x.top().wrapping_sub(1) } else { x.top() + 1 });
    x.sw &= !C1;
    finish(cpu, op, true)
}

/// FNOP.
pub(super) fn nop(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    finish(cpu, op, true)
}

/// FCMOVcc; `CC` as Jcc encodes it.
pub(super) fn cmov<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let holds = cpu.s.flags.condition::<CC>();
    let (x, i) = (&mut cpu.s.x87, op.src & STI);
    if x.empty(0) || x.empty(i.into()) {
        x.underflow_st0();
    } else if holds {
        x.st[0] = x.st[usize::from(i)];
    }
    finish(cpu, op, true)
}
