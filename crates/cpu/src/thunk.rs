//! Native thunks: one guest instruction, executed by the host.
//!
//! The vector and x87 instructions of an x86-64 guest are the host's own. Their
//! builders assemble a few host instructions — load the operands from the
//! state, the instruction itself, store the result — and keep them here;
//! equal code is kept once. This is the only place that makes host code, and
//! the only one that runs it: by a call, or as a link of the chain of handlers
//! ([`crate::chain`]), which goes on to the next op by itself.
//!
//! The memory is mapped twice, writable and executable, never both at one address.

use std::collections::HashMap;

use iced_x86::CpuidFeature;

use crate::chain::Chain;
use crate::op::Op;
use crate::{Cpu, Model};

/// Bytes of host code a processor may keep.
const SIZE: usize = 4 << 20;
/// Room that one block may need at most.
const RESERVE: usize = 64 << 10;

/// Room for a memory operand that no host pointer leads to: one that crosses
/// pages, lies on a device, or is to be looked at more than once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Scratch(pub [u8; 64]);

/// A thunk as a link of the chain of handlers.
pub type Link = unsafe extern "sysv64-unwind" fn(&mut Cpu, *const Op, *mut u8, *mut u8) -> Chain;

/// Host code for a processor's thunks.
pub struct Thunks {
    /// Where thunks find such operands.
    pub(crate) scratch: Box<Scratch>,
    writable: *mut u8,
    executable: *const u8,
    used: usize,
    known: HashMap<Box<[u8]>, u32>,
}

// SAFETY: both mappings belong to this value alone and stay until it is dropped.
unsafe impl Send for Thunks {}

impl Thunks {
    /// Maps the memory; `None` if the host refuses executable memory.
    pub fn new() -> Option<Self> {
        // SAFETY: plain system calls; the mappings are checked and owned by the
        // value made here.
        unsafe {
            let fd = libc::memfd_create(c"kluis-thunks".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return None;
            }
            let map = |prot| libc::mmap(std::ptr::null_mut(), SIZE, prot, libc::MAP_SHARED, fd, 0);
            let sized = libc::ftruncate(fd, SIZE as i64) == 0;
            let writable = if sized { map(libc::PROT_READ | libc::PROT_WRITE) } else { libc::MAP_FAILED };
            let executable = if sized { map(libc::PROT_READ | libc::PROT_EXEC) } else { libc::MAP_FAILED };
            libc::close(fd);
            for mapping in [writable, executable] {
                if mapping == libc::MAP_FAILED {
                    for made in [writable, executable] {
                        if made != libc::MAP_FAILED {
                            libc::munmap(made, SIZE);
                        }
                    }
                    return None;
                }
            }
            Some(Thunks {
                scratch: Box::new(Scratch([0; 64])),
                writable: writable.cast(),
                executable: executable.cast(),
                used: 0,
                known: HashMap::new(),
            })
        }
    }

    /// Keeps host code and returns its number for [`Thunks::call`] and
    /// [`Thunks::link`]. The code follows the System V calling convention: it finds
    /// its arguments in RDI, RSI, RDX and RCX, may change RAX, RCX, RDX, RSI, RDI,
    /// R8–R11 and all vector registers, leaves the x87 stack empty with its control
    /// word and MXCSR as found but for flags, DF clear, and ends in RET, with a result in
    /// RAX, or in a jump to what follows the same convention.
    pub fn add(&mut self, code: &[u8]) -> Option<u32> {
        if let Some(&known) = self.known.get(code) {
            return Some(known);
        }
        let at = self.used;
        if code.len() > SIZE - at {
            return None;
        }
        // SAFETY: the range lies inside the writable mapping.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.writable.add(at), code.len()) };
        self.used = (at + code.len()).next_multiple_of(16).min(SIZE);
        self.known.insert(code.into(), at as u32);
        Some(at as u32)
    }

    /// True if the next block may not fit: forget all decoded code, then [`Thunks::clear`].
    pub fn is_full(&self) -> bool {
        self.used > SIZE - RESERVE
    }

    /// Forgets all thunks; no op may hold a number any more.
    pub fn clear(&mut self) {
        self.used = 0;
        self.known.clear();
    }

    /// Calls a thunk.
    ///
    /// # Safety
    /// `number` is from [`Thunks::add`] since the last [`Thunks::clear`], of
    /// code that keeps the promise made there, and uses its arguments
    /// only as far as they are valid.
    #[inline(always)]
    pub unsafe fn call(&self, number: u32, arguments: [*mut u8; 4]) -> u64 {
        type Code = unsafe extern "sysv64" fn(*mut u8, *mut u8, *mut u8, *mut u8) -> u64;
        let [rdi, rsi, rdx, rcx] = arguments;
        // SAFETY: the caller vouches for the number and so for the code there.
        unsafe {
            let code: Code = std::mem::transmute(self.code(number));
            code(rdi, rsi, rdx, rcx)
        }
    }

    /// A thunk that executes an op as [`crate::chain::Handler`] does, on a memory
    /// operand, and goes on to the next one if its last argument is null.
    ///
    /// # Safety
    /// As for [`Thunks::call`]; the code is such a thunk.
    #[inline(always)]
    pub unsafe fn link(&self, number: u32) -> Link {
        // SAFETY: the caller vouches for the code there.
        unsafe { std::mem::transmute(self.code(number)) }
    }

    #[inline(always)]
    fn code(&self, number: u32) -> *const u8 {
        debug_assert!((number as usize) < self.used);
        // Inside the mapping, as the number is.
        self.executable.wrapping_add(number as usize)
    }
}

impl Drop for Thunks {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this size, not used after this.
        unsafe {
            libc::munmap(self.writable.cast(), SIZE);
            libc::munmap(self.executable.cast_mut().cast(), SIZE);
        }
    }
}

/// Extensions whose instructions the host carries out: whether it has them, and
/// their names as `/proc/cpuinfo` has them.
fn host() -> impl Iterator<Item = (CpuidFeature, bool, &'static str)> {
    macro_rules! host {
        ($($feature:ident $host:tt $name:literal),* $(,)?) => {
            [$((CpuidFeature::$feature, std::arch::is_x86_feature_detected!($host), $name)),*]
        };
    }
    let all = host![
        SSE3 "sse3" "pni", SSSE3 "ssse3" "ssse3", SSE4_1 "sse4.1" "sse4_1", SSE4_2 "sse4.2" "sse4_2",
        AES "aes" "aes", PCLMULQDQ "pclmulqdq" "pclmulqdq", SHA "sha" "sha_ni",
        VAES "vaes" "vaes", VPCLMULQDQ "vpclmulqdq" "vpclmulqdq", GFNI "gfni" "gfni",
        AVX "avx" "avx", AVX2 "avx2" "avx2", FMA "fma" "fma", F16C "f16c" "f16c",
    ];
    all.into_iter()
}

/// True if the host has an extension whose instructions it carries out.
pub fn host_has(feature: CpuidFeature) -> bool {
    host().any(|(known, there, _)| known == feature && there)
}

/// The extensions that a model promises, whose instructions are carried out by
/// the host, and that this host lacks. A model for which this is not empty
/// cannot run here.
pub fn host_missing(model: &Model) -> Vec<&'static str> {
    host().filter(|&(feature, there, _)| !there && model.has(feature)).map(|(.., name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_once_and_runs() {
        let mut thunks = Thunks::new().expect("executable memory");
        // lea rax, [rdx + rcx]; ret
        let number = thunks.add(&[0x48, 0x8d, 0x04, 0x0a, 0xc3]).unwrap();
        assert_eq!(thunks.add(&[0x48, 0x8d, 0x04, 0x0a, 0xc3]), Some(number));
        let none = std::ptr::null_mut();
        // SAFETY: the code above touches nothing but RAX.
        let sum = unsafe { thunks.call(number, [none, none, 40 as *mut u8, 2 as *mut u8]) };
        assert_eq!(sum, 42);
    }
}
