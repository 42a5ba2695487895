//! Loads, stores and atomic updates at linear addresses.
//!
//! The fast path is one comparison and one host access. Everything else —
//! misses, page crossings, devices, pages with code or watchpoints, alignment
//! checks — is out of line.

use arch::Exception;
use arch::paging::{PAGE_MASK, is_canonical};
use mem::raw::{self, Width};

use super::fill::Place;
use super::walk::{Access, Rights};
use crate::Cpu;

impl Cpu {
    /// Loads from linear address `la`; `seg` decides between `#SS` and `#GP`.
    #[inline(always)]
    pub(crate) fn load<W: Width>(&mut self, la: u64, seg: u8) -> Result<W, Exception> {
        let entry = self.tlb.entry(la);
        if entry.read == self.tlb.tag(la.wrapping_add(W::BYTES - 1)) {
            // SAFETY: the tag says that RAM is mapped at this page, and the
            // access does not leave it; the mapping lives as long as `self.ram`.
            return Ok(unsafe { W::load(entry.addend.wrapping_add(la) as *const u8) });
        }
        self.load_slow(la, W::BYTES, seg).map(W::truncate)
    }

    /// Stores at linear address `la`.
    #[inline(always)]
    pub(crate) fn store<W: Width>(&mut self, la: u64, value: W, seg: u8) -> Result<(), Exception> {
        let entry = self.tlb.entry(la);
        if entry.write == self.tlb.tag(la.wrapping_add(W::BYTES - 1)) {
            // SAFETY: as in `load`, and the write tag says no one has to be told.
            unsafe { W::store(entry.addend.wrapping_add(la) as *mut u8, value) };
            return Ok(());
        }
        self.store_slow(la, value.zext(), W::BYTES, seg)
    }

    /// Reads, changes and writes without a lock; returns the old value.
    #[inline(always)]
    pub(crate) fn update<W: Width>(
        &mut self,
        la: u64,
        seg: u8,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Exception> {
        let entry = self.tlb.entry(la);
        if entry.write == self.tlb.tag(la.wrapping_add(W::BYTES - 1)) {
            let ptr = entry.addend.wrapping_add(la) as *mut u8;
            // SAFETY: as in `store`.
            unsafe {
                let old = W::load(ptr).zext();
                W::store(ptr, W::truncate(change(old)));
                return Ok(old);
            }
        }
        self.check(la, W::BYTES, seg)?;
        self.probe_write(la, W::BYTES, seg)?;
        let old = self.load_slow(la, W::BYTES, seg)?;
        self.store_slow(la, W::truncate(change(old)).zext(), W::BYTES, seg)?;
        Ok(old)
    }

    /// Reads, changes and writes as one locked operation; returns the old
    /// value. `change` may be called more than once.
    pub(crate) fn update_locked<W: Width>(
        &mut self,
        la: u64,
        seg: u8,
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, Exception> {
        let entry = self.tlb.entry(la);
        let fast = entry.write == self.tlb.tag(la.wrapping_add(W::BYTES - 1));
        let (ptr, gpa) = if fast {
            (entry.addend.wrapping_add(la) as *mut u8, None)
        } else {
            self.check(la, W::BYTES, seg)?;
            if self.crosses(la, W::BYTES) {
                // A bus lock: nobody else may see, or be, between the halves.
                let shared = self.shared.clone();
                let _bus = shared.lock_bus();
                return self.update::<W>(la, seg, change);
            }
            let place = self.translate(la, Access::Write, self.rights())?;
            self.watch_data(la, W::BYTES, true);
            match place.host {
                Some(ptr) => (ptr, Some(place.gpa)),
                None => return self.update::<W>(la, seg, change),
            }
        };
        // SAFETY: `ptr` leads to RAM, and the access does not leave its page.
        let old = unsafe {
            let mut old = W::load(ptr);
            loop {
                let found = W::compare_exchange(ptr, old, W::truncate(change(old.zext())));
                if found == old {
                    break old;
                }
                old = found;
            }
        };
        if let Some(gpa) = gpa {
            self.written(gpa, W::BYTES);
        }
        Ok(old.zext())
    }

    /// CMPXCHG16B on 16-byte aligned memory: compares, stores if equal, and
    /// returns what was there.
    pub(crate) fn compare_exchange_16(
        &mut self,
        la: u64,
        seg: u8,
        old: u128,
        new: u128,
    ) -> Result<u128, Exception> {
        self.check(la, 16, seg)?;
        let place = self.translate(la, Access::Write, self.rights())?;
        self.watch_data(la, 16, true);
        let Some(ptr) = place.host else {
            let mut bytes = [0; 16];
            self.read_bytes(la, &mut bytes, seg)?;
            let found = u128::from_le_bytes(bytes);
            let value = if found == old { new } else { found };
            self.write_bytes(la, &value.to_le_bytes(), seg)?;
            return Ok(found);
        };
        // SAFETY: RAM, 16-byte aligned as the caller has checked.
        let found = unsafe { raw::compare_exchange_16(ptr, old, new) };
        self.written(place.gpa, 16);
        Ok(found)
    }

    /// Host address of `n` bytes of RAM at `la` that may be read without any
    /// further look (`n` from 1 to a page), or `None`: then [`Cpu::read_bytes`]
    /// knows what to do. Valid until the next change of translations.
    #[inline(always)]
    pub(crate) fn ram_read(&self, la: u64, n: u64) -> Option<*const u8> {
        let entry = self.tlb.entry(la);
        (entry.read == self.tlb.tag(la.wrapping_add(n - 1)))
            .then(|| entry.addend.wrapping_add(la) as *const u8)
    }

    /// The same for writes; `None` also where a write must be noticed.
    #[inline(always)]
    pub(crate) fn ram_write(&self, la: u64, n: u64) -> Option<*mut u8> {
        let entry = self.tlb.entry(la);
        (entry.write == self.tlb.tag(la.wrapping_add(n - 1)))
            .then(|| entry.addend.wrapping_add(la) as *mut u8)
    }

    /// Reads `buf.len()` bytes (at most a page) at `la`; all or nothing.
    #[inline]
    pub(crate) fn read_bytes(&mut self, la: u64, buf: &mut [u8], seg: u8) -> Result<(), Exception> {
        let n = buf.len() as u64;
        let entry = self.tlb.entry(la);
        if n != 0 && entry.read == self.tlb.tag(la.wrapping_add(n - 1)) {
            let ptr = entry.addend.wrapping_add(la) as *const u8;
            // SAFETY: inside one page of RAM.
            unsafe { raw::copy(ptr, buf.as_mut_ptr(), buf.len()) };
            return Ok(());
        }
        self.check(la, n, seg)?;
        self.read_with(la, buf, self.rights())
    }

    /// Writes `buf.len()` bytes (at most a page) at `la`; all or nothing.
    #[inline]
    pub(crate) fn write_bytes(&mut self, la: u64, buf: &[u8], seg: u8) -> Result<(), Exception> {
        let n = buf.len() as u64;
        let entry = self.tlb.entry(la);
        if n != 0 && entry.write == self.tlb.tag(la.wrapping_add(n - 1)) {
            let ptr = entry.addend.wrapping_add(la) as *mut u8;
            // SAFETY: inside one page of RAM.
            unsafe { raw::copy(buf.as_ptr(), ptr, buf.len()) };
            return Ok(());
        }
        self.check(la, n, seg)?;
        self.write_with(la, buf, self.rights())
    }

    /// Checks that a write of `n` bytes at `la` will not fault.
    pub(crate) fn probe_write(&mut self, la: u64, n: u64, seg: u8) -> Result<(), Exception> {
        self.check(la, n, seg)?;
        let rights = self.rights();
        self.translate(la, Access::Write, rights)?;
        if self.crosses(la, n) {
            self.translate(self.page_after(la), Access::Write, rights)?;
        }
        Ok(())
    }

    /// Reads with rights that need not be those of the current mode: implicit
    /// accesses to descriptor tables and the TSS are supervisor accesses.
    #[inline]
    pub(crate) fn read_system<W: Width>(&mut self, la: u64) -> Result<W, Exception> {
        let entry = self.tlb.entry_for(la, Rights::Supervisor as u8);
        if entry.read == self.tlb.tag(la.wrapping_add(W::BYTES - 1)) {
            // SAFETY: as in `load`.
            return Ok(unsafe { W::load(entry.addend.wrapping_add(la) as *const u8) });
        }
        self.read_system_slow(la, W::BYTES).map(W::truncate)
    }

    #[cold]
    #[inline(never)]
    fn read_system_slow(&mut self, la: u64, n: u64) -> Result<u64, Exception> {
        let mut buf = [0; 8];
        if !is_canonical(la) || !is_canonical(la.wrapping_add(n - 1)) {
            return Err(Exception::GP0);
        }
        self.read_with(la, &mut buf[..n as usize], Rights::Supervisor)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// Writes with supervisor rights, for implicit accesses.
    pub(crate) fn write_system<W: Width>(&mut self, la: u64, value: W) -> Result<(), Exception> {
        if !is_canonical(la) || !is_canonical(la.wrapping_add(W::BYTES - 1)) {
            return Err(Exception::GP0);
        }
        self.write_with(la, &value.zext().to_le_bytes()[..W::BYTES as usize], Rights::Supervisor)
    }

    /// Sets bits of a byte or word with a lock and supervisor rights (the
    /// accessed bit of a descriptor, the busy bit of a TSS); returns the old value.
    pub(crate) fn set_bits_system(&mut self, la: u64, bits: u32) -> Result<u32, Exception> {
        let place = self.translate(la, Access::Write, Rights::Supervisor)?;
        let Some(ptr) = place.host.filter(|_| !self.crosses(la, 4)) else {
            let old = self.read_system::<u32>(la)?;
            self.write_system::<u32>(la, old | bits)?;
            return Ok(old);
        };
        // SAFETY: RAM, and the access does not leave its page.
        let old = unsafe {
            let mut old = u32::load(ptr);
            loop {
                let found = u32::compare_exchange(ptr, old, old | bits);
                if found == old {
                    break old;
                }
                old = found;
            }
        };
        self.written(place.gpa, 4);
        Ok(old)
    }

    /// Notes a write that the fast path may not do: if it hit code, the block
    /// ends here, for it may be the very code that follows.
    pub(crate) fn written(&mut self, gpa: u64, n: u64) {
        if self.ram.code().written(gpa, n) {
            self.stop_block();
        }
    }

    #[inline(always)]
    pub(crate) fn crosses(&self, la: u64, n: u64) -> bool {
        (la & !PAGE_MASK) + n > !PAGE_MASK + 1
    }

    /// First byte of the page after that of `la`: linear addresses have 32 bits
    /// outside 64-bit mode. Implicit accesses of compatibility mode have more.
    pub(crate) fn page_after(&self, la: u64) -> u64 {
        let next = (la | !PAGE_MASK).wrapping_add(1);
        if next == 1 << 32 && !self.s.long64() { 0 } else { next }
    }

    /// What precedes translation: canonical form, alignment.
    pub(crate) fn check(&mut self, la: u64, n: u64, seg: u8) -> Result<(), Exception> {
        let canonical = is_canonical(la) && is_canonical(la.wrapping_add(n.saturating_sub(1)));
        if !canonical && self.s.long64() {
            return Err(Self::segment_fault(seg));
        }
        if self.align_check && n.is_power_of_two() && n <= 8 && la & (n - 1) != 0 {
            return Err(Exception::AC0);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn load_slow(&mut self, la: u64, n: u64, seg: u8) -> Result<u64, Exception> {
        self.check(la, n, seg)?;
        let mut buf = [0; 8];
        let rights = self.rights();
        if !self.crosses(la, n) {
            let place = self.translate(la, Access::Read, rights)?;
            self.watch_data(la, n, false);
            return Ok(self.read_place(place, n));
        }
        self.read_with(la, &mut buf[..n as usize], rights)?;
        Ok(u64::from_le_bytes(buf))
    }

    #[cold]
    #[inline(never)]
    fn store_slow(&mut self, la: u64, value: u64, n: u64, seg: u8) -> Result<(), Exception> {
        self.check(la, n, seg)?;
        let rights = self.rights();
        if !self.crosses(la, n) {
            let place = self.translate(la, Access::Write, rights)?;
            self.watch_data(la, n, true);
            self.write_place(place, value, n);
            return Ok(());
        }
        self.write_with(la, &value.to_le_bytes()[..n as usize], rights)
    }

    fn read_with(&mut self, la: u64, buf: &mut [u8], rights: Rights) -> Result<(), Exception> {
        if buf.is_empty() {
            return Ok(());
        }
        let split = buf.len().min((0x1000 - (la & 0xfff)) as usize);
        let first = self.translate(la, Access::Read, rights)?;
        let (low, high) = buf.split_at_mut(split);
        if !high.is_empty() {
            let place = self.translate(self.page_after(la), Access::Read, rights)?;
            self.read_span(place, high);
        }
        self.watch_data(la, (low.len() + high.len()) as u64, false);
        self.read_span(first, low);
        Ok(())
    }

    fn write_with(&mut self, la: u64, buf: &[u8], rights: Rights) -> Result<(), Exception> {
        if buf.is_empty() {
            return Ok(());
        }
        let split = buf.len().min((0x1000 - (la & 0xfff)) as usize);
        let first = self.translate(la, Access::Write, rights)?;
        let (low, high) = buf.split_at(split);
        if !high.is_empty() {
            let place = self.translate(self.page_after(la), Access::Write, rights)?;
            self.write_span(place, high);
        }
        self.watch_data(la, buf.len() as u64, true);
        self.write_span(first, low);
        Ok(())
    }

    fn read_place(&mut self, place: Place, n: u64) -> u64 {
        match place.host {
            // SAFETY: RAM; callers have checked that the access stays in its page.
            Some(ptr) => unsafe {
                match n {
                    1 => u8::load(ptr).zext(),
                    2 => u16::load(ptr).zext(),
                    4 => u32::load(ptr).zext(),
                    _ => u64::load(ptr),
                }
            },
            None => {
                let mut buf = [0; 8];
                self.device_read(place.gpa, &mut buf[..n as usize]);
                u64::from_le_bytes(buf)
            }
        }
    }

    fn write_place(&mut self, place: Place, value: u64, n: u64) {
        match place.host {
            // SAFETY: as in `read_place`.
            Some(ptr) => unsafe {
                match n {
                    1 => u8::store(ptr, value as u8),
                    2 => u16::store(ptr, value as u16),
                    4 => u32::store(ptr, value as u32),
                    _ => u64::store(ptr, value),
                }
                self.written(place.gpa, n);
            },
            None => self.device_write(place.gpa, &value.to_le_bytes()[..n as usize]),
        }
    }

    fn read_span(&mut self, place: Place, buf: &mut [u8]) {
        match place.host {
            // SAFETY: the span lies inside one page of RAM.
            Some(ptr) => unsafe { raw::copy(ptr, buf.as_mut_ptr(), buf.len()) },
            None => self.device_read(place.gpa, buf),
        }
    }

    fn write_span(&mut self, place: Place, buf: &[u8]) {
        match place.host {
            Some(ptr) => {
                // SAFETY: as in `read_span`.
                unsafe { raw::copy(buf.as_ptr(), ptr, buf.len()) };
                self.written(place.gpa, buf.len() as u64);
            }
            None => self.device_write(place.gpa, buf),
        }
    }

    /// A device access is made of naturally aligned pieces of at most 8 bytes.
    pub(crate) fn device_read(&mut self, gpa: u64, buf: &mut [u8]) {
        for_pieces(gpa, buf.len(), |at, range| self.mmio_read(at, &mut buf[range]));
    }

    pub(crate) fn device_write(&mut self, gpa: u64, buf: &[u8]) {
        for_pieces(gpa, buf.len(), |at, range| self.mmio_write(at, &buf[range]));
    }

    /// Data breakpoints (*SDM vol. 3B §17.2.4*): noted, delivered after the instruction.
    pub(crate) fn watch_data(&mut self, la: u64, n: u64, write: bool) {
        self.debugger_sees(la, n, write);
        if self.s.dr7 & arch::regs::dr7::ENABLES == 0 || self.hides_breakpoint(la) {
            return;
        }
        for i in 0..4 {
            let kind = self.s.dr7 >> (16 + 4 * i) & 3;
            if self.s.dr7 >> (2 * i) & 3 == 0 || kind == 0 || kind == 2 || (kind == 1 && !write) {
                continue;
            }
            let length = [1u64, 2, 8, 4][(self.s.dr7 >> (18 + 4 * i) & 3) as usize];
            let first = self.s.dr[i] & !(length - 1);
            if la < first.wrapping_add(length) && first < la.wrapping_add(n) {
                self.pending_db |= 1 << i;
                self.stop_block();
            }
        }
    }
}

fn for_pieces(gpa: u64, len: usize, mut piece: impl FnMut(u64, std::ops::Range<usize>)) {
    let mut at = 0;
    while at < len {
        let address = gpa + at as u64;
        let aligned = 1usize << address.trailing_zeros().min(3);
        let mut n = aligned;
        while n > len - at {
            n /= 2;
        }
        piece(address, at..at + n);
        at += n;
    }
}
