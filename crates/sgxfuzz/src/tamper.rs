//! What the kernel does to memory: page tables, evicted pages; and what looks at
//! memory beside processors: the debugger, devices.

use vm_memory::{Bytes, GuestAddress};

use crate::fuzz::Fuzz;
use crate::kernel::meta;
use crate::layout::*;
use crate::machine::{PROCESSORS, get64, put64};
use crate::model::{Kind, window};

/// Bits of an ordinary entry of a page table.
pub(crate) const ENTRY: u64 = 7;
/// PS.
const LARGE: u64 = 0x80;
/// A and D.
const USED: u64 = 0x60;

impl Fuzz {
    fn tables_changed(&mut self) {
        self.dirty = [true; PROCESSORS];
    }

    /// Sets the entry of a page in the enclaves' range.
    pub(crate) fn map(&mut self, la: u64, entry: u64) {
        put64(&self.machine.ram, PT_ENCLAVES + (la - ENCLAVES) / PAGE * 8, entry);
        self.tables_changed();
    }

    /// Maps all pages of an enclave where they belong.
    pub(crate) fn map_all(&mut self, secs: usize) {
        let Some(id) = self.model.secs(secs) else { return };
        self.large(false);
        for number in 0..self.model.pages.len() {
            let page = &self.model.pages[number];
            if page.kind.is_child() && page.owner == Some(id) {
                // Accessed and dirty as it may be, so that nothing is made new in vain.
                let now = get64(&self.machine.ram, PT_ENCLAVES + (page.la - ENCLAVES) / PAGE * 8);
                let la = page.la;
                if now & !USED != window(number) | ENTRY {
                    self.map(la, window(number) | ENTRY | USED);
                }
            }
        }
    }

    /// One large page for the enclaves' range, or the page table again.
    pub(crate) fn large(&mut self, on: bool) {
        let entry = if on { EPC | ENTRY | LARGE } else { PT_ENCLAVES | ENTRY };
        if get64(&self.machine.ram, PD_ENCLAVES) & !USED == entry {
            return;
        }
        put64(&self.machine.ram, PD_ENCLAVES, entry);
        self.tables_changed();
    }

    /// A page of the EPC as a page table.
    pub(crate) fn table(&mut self, page: usize) {
        put64(&self.machine.ram, PD_ENCLAVES + 8, window(page) | ENTRY);
        self.tables_changed();
    }

    /// Flips a bit of an evicted page.
    pub(crate) fn tamper(&mut self, place: u64, at: u64, bit: u8) {
        let at = if at < PAGE { SWAP + place * PAGE + at } else { meta(place) + at - PAGE };
        let mut byte = [0];
        self.machine.ram.read(at, &mut byte);
        self.machine.ram.write(at, &[byte[0] ^ 1 << bit]);
    }

    /// Writes an earlier eviction to a place.
    pub(crate) fn replay(&mut self, place: u64, record: usize) {
        let Some(evicted) = self.model.evicted.get(record) else { return };
        self.machine.ram.write(SWAP + place * PAGE, &evicted.bytes);
        self.machine.ram.write(meta(place), &evicted.pcmd);
        put64(&self.machine.ram, meta(place) + 128, evicted.la);
    }

    /// What the debugger and a device see of the EPC: nothing.
    pub(crate) fn debugger(&self, lp: usize, la: u64) -> Result<(), String> {
        let Some(at) = self.machine.cpu(lp).debug_translate(la) else { return Ok(()) };
        self.device(at)
    }

    /// A device's write and read at a physical address of the EPC.
    pub(crate) fn device(&self, at: u64) -> Result<(), String> {
        if self.model.epc_page(at).is_none() {
            return Ok(());
        }
        let (bus, at) = (&self.machine.dma, GuestAddress(at & !7));
        let mut word = [0; 8];
        let done = bus.write_slice(&word, at).and_then(|()| bus.read_slice(&mut word, at));
        match done {
            Ok(()) if word == [0xff; 8] => Ok(()),
            _ => Err(format!("a device reads {word:x?} of the EPC at {:#x}: {done:?}", at.0)),
        }
    }

    /// Free pages.
    pub(crate) fn free_pages(&self) -> Vec<usize> {
        self.of_kind(Kind::Free)
    }
}
