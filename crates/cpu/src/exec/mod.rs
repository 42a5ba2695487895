//! The handlers, one file for each group of instructions. Each file ends in
//! its part of the instruction table.

mod arith;

use crate::ops::Row;

/// The parts of the instruction table ([`crate::ops`]).
pub(crate) const TABLES: &[&[Row]] = &[arith::ROWS];

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
