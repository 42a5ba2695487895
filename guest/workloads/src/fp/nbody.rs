//! The outer solar system in scalar doubles: multiply, add, divide and square
//! root, all of them exactly defined by IEEE 754, so the answer is one bit
//! pattern. Masses, positions and the published energies (-0.169075164 before,
//! -0.169087605 after 1,000 steps) are those of the n-body benchmark of the
//! Computer Language Benchmarks Game.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::workload::{Failure, check};

const PI: f64 = std::f64::consts::PI;
const SOLAR_MASS: f64 = 4.0 * PI * PI;
const YEAR: f64 = 365.24;

#[derive(Clone, Copy)]
struct Body {
    at: [f64; 3],
    v: [f64; 3],
    mass: f64,
}

const fn body(at: [f64; 3], v: [f64; 3], mass: f64) -> Body {
    Body { at, v: [v[0] * YEAR, v[1] * YEAR, v[2] * YEAR], mass: mass * SOLAR_MASS }
}

// The digits are kept as published; the excess ones round to the same doubles.
#[allow(clippy::excessive_precision)]
const BODIES: [Body; 5] = [
    body([0.0; 3], [0.0; 3], 1.0),
    body(
        [4.84143144246472090e+00, -1.16032004402742839e+00, -1.03622044471123109e-01],
        [1.66007664274403694e-03, 7.69901118419740425e-03, -6.90460016972063023e-05],
        9.54791938424326609e-04,
    ),
    body(
        [8.34336671824457987e+00, 4.12479856412430479e+00, -4.03523417114321381e-01],
        [-2.76742510726411899e-03, 4.99852801234917238e-03, 2.30417297573763929e-05],
        2.85885980666130812e-04,
    ),
    body(
        [1.28943695621391310e+01, -1.51111514016986312e+01, -2.23307578892655734e-01],
        [2.96460137564761618e-03, 2.37847173959480950e-03, -2.96589568540237556e-05],
        4.36624404335156298e-05,
    ),
    body(
        [1.53796971148509165e+01, -2.59193146099879641e+01, 1.79258772950371181e-01],
        [2.68067772490389322e-03, 1.62824170038242295e-03, -9.51592254519715870e-05],
        5.15138902046611451e-05,
    ),
];

/// Gives the sun the momentum that keeps the whole at rest.
fn system() -> [Body; 5] {
    let mut bodies = BODIES;
    for axis in 0..3 {
        let p: f64 = BODIES.iter().map(|b| b.v[axis] * b.mass).sum();
        bodies[0].v[axis] = -p / SOLAR_MASS;
    }
    bodies
}

// By index: each pair borrows two bodies and the same axis of three arrays.
#[allow(clippy::needless_range_loop)]
fn advance(bodies: &mut [Body; 5], dt: f64) {
    for i in 0..5 {
        for j in i + 1..5 {
            let (a, b) = (bodies[i], bodies[j]);
            let d = [a.at[0] - b.at[0], a.at[1] - b.at[1], a.at[2] - b.at[2]];
            let square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
            let pull = dt / (square * square.sqrt());
            for axis in 0..3 {
                bodies[i].v[axis] -= d[axis] * b.mass * pull;
                bodies[j].v[axis] += d[axis] * a.mass * pull;
            }
        }
    }
    for b in bodies {
        for axis in 0..3 {
            b.at[axis] += dt * b.v[axis];
        }
    }
}

fn energy(bodies: &[Body; 5]) -> f64 {
    let mut e = 0.0;
    for (i, a) in bodies.iter().enumerate() {
        e += 0.5 * a.mass * a.v.iter().map(|v| v * v).sum::<f64>();
        for b in &bodies[i + 1..] {
            let square: f64 = (0..3).map(|x| (a.at[x] - b.at[x]).powi(2)).sum();
            e -= a.mass * b.mass / square.sqrt();
        }
    }
    e
}

/// 1,000 steps from the same beginning in every iteration.
pub(super) fn run(iterations: u64) -> Result<Duration, Failure> {
    let begin = system();
    let start = Instant::now();
    for _ in 0..iterations {
        let mut bodies = black_box(begin);
        for _ in 0..1_000 {
            advance(&mut bodies, 0.01);
        }
        check(0xbfc5_a4a9_a352_2247, energy(&bodies).to_bits())?;
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_energies() {
        let mut bodies = system();
        assert_eq!(format!("{:.9}", energy(&bodies)), "-0.169075164");
        for _ in 0..1_000 {
            advance(&mut bodies, 0.01);
        }
        assert_eq!(format!("{:.9}", energy(&bodies)), "-0.169087605");
    }
}
