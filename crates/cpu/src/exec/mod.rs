//! The handlers, one file for each group of instructions. Each file ends in
//! its part of the instruction table.

mod arith;
mod bit;
mod control;
mod data;
mod decimal;
mod flagop;
mod io;
mod segment;
mod shift;
mod string;
pub(crate) mod system;
mod vector;
mod x87;
mod xstate;

use crate::ops::Row;
use segment::{pop_segment, push_segment};
use system::far::{call_far, jmp_far};
use system::mov_special;
use vector::{movsd as movsd_vector, thunk as cmpsd_vector};

/// The parts of the instruction table ([`crate::ops`]).
pub(crate) const TABLES: &[&[Row]] = &[
    arith::ROWS,
    bit::ROWS,
    control::ROWS,
    data::ROWS,
    decimal::ROWS,
    flagop::ROWS,
    io::ROWS,
    segment::ROWS,
    shift::ROWS,
    string::ROWS,
    system::control::ROWS,
    system::far::ROWS,
    system::flag::ROWS,
    system::interrupt::ROWS,
    system::misc::ROWS,
    system::msr::ROWS,
    system::sgx::ROWS,
    system::syscall::ROWS,
    system::table::ROWS,
    system::translation::ROWS,
    system::undefined::ROWS,
    x87::ROWS,
    xstate::ROWS,
    vector::MMX,
    vector::SSE,
    vector::AVX,
    vector::CRYPTO,
    vector::MOVES,
    vector::MASKED,
    vector::CONTROL,
];

/// The handler for operands of `$bytes` bytes: `$f::<…, u8>` to `$f::<…, u64>`.
macro_rules! by_width {
    ($bytes:expr, $f:ident $(, $p:ty)*) => {
        match $bytes {
            1 => Some($f::<$($p,)* u8> as $crate::op::Handler),
            2 => Some($f::<$($p,)* u16> as $crate::op::Handler),
            4 => Some($f::<$($p,)* u32> as $crate::op::Handler),
            8 => Some($f::<$($p,)* u64> as $crate::op::Handler),
            _ => None,
        }
    };
}
pub(crate) use by_width;

/// The same for operations without byte form.
macro_rules! by_wide_width {
    ($bytes:expr, $f:ident $(, $p:ty)*) => {
        match $bytes {
            2 => Some($f::<$($p,)* u16> as $crate::op::Handler),
            4 => Some($f::<$($p,)* u32> as $crate::op::Handler),
            8 => Some($f::<$($p,)* u64> as $crate::op::Handler),
            _ => None,
        }
    };
}
pub(crate) use by_wide_width;
