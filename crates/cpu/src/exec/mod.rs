//! The handlers, one file for each group of instructions. Each file ends in
//! its part of the instruction table.

mod arith;
mod bit;
mod control;
mod data;
mod decimal;
mod flagop;
pub(crate) mod fuse;
mod io;
mod segment;
mod shift;
mod string;
pub(crate) mod system;
pub(crate) mod vector;
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

/// The handler for operands of `$bytes` bytes, of `$f::<…, u8>` to `$f::<…, u64>`;
/// `$kind` is its maker in [`crate::chain`], [`crate::chain::any`] if not given.
macro_rules! by_width {
    ($kind:ident: $bytes:expr, $f:ident $(, $p:ty)*) => {
        match $bytes {
            1 => Some($crate::chain::$kind($f::<$($p,)* u8>)),
            bytes => $crate::exec::by_wide_width!($kind: bytes, $f $(, $p)*),
        }
    };
    ($bytes:expr, $f:ident $(, $p:ty)*) => {
        $crate::exec::by_width!(any: $bytes, $f $(, $p)*)
    };
}
pub(crate) use by_width;

/// The same for operations without byte form.
macro_rules! by_wide_width {
    ($kind:ident: $bytes:expr, $f:ident $(, $p:ty)*) => {
        match $bytes {
            2 => Some($crate::chain::$kind($f::<$($p,)* u16>)),
            4 => Some($crate::chain::$kind($f::<$($p,)* u32>)),
            8 => Some($crate::chain::$kind($f::<$($p,)* u64>)),
            _ => None,
        }
    };
    ($bytes:expr, $f:ident $(, $p:ty)*) => {
        $crate::exec::by_wide_width!(any: $bytes, $f $(, $p)*)
    };
}
pub(crate) use by_wide_width;

/// The handler for operands of `$bytes` bytes, of `$f::<R, …, u8>` to
/// `$f::<R, …, u64>` with the [`crate::mmu::reach::Reach`] of `$b`'s operand.
macro_rules! by_reach {
    (@one $b:ident $f:ident [$($p:ty),*] $w:ty) => {{
        use $crate::chain::{any, reaching};
        use $crate::decode::Way;
        use $crate::mmu::reach::{Fast, Full};
        Some(match $b.way() {
            Way::Simple => reaching($f::<Fast<false>, $($p,)* $w>, $f::<Full, $($p,)* $w>),
            Way::General => reaching($f::<Fast<true>, $($p,)* $w>, $f::<Full, $($p,)* $w>),
            Way::Any => any($f::<Full, $($p,)* $w>),
        })
    }};
    ($b:ident: $bytes:expr, $f:ident $(, $p:ty)*) => {
        match $bytes {
            1 => $crate::exec::by_reach!(@one $b $f [$($p),*] u8),
            2 => $crate::exec::by_reach!(@one $b $f [$($p),*] u16),
            4 => $crate::exec::by_reach!(@one $b $f [$($p),*] u32),
            8 => $crate::exec::by_reach!(@one $b $f [$($p),*] u64),
            _ => None,
        }
    };
}
pub(crate) use by_reach;
