//! Debug enclaves as a debugger of the machine reaches them: by the rules of EDBGRD and
//! EDBGWR, which system software has for the same (*SDM vol. 3D, "Enclave Code Debug and
//! Profiling"*). What they refuse is as the bus has it: it reads ones, and writes to it are
//! dropped.

use sgx_abi::{PAGE_SIZE, PageType, Tcs, TcsFlags};

use crate::encls::{edbgrd, edbgwr};
use crate::epcm::EpcPage;
use crate::package::Package;
use crate::rule::Stop;

/// Bytes of a word of the two leaves in 64-bit mode.
const WORD: usize = 8;

/// The words that `len` bytes at `offset` of a page touch: offset of the word, the bytes in
/// it, and where they are of the `len`. Nothing lies beyond the page.
fn words(offset: usize, len: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>, usize)> {
    let end = offset.saturating_add(len).min(PAGE_SIZE);
    (offset / WORD * WORD..end).step_by(WORD).map(move |word| {
        let (from, to) = (offset.max(word), end.min(word + WORD));
        (word, from - word..to - word, from - offset)
    })
}

impl Package {
    /// Tells of a refusal; memory of the EPC that does not verify is lost, as it is for a leaf.
    fn looked<T>(&self, done: Result<T, Stop>) -> Option<T> {
        if matches!(done, Err(Stop::Lost)) {
            self.lose();
        }
        done.ok()
    }

    /// Reads at `offset` of an EPC page.
    pub fn debug_read(&self, page: EpcPage, offset: usize, to: &mut [u8]) {
        to.fill(0xff);
        for (at, bytes, place) in words(offset, to.len()) {
            if let Some(word) = self.looked(edbgrd::word(self, page, at as u64, WORD)) {
                to[place..place + bytes.len()].copy_from_slice(&word.to_le_bytes()[bytes]);
            }
        }
    }

    /// Writes at `offset` of an EPC page.
    pub fn debug_write(&self, page: EpcPage, offset: usize, from: &[u8]) {
        for (at, bytes, place) in words(offset, from.len()) {
            let la = at as u64;
            let Some(word) = self.looked(edbgrd::word(self, page, la, WORD)) else { continue };
            let mut word = word.to_le_bytes();
            let n = bytes.len();
            word[bytes].copy_from_slice(&from[place..place + n]);
            self.looked(edbgwr::write(self, page, la, &word));
        }
    }

    /// Opts the threads of an enclave in to debugging, as far as their TCSs are in the EPC:
    /// from their next entry on. How many those are; none of an enclave for production.
    pub fn debug_opt_in(&self, secs: EpcPage) -> usize {
        let threads: Vec<EpcPage> = self
            .epcm
            .valid()
            .filter(|(_, entry)| entry.page_type == PageType::Tcs && entry.secs == secs)
            .map(|(page, _)| page)
            .collect();
        let la = Tcs::FLAGS_OFFSET;
        let opts_in = |&page: &EpcPage| {
            let flags = self.looked(edbgrd::word(self, page, la, WORD))? | TcsFlags::DBGOPTIN.bits();
            self.looked(edbgwr::write(self, page, la, &flags.to_le_bytes()))
        };
        threads.iter().filter_map(opts_in).count()
    }
}
