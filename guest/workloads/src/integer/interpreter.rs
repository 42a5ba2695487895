//! A bytecode interpreter with one `match`: an indirect jump per instruction.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::workload::{Failure, check};

/// Register machine: sixteen registers, three operands.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Op {
    /// `r[a] = (b << 8) | c`
    Set,
    /// `r[a] = r[b] + r[c]`
    Add,
    /// `r[a] = r[b] * r[c]`
    Mul,
    /// `r[a] = r[b] & r[c]`
    And,
    /// `r[a] = r[b] ^ r[c]`
    Xor,
    /// `r[a] = r[b] >> c`
    Shr,
    /// `r[a] = r[b]`
    Move,
    /// `r[a] = (r[b] < r[c])`
    Less,
    /// `r[a] = (r[b] == r[c])`
    Equal,
    /// to `(b << 8) | c` if `r[a] != 0`
    JumpIf,
    /// to `(b << 8) | c`
    Jump,
    /// the answer is `r[a]`
    Halt,
}

type Code = (Op, u8, u8, u8);

/// Sum over n = 1..1,000 of the steps n takes to 1, in `r5`.
const COLLATZ: &[Code] = &[
    (Op::Set, 0, 0, 1),     //  0: r0 = 1
    (Op::Set, 1, 3, 0xe8),  //  1: r1 = 1000
    (Op::Set, 2, 0, 3),     //  2: r2 = 3
    (Op::Set, 3, 0, 1),     //  3: r3 = n = 1
    (Op::Set, 5, 0, 0),     //  4: r5 = steps = 0
    (Op::Move, 4, 3, 0),    //  5: next n: r4 = n
    (Op::Equal, 6, 4, 0),   //  6: step: r6 = r4 == 1
    (Op::JumpIf, 6, 0, 16), //  7:
    (Op::Add, 5, 5, 0),     //  8: steps += 1
    (Op::And, 6, 4, 0),     //  9: odd?
    (Op::JumpIf, 6, 0, 13), // 10:
    (Op::Shr, 4, 4, 1),     // 11: r4 /= 2
    (Op::Jump, 0, 0, 6),    // 12:
    (Op::Mul, 4, 4, 2),     // 13: r4 = 3 r4 + 1
    (Op::Add, 4, 4, 0),     // 14:
    (Op::Jump, 0, 0, 6),    // 15:
    (Op::Add, 3, 3, 0),     // 16: n += 1
    (Op::Less, 6, 3, 1),    // 17: n < 1000?
    (Op::JumpIf, 6, 0, 5),  // 18:
    (Op::Xor, 6, 6, 6),     // 19:
    (Op::Add, 5, 5, 6),     // 20:
    (Op::Halt, 5, 0, 0),    // 21:
];

#[inline(never)]
fn interpret(code: &[Code]) -> u64 {
    let mut r = [0u64; 16];
    let mut pc = 0usize;
    loop {
        let (op, a, b, c) = code[pc];
        let (a, rb, rc) = (a as usize & 15, r[b as usize & 15], r[c as usize & 15]);
        let wide = usize::from(b) << 8 | usize::from(c);
        pc += 1;
        match op {
            Op::Set => r[a] = wide as u64,
            Op::Add => r[a] = rb.wrapping_add(rc),
            Op::Mul => r[a] = rb.wrapping_mul(rc),
            Op::And => r[a] = rb & rc,
            Op::Xor => r[a] = rb ^ rc,
            Op::Shr => r[a] = rb >> (c & 63),
            Op::Move => r[a] = rb,
            Op::Less => r[a] = u64::from(rb < rc),
            Op::Equal => r[a] = u64::from(rb == rc),
            Op::JumpIf => {
                if r[a] != 0 {
                    pc = wide;
                }
            }
            Op::Jump => pc = wide,
            Op::Halt => return r[a],
        }
    }
}

/// Runs the Collatz program once per iteration.
pub(super) fn run(iterations: u64) -> Result<Duration, Failure> {
    let start = Instant::now();
    for _ in 0..iterations {
        check(59_431, interpret(black_box(COLLATZ)))?;
    }
    Ok(start.elapsed())
}
