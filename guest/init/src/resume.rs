//! After a start from a snapshot: what every machine that starts from it would
//! otherwise have alike (its random numbers), and what has moved on (true time).

use agent_proto::SEED_LEN;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Setter, ioctl};
use rustix::time::{ClockId, Timespec, clock_settime};

/// `struct rand_pool_info` of linux/random.h with room for a seed.
#[repr(C)]
struct PoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; SEED_LEN],
}

/// RNDADDENTROPY: `_IOW('R', 0x03, int [2])`.
const ADD_ENTROPY: u32 = 0x4008_5203;
/// RNDRESEEDCRNG: `_IO('R', 0x07)`.
const RESEED: u32 = 0x5207;

/// Gives the kernel's generator `seed` and has it start anew, and sets the clock.
///
/// # Errors
/// What the kernel refused, in words.
pub fn resume(wall_ns: u64, seed: &[u8; SEED_LEN]) -> Result<(), String> {
    reseed(seed).map_err(|e| format!("the random number generator takes no seed: {e}"))?;
    let time = Timespec {
        tv_sec: i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (wall_ns % 1_000_000_000) as _,
    };
    clock_settime(ClockId::Realtime, time).map_err(|e| format!("the clock cannot be set: {e}"))
}

fn reseed(seed: &[u8; SEED_LEN]) -> Result<(), Errno> {
    let random = open("/dev/urandom", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let info = PoolInfo { entropy_count: 8 * SEED_LEN as i32, buf_size: SEED_LEN as i32, buf: *seed };
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info` and the `buf_size` bytes that
    // follow it, which `PoolInfo` has.
    unsafe { ioctl(&random, Setter::<ADD_ENTROPY, PoolInfo>::new(info)) }?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { ioctl(&random, NoArg::<RESEED>::new()) }
}
