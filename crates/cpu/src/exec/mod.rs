//! The handlers, one file for each group of instructions. Each file ends in
//! its part of the instruction table.

mod arith;
mod bit;
mod control;
mod data;
mod decimal;
mod flagop;
mod shift;
mod string;

use crate::ops::Row;

/// The parts of the instruction table ([`crate::ops`]).
pub(crate) const TABLES: &[&[Row]] = &[
    arith::ROWS,
    bit::ROWS,
    control::ROWS,
    data::ROWS,
    decimal::ROWS,
    flagop::ROWS,
    shift::ROWS,
    string::ROWS];

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

// Mnemonics that name instructions of two groups: the forms of the other group.
// (helper sys replaces these six by `use segment::…`/`use system::…`, helper vec the last two)
use crate::decode::Build;
use crate::op::Handler;
fn mov_special(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn push_segment(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn pop_segment(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn jmp_far(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn call_far(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn movsd_vector(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
fn cmpsd_vector(_b: &mut Build<'_>) -> Option<Handler> {
    None
}
