//! Integer workloads: arithmetic chains, memory latency, calls, branches.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::workload::{Body, Class, Failure, SEED, Workload, check, xorshift};

mod interpreter;
mod sha256;

const fn integer(
    name: &'static str,
    iterations: u64,
    about: &'static str,
    run: fn(u64) -> Result<Duration, Failure>,
) -> Workload {
    Workload { name, class: Class::Integer, about, iterations, body: Body::Native(run) }
}

/// The nine integer workloads.
pub const WORKLOADS: [Workload; 9] = [
    integer("xorshift", 100, "100,000 dependent xorshift steps", xorshift_chain),
    integer("pointer-chase", 80, "2,000 dependent loads in 64 MiB", pointer_chase),
    integer("indirect-calls", 100, "20,000 calls through an unpredictable pointer", indirect_calls),
    integer("sieve", 8, "primes below 1,000,000 in a byte array", sieve),
    integer("hash-table", 20, "32,768 inserts, 65,536 look-ups, open addressing", hash_table),
    integer("qsort", 24, "10,000 64-bit keys through the C library's qsort", qsort),
    integer("sha256", 80, "64 KiB, scalar code", sha256::run),
    integer("fib", 60, "recursive fib(25)", fib),
    integer("switch-interpreter", 20, "a bytecode loop: Collatz lengths below 1,000", interpreter::run),
];

fn xorshift_chain(iterations: u64) -> Result<Duration, Failure> {
    let start = Instant::now();
    for _ in 0..iterations {
        let mut x = black_box(SEED);
        for _ in 0..100_000 {
            x = xorshift(x);
        }
        check(0xdeaf_6465_dc02_951c, x)?;
    }
    Ok(start.elapsed())
}

/// A node fills a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Node {
    next: u32,
}

fn pointer_chase(iterations: u64) -> Result<Duration, Failure> {
    const NODES: usize = 1 << 20;
    const STEPS: u64 = 2_000;
    // A random order of all nodes, each pointing to the one after it: one
    // cycle, and the node after n steps is known.
    let mut order: Vec<u32> = (0..NODES as u32).collect();
    let mut x = SEED;
    for i in (1..NODES).rev() {
        x = xorshift(x);
        order.swap(i, (x % (i as u64 + 1)) as usize);
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(NODES);
    // Host and guest may differ in their use of huge pages, and the time of a
    // load depends on it.
    const PAGE: usize = 4096;
    let first = (nodes.as_ptr() as usize).next_multiple_of(PAGE);
    let length = (NODES * size_of::<Node>() - PAGE) / PAGE * PAGE;
    // SAFETY: whole pages inside the vector's own memory; the advice does not
    // change what they hold.
    unsafe { libc::madvise(first as *mut libc::c_void, length, libc::MADV_NOHUGEPAGE) };
    nodes.resize(NODES, Node { next: 0 });
    for i in 0..NODES {
        nodes[order[i] as usize].next = order[(i + 1) % NODES];
    }
    let nodes = black_box(nodes);

    let start = Instant::now();
    let mut at = order[0];
    for _ in 0..iterations * STEPS {
        at = nodes[at as usize & (NODES - 1)].next;
    }
    let time = start.elapsed();
    check(order[(iterations * STEPS) as usize % NODES], at)?;
    Ok(time)
}

macro_rules! mixers {
    ($($name:ident: |$x:ident| $body:expr;)*) => {
        $(#[inline(never)] fn $name($x: u64) -> u64 { $body })*
        const MIXERS: &[fn(u64) -> u64; 8] = &[$($name),*];
    };
}

mixers! {
    mix0: |x| x.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    mix1: |x| (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mix2: |x| (x ^ 0x5555).wrapping_add(x << 21).rotate_left(7);
    mix3: |x| (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mix4: |x| x.wrapping_sub(0x1234_5678).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(11);
    mix5: |x| (x ^ x.rotate_left(25)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mix6: |x| (!x).wrapping_mul(0xc4ce_b9fe_1a85_ec53) ^ (x >> 17);
    mix7: |x| x.swap_bytes().wrapping_mul(0xa076_1d64_78bd_642f);
}

fn indirect_calls(iterations: u64) -> Result<Duration, Failure> {
    let table = black_box(MIXERS);
    let start = Instant::now();
    for _ in 0..iterations {
        let mut x = black_box(SEED);
        for i in 0..20_000u64 {
            x = table[(x >> 61) as usize](x) ^ i;
        }
        check(0xfce7_908f_44d5_69fe, x)?;
    }
    Ok(start.elapsed())
}

fn sieve(iterations: u64) -> Result<Duration, Failure> {
    const LIMIT: usize = 1_000_000;
    let mut composite = vec![1u8; LIMIT];
    let start = Instant::now();
    for _ in 0..iterations {
        composite.fill(0);
        let mut count = 0u32;
        let mut last = 0;
        for n in 2..LIMIT {
            if composite[n] == 0 {
                count += 1;
                last = n;
                for multiple in (n * n..LIMIT).step_by(n) {
                    composite[multiple] = 1;
                }
            }
        }
        check((78_498, 999_983), (count, last))?;
        black_box(&mut composite);
    }
    Ok(start.elapsed())
}

fn hash_table(iterations: u64) -> Result<Duration, Failure> {
    const SLOTS: usize = 1 << 16;
    const MASK: usize = SLOTS - 1;
    const KEYS: u64 = 1 << 15;
    let slot = |key: u64| (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize;
    let mut table = vec![(1u64, 1u64); SLOTS];
    let start = Instant::now();
    for _ in 0..iterations {
        table.fill((0, 0));
        let mut key = black_box(SEED);
        for i in 0..KEYS {
            key = xorshift(key);
            let mut at = slot(key);
            while table[at].0 != 0 && table[at].0 != key {
                at = (at + 1) & MASK;
            }
            table[at] = (key, i);
        }
        // The second half of these keys is not in the table.
        let mut key = black_box(SEED);
        let (mut found, mut sum) = (0u64, 0u64);
        for _ in 0..2 * KEYS {
            key = xorshift(key);
            let mut at = slot(key);
            while table[at].0 != 0 {
                if table[at].0 == key {
                    found += 1;
                    sum += table[at].1;
                    break;
                }
                at = (at + 1) & MASK;
            }
        }
        check((KEYS, KEYS * (KEYS - 1) / 2), (found, sum))?;
    }
    Ok(start.elapsed())
}

extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
    // SAFETY: qsort passes pointers to elements of the array of u64 given it.
    let (a, b) = unsafe { (*a.cast::<u64>(), *b.cast::<u64>()) };
    a.cmp(&b) as libc::c_int
}

fn qsort(iterations: u64) -> Result<Duration, Failure> {
    const KEYS: usize = 10_000;
    let mut x = SEED;
    let keys: Vec<u64> = (0..KEYS)
        .map(|_| {
            x = xorshift(x);
            x
        })
        .collect();
    let mut work = keys.clone();
    let start = Instant::now();
    for _ in 0..iterations {
        work.copy_from_slice(&keys);
        // SAFETY: base, count and size describe exactly the vector `work`; the
        // comparison reads whole elements and does not unwind.
        unsafe { libc::qsort(work.as_mut_ptr().cast(), KEYS, size_of::<u64>(), Some(compare)) };
        let sum = work.iter().fold(0u64, |h, k| h.wrapping_mul(31).wrapping_add(*k));
        check(0x26f9_5233_7d0c_8ceb, sum)?;
    }
    Ok(start.elapsed())
}

/// An identity the compiler cannot see through, without touching memory.
fn opaque(mut x: u64) -> u64 {
    // SAFETY: the template is a comment; no register, flag or memory changes.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

// Through `opaque` both calls stay calls: the compiler would make the second a loop.
#[inline(never)]
fn fib_of(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    opaque(fib_of(n - 1)) + opaque(fib_of(n - 2))
}

fn fib(iterations: u64) -> Result<Duration, Failure> {
    let start = Instant::now();
    for _ in 0..iterations {
        check(75_025, fib_of(black_box(25)))?;
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_workload_gives_its_answer() {
        for w in WORKLOADS {
            w.run(1, None).unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        assert!(matches!(check(1, 2), Err(Failure::Wrong { .. })));
    }
}
