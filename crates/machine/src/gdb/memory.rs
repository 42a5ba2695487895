//! Memory as a debugger sees it: linear addresses by a processor's page tables,
//! and behind them what a bus master sees. The EPC is none of that: there EDBGRD and EDBGWR
//! have the word, as for a debugger in the guest. Of debug enclaves they give the content;
//! all else reads ones, and what is written there is dropped.

use cpu::Cpu;
use mem::DmaBus;
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 0x1000;

/// The pieces of `len` bytes at `la` that lie in one page each: physical address
/// and offset, up to the first that is not mapped.
fn pieces(cpu: &Cpu, la: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let here = la.checked_add(at as u64).filter(|_| at < len)?;
        let canonical = !cpu.s.long64() || arch::paging::is_canonical(here);
        let gpa = canonical.then(|| cpu.debug_translate(here)).flatten()?;
        let n = (len - at).min((PAGE - (here & (PAGE - 1))) as usize);
        let piece = at..at + n;
        at += n;
        Some((gpa, piece))
    })
}

/// Reads; how many bytes are mapped.
pub(super) fn read(cpu: &Cpu, bus: &DmaBus, la: u64, bytes: &mut [u8]) -> usize {
    let mut done = 0;
    for (gpa, piece) in pieces(cpu, la, bytes.len()) {
        done = piece.end;
        if !cpu.debug_read_epc(gpa, &mut bytes[piece.clone()]) {
            bus.read_or_ones(gpa, &mut bytes[piece]);
        }
    }
    done
}

/// Writes; false if part of it is not mapped, or has no memory behind it.
pub(super) fn write(cpu: &mut Cpu, bus: &DmaBus, la: u64, bytes: &[u8]) -> bool {
    let mut done = 0;
    let pieces: Vec<_> = pieces(cpu, la, bytes.len()).collect();
    for (gpa, piece) in pieces {
        let epc = cpu.debug_write_epc(gpa, &bytes[piece.clone()]);
        if !epc && bus.write_slice(&bytes[piece.clone()], GuestAddress(gpa)).is_err() {
            return false;
        }
        done = piece.end;
    }
    done == bytes.len()
}
