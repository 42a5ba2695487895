//! This processor as the SGX crate sees it ([`sgx::Port`]).

use std::ops::Range;

use arch::descriptor::Attr;
use arch::paging::{PAGE_MASK, PAGE_SIZE, is_canonical, pf};
use arch::regs::{Cr4, Seg, Xcr0, dr6, mxcsr};
use arch::{Exception, regs};
use sgx::port::{Access, Control, Segment};
use sgx::{EpcPage, Port, Thread};

use crate::Cpu;
use crate::epc::{ABORT_PAGE, Target};
use crate::mmu::walk;
use crate::op::{EA_32, EA_LEGACY};
use crate::xstate::layout::{HEADER, HEADER_SIZE, MAX_SIZE, MXCSR, standard_size};
use crate::xstate::{Form, Plan};

/// The processor while it executes a leaf or leaves an enclave.
pub(crate) struct CpuPort<'a> {
    cpu: &'a mut Cpu,
    rip: u64,
    next: u64,
}

/// Where part of an operand lies.
#[derive(Clone, Copy)]
enum Spot {
    /// RAM: physical and host address.
    Ram(u64, *mut u8),
    /// A device, or the abort page.
    Device(u64),
    /// An EPC page: physical address, page and offset.
    Epc(u64, EpcPage, usize),
}

/// The pages that `len` bytes at `la` touch: address of the piece and its bytes.
fn pieces(la: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let address = la.wrapping_add(at as u64);
        let n = (len - at).min((PAGE_SIZE - (address & !PAGE_MASK)) as usize);
        let piece = (n != 0).then_some((address, at..at + n));
        at += n;
        piece
    })
}

fn walk_access(access: Access) -> walk::Access {
    match access {
        Access::Read => walk::Access::Read,
        Access::Write => walk::Access::Write,
        Access::Fetch => walk::Access::Fetch,
    }
}

fn components(xfrm: u64) -> Xcr0 {
    Xcr0::from_bits_truncate(xfrm)
}

impl<'a> CpuPort<'a> {
    /// At the instruction at `rip`, followed by the one at `next`.
    pub(crate) fn new(cpu: &'a mut Cpu, rip: u64, next: u64) -> Self {
        CpuPort { cpu, rip, next }
    }

    fn spot(&mut self, la: u64, access: walk::Access) -> Result<Spot, Exception> {
        if !is_canonical(la) {
            return Err(Exception::GP0);
        }
        let rights = self.cpu.rights();
        let leaf = self.cpu.walk(la, access, rights)?;
        let offset = la & !PAGE_MASK;
        Ok(match self.cpu.target(la, leaf.gpa, access, rights)? {
            Target::Abort => Spot::Device(ABORT_PAGE + offset),
            Target::Epc(page, _) => Spot::Epc(leaf.gpa, page, offset as usize),
            Target::Outside => match self.cpu.ram.page(leaf.gpa) {
                Some(host) => Spot::Ram(leaf.gpa, host.wrapping_add(offset as usize)),
                None => Spot::Device(leaf.gpa),
            },
        })
    }

    /// The EPC turned out to be lost under an access.
    fn lost(&mut self, la: u64, access: walk::Access) -> Exception {
        if let Some(sgx) = &self.cpu.sgx {
            sgx.package.lose();
        }
        let rights = self.cpu.rights();
        self.cpu.sgx_page_fault(la, access, rights)
    }
}

impl Port for CpuPort<'_> {
    fn gpr(&self, number: usize) -> u64 {
        self.cpu.s.regs.get(number)
    }
    fn set_gpr(&mut self, number: usize, value: u64) {
        self.cpu.s.regs.set(number, value);
    }

    fn linear(&self, offset: u64, len: u64) -> Result<u64, Exception> {
        let ds = Seg::Ds as u8;
        if self.cpu.s.long64() {
            let last = offset.wrapping_add(len.saturating_sub(1));
            return if is_canonical(offset) && is_canonical(last) { Ok(offset) } else { Err(Exception::GP0) };
        }
        self.cpu.linear(EA_LEGACY | EA_32, ds, offset & 0xffff_ffff, len.max(1), false)
    }

    fn read(&mut self, la: u64, buf: &mut [u8]) -> Result<(), Exception> {
        let access = walk::Access::Read;
        for (at, _) in pieces(la, buf.len()) {
            self.spot(at, access)?;
        }
        self.cpu.watch_data(la, buf.len() as u64, false);
        for (at, range) in pieces(la, buf.len()) {
            let to = &mut buf[range];
            match self.spot(at, access)? {
                // SAFETY: the piece lies inside one page of RAM.
                Spot::Ram(_, host) => unsafe { mem::raw::copy(host, to.as_mut_ptr(), to.len()) },
                Spot::Device(gpa) => self.cpu.device_read(gpa, to),
                Spot::Epc(_, page, offset) => {
                    let package = self.cpu.sgx.as_ref().map(|sgx| sgx.package.clone());
                    if package.is_none_or(|p| p.dram.read(page.0, offset, to).is_err()) {
                        return Err(self.lost(at, access));
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, la: u64, buf: &[u8]) -> Result<(), Exception> {
        let access = walk::Access::Write;
        for (at, _) in pieces(la, buf.len()) {
            self.spot(at, access)?;
        }
        self.cpu.watch_data(la, buf.len() as u64, true);
        for (at, range) in pieces(la, buf.len()) {
            let from = &buf[range];
            match self.spot(at, access)? {
                Spot::Ram(gpa, host) => {
                    // SAFETY: the piece lies inside one page of RAM.
                    unsafe { mem::raw::copy(from.as_ptr(), host, from.len()) };
                    self.cpu.written(gpa, from.len() as u64);
                }
                Spot::Device(gpa) => self.cpu.device_write(gpa, from),
                Spot::Epc(gpa, page, offset) => {
                    let package = self.cpu.sgx.as_ref().map(|sgx| sgx.package.clone());
                    if package.is_none_or(|p| p.dram.write(page.0, offset, from).is_err()) {
                        return Err(self.lost(at, access));
                    }
                    self.cpu.written(gpa, from.len() as u64);
                }
            }
        }
        Ok(())
    }

    fn resolve(&mut self, la: u64, access: Access) -> Result<Option<EpcPage>, Exception> {
        if !is_canonical(la) {
            return Err(Exception::GP0);
        }
        let rights = self.cpu.rights();
        let leaf = self.cpu.walk(la, walk_access(access), rights)?;
        Ok(self.cpu.epc_page(leaf.gpa))
    }

    fn page_fault(&mut self, la: u64, access: Access, sgx: bool) -> Exception {
        let rights = self.cpu.rights();
        let code = pf::P | if sgx { pf::SGX } else { 0 };
        self.cpu.page_fault_for(la, walk_access(access), rights, code)
    }

    fn thread(&self) -> Option<&Thread> {
        self.cpu.s.enclave.as_deref()
    }
    fn thread_mut(&mut self) -> Option<&mut Thread> {
        self.cpu.s.enclave.as_deref_mut()
    }
    fn set_thread(&mut self, thread: Option<Box<Thread>>) {
        self.cpu.s.enclave = thread;
        self.cpu.select_mode();
    }

    fn random(&mut self, buf: &mut [u8]) -> bool {
        getrandom::fill(buf).is_ok()
    }
    fn event_pending(&self) -> bool {
        self.cpu.event_pending()
    }
    fn control(&self) -> Control {
        let s = &self.cpu.s;
        Control {
            long64: s.long64(),
            osfxsr: s.cr4.contains(Cr4::OSFXSR),
            osxsave: s.cr4.contains(Cr4::OSXSAVE),
            xcr0: s.xcr0.bits(),
        }
    }
    fn set_xcr0(&mut self, value: u64) {
        self.cpu.s.xcr0 = Xcr0::from_bits_truncate(value);
        self.cpu.control_changed();
    }

    fn segment(&self, number: usize) -> Segment {
        let s = &self.cpu.s.seg[number.min(5)];
        Segment { selector: s.selector, attr: (s.attr.0 >> 8) as u16, limit: s.limit, base: s.base }
    }
    fn set_segment(&mut self, number: usize, segment: Segment) {
        self.cpu.s.seg[number.min(5)] = crate::state::Segment {
            selector: segment.selector,
            attr: Attr(u32::from(segment.attr) << 8 & Attr::MASK),
            limit: segment.limit,
            base: segment.base,
        };
    }

    fn rip(&self) -> u64 {
        self.rip
    }
    fn next_rip(&self) -> u64 {
        self.next
    }
    fn jump(&mut self, rip: u64) {
        self.cpu.s.rip = self.cpu.wrap_ip(rip);
    }
    fn rflags(&self) -> u64 {
        self.cpu.s.rflags()
    }
    fn set_rflags(&mut self, value: u64) {
        self.cpu.set_rflags(value, !0);
    }
    fn pend_single_step(&mut self) {
        self.cpu.pending_db |= dr6::BS;
        self.cpu.stop_block();
    }

    fn xsave_size(&self, xfrm: u64) -> usize {
        standard_size(components(xfrm))
    }
    fn xsave(&self, xfrm: u64, image: &mut [u8]) {
        let area = self.cpu.s.xsave_area(components(xfrm), Form::Standard, 0, self.cpu.s.long64());
        for (offset, bytes) in area.pieces() {
            if let Some(to) = image.get_mut(offset as usize..offset as usize + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        }
    }
    fn xrstor(&mut self, xfrm: u64, image: &[u8]) -> Result<(), Exception> {
        let mut area = [0; MAX_SIZE];
        let n = image.len().min(MAX_SIZE);
        area[..n].copy_from_slice(&image[..n]);
        let header = area[HEADER..].first_chunk().unwrap_or(&[0; HEADER_SIZE]);
        let xfrm = components(xfrm);
        let plan = Plan::new(header, xfrm, xfrm)?;
        let wide = self.cpu.s.long64();
        Ok(self.cpu.s.xrstor_area(&plan, &area, wide)?)
    }
    fn xinit(&mut self, xfrm: u64) {
        let mut area = [0; MAX_SIZE];
        area[MXCSR..MXCSR + 4].copy_from_slice(&regs::mxcsr::RESET.to_le_bytes());
        let (xfrm, wide) = (components(xfrm), self.cpu.s.long64());
        if let Ok(plan) = Plan::new(&[0; HEADER_SIZE], xfrm, xfrm) {
            // MXCSR is well-formed, so this does not fail.
            let _ = self.cpu.s.xrstor_area(&plan, &area, wide);
        }
        self.cpu.s.mxcsr = mxcsr::RESET;
    }
}
