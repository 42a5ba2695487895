//! Floating-point, vector and C-library string workloads.

use std::arch::x86_64::*;
use std::ffi::{c_char, c_int, c_void};
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::workload::{Body, Class, Failure, SEED, Workload, check, xorshift};

mod nbody;

const fn fp(
    name: &'static str,
    iterations: u64,
    about: &'static str,
    run: fn(u64) -> Result<Duration, Failure>,
) -> Workload {
    Workload { name, class: Class::Fp, about, iterations, body: Body::Native(run) }
}

/// The four workloads of this class.
pub const WORKLOADS: [Workload; 4] = [
    fp("matmul-f64", 1_000, "64x64 packed doubles, AVX2 if there is, else SSE2", matmul),
    fp("scalar-f64", 500, "1,000 steps of five bodies", nbody::run),
    fp("memcpy", 80, "4 MiB, then 4,096 of 32 bytes to 4 KiB", memcpy),
    fp("strlen-strchr", 4_000, "both over 256 strings up to 2 KiB", strlen_strchr),
];

const N: usize = 64;
type Matrix = [f64; N * N];

/// `c = a · b` for one row of `a` and sixteen columns at a time.
#[target_feature(enable = "avx2")]
fn multiply_avx2(a: &Matrix, b: &Matrix, c: &mut Matrix) {
    for i in 0..N {
        for j in (0..N).step_by(16) {
            let mut sum = [_mm256_setzero_pd(); 4];
            for k in 0..N {
                let x = _mm256_set1_pd(a[i * N + k]);
                let row = &b[k * N + j..k * N + j + 16];
                for (lane, sum) in sum.iter_mut().enumerate() {
                    // SAFETY: four doubles at 4·lane, lane < 4, lie in the slice of 16.
                    let y = unsafe { _mm256_loadu_pd(row.as_ptr().add(4 * lane)) };
                    *sum = _mm256_add_pd(*sum, _mm256_mul_pd(x, y));
                }
            }
            let out = &mut c[i * N + j..i * N + j + 16];
            for (lane, sum) in sum.into_iter().enumerate() {
                // SAFETY: four doubles at 4·lane, lane < 4, lie in the slice of 16.
                unsafe { _mm256_storeu_pd(out.as_mut_ptr().add(4 * lane), sum) };
            }
        }
    }
}

/// The same with two doubles a vector, for processors without AVX2.
fn multiply_sse2(a: &Matrix, b: &Matrix, c: &mut Matrix) {
    for i in 0..N {
        for j in (0..N).step_by(8) {
            // SAFETY: SSE2 is part of x86-64; pairs at 2·lane, lane < 4, lie in
            // slices of 8.
            unsafe {
                let mut sum = [_mm_setzero_pd(); 4];
                for k in 0..N {
                    let x = _mm_set1_pd(a[i * N + k]);
                    let row = &b[k * N + j..k * N + j + 8];
                    for (lane, sum) in sum.iter_mut().enumerate() {
                        let y = _mm_loadu_pd(row.as_ptr().add(2 * lane));
                        *sum = _mm_add_pd(*sum, _mm_mul_pd(x, y));
                    }
                }
                let out = &mut c[i * N + j..i * N + j + 8];
                for (lane, sum) in sum.into_iter().enumerate() {
                    _mm_storeu_pd(out.as_mut_ptr().add(2 * lane), sum);
                }
            }
        }
    }
}

/// Small whole numbers: every product and sum is exact, in any order.
fn inputs() -> (Matrix, Matrix) {
    let mut a = [0.0; N * N];
    let mut b = [0.0; N * N];
    for (i, (a, b)) in a.iter_mut().zip(&mut b).enumerate() {
        *a = ((i * 7 + i / N) % 19) as f64 - 9.0;
        *b = ((i * 5 + i / N * 3) % 23) as f64 - 11.0;
    }
    (a, b)
}

/// A weighted sum in which no two elements can change places.
fn weigh(c: &Matrix) -> i64 {
    c.iter().zip(1..).map(|(c, weight)| *c as i64 * weight).sum()
}

const MATMUL_ANSWER: i64 = 548_580;

fn matmul(iterations: u64) -> Result<Duration, Failure> {
    let (a, b) = inputs();
    let mut c = [0.0; N * N];
    let avx2 = is_x86_feature_detected!("avx2");
    let start = Instant::now();
    for _ in 0..iterations {
        let (a, b) = (black_box(&a), black_box(&b));
        if avx2 {
            // SAFETY: CPUID and XCR0 were asked.
            unsafe { multiply_avx2(a, b, &mut c) };
        } else {
            multiply_sse2(a, b, &mut c);
        }
        check(MATMUL_ANSWER, weigh(black_box(&c)))?;
    }
    Ok(start.elapsed())
}

fn memcpy(iterations: u64) -> Result<Duration, Failure> {
    const LARGE: usize = 4 << 20;
    const COUNT: usize = 4096;
    let mut x = SEED;
    let source: Vec<u8> = (0..LARGE)
        .map(|_| {
            x = xorshift(x);
            x as u8
        })
        .collect();
    // (from, to, length): lengths 32–4,095, all alignments, ends inside both.
    let pieces: Vec<(usize, usize, usize)> = (0..COUNT)
        .map(|_| {
            x = xorshift(x);
            let (from, to) = (x as usize % 0x1_0000, (x >> 16) as usize % 0x1_0000);
            (from, to, 32 + (x >> 40) as usize % 4064)
        })
        .collect();
    let mut large = vec![1u8; LARGE];
    let mut small = vec![1u8; 0x1_0000 + 4096];
    let start = Instant::now();
    for _ in 0..iterations {
        // SAFETY: both vectors are LARGE bytes and distinct.
        unsafe {
            libc::memcpy(black_box(large.as_mut_ptr()).cast(), black_box(source.as_ptr()).cast(), LARGE);
        }
        for &(from, to, length) in &pieces {
            // SAFETY: from and to are below 64 KiB and length below 4,096: the
            // piece lies in `source` (4 MiB) and in `small` (64 KiB + 4,096).
            unsafe {
                libc::memcpy(
                    black_box(small.as_mut_ptr().add(to)).cast::<c_void>(),
                    black_box(source.as_ptr().add(from)).cast(),
                    length,
                );
            }
        }
    }
    let time = start.elapsed();
    check(true, large == source)?;
    // The same moves, byte by byte.
    let mut model = vec![1u8; small.len()];
    for (from, to, length) in pieces {
        for i in 0..length {
            model[to + i] = black_box(source[from + i]);
        }
    }
    check(true, small == model)?;
    Ok(time)
}

fn strlen_strchr(iterations: u64) -> Result<Duration, Failure> {
    const STRINGS: usize = 256;
    let mut x = SEED;
    let mut text = Vec::new();
    let mut starts = Vec::new();
    let (mut lengths, mut places) = (0usize, 0usize);
    for _ in 0..STRINGS {
        x = xorshift(x);
        let length = 1 + (x >> 20) as usize % 2047;
        let place = (x >> 40) as usize % length;
        starts.push(text.len());
        text.extend((0..length).map(|i| if i == place { b'#' } else { b'a' + (i % 26) as u8 }));
        text.push(0);
        lengths += length;
        places += place;
    }
    // Through pointers, as the compiler knows what these functions compute.
    let strlen: unsafe extern "C" fn(*const c_char) -> usize = black_box(libc::strlen);
    let strchr: unsafe extern "C" fn(*const c_char, c_int) -> *mut c_char = black_box(libc::strchr);
    let text = black_box(text);
    let start = Instant::now();
    for _ in 0..iterations {
        let (mut l, mut p) = (0usize, 0usize);
        for &s in &starts {
            let s = text[s..].as_ptr().cast::<c_char>();
            // SAFETY: a zero byte ends every string inside `text`.
            unsafe {
                l += strlen(s);
                p += (strchr(s, c_int::from(b'#')) as usize).wrapping_sub(s as usize);
            }
        }
        check((lengths, places), (l, p))?;
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_gives_its_answer() {
        for w in WORKLOADS {
            w.run(1, None).unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
    }

    #[test]
    fn without_avx2_the_answer_is_the_same() {
        let (a, b) = inputs();
        let mut c = [0.0; N * N];
        multiply_sse2(&a, &b, &mut c);
        assert_eq!(weigh(&c), MATMUL_ANSWER);
    }
}
