//! A logical processor without a CPU: registers, flat memory and a page map.
//! For tests and fuzzing of the leaves.

use std::collections::HashMap;

use arch::{Exception, Vector};
use sgx_abi::PAGE_SIZE;

use crate::epcm::EpcPage;
use crate::port::{Access, Control, Port, Segment};
use crate::thread::Thread;

/// Where a page of linear addresses leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Ordinary memory, the page with that number of [`TestPort::memory`].
    Memory(usize),
    /// The EPC.
    Epc(EpcPage),
}

/// Size of the state image that stands for XSAVE's.
pub const XSAVE_SIZE: usize = 576;

/// The processor.
#[derive(Debug)]
pub struct TestPort {
    /// General registers.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Ordinary memory, by pages.
    pub memory: Vec<[u8; PAGE_SIZE]>,
    /// The page tables: linear page to place.
    pub map: HashMap<u64, Mapping>,
    /// Enclave mode.
    pub thread: Option<Box<Thread>>,
    /// Times enclave mode was entered or left.
    pub flushes: u32,
    /// Control state.
    pub control: Control,
    /// Segment registers.
    pub segments: [Segment; 6],
    /// What [`Port::event_pending`] says.
    pub event: bool,
    /// A single-step trap was pended.
    pub single_step: bool,
    /// Stand-in for the XSAVE state.
    pub xstate: [u8; XSAVE_SIZE],
    /// Where the last page fault was.
    pub fault_address: u64,
    /// What [`Port::random`] gives, counted up; `None` if there is no randomness.
    pub random: Option<u8>,
}

impl Default for TestPort {
    fn default() -> Self {
        TestPort {
            gpr: [0; 16],
            rip: 0x1000,
            rflags: 2,
            memory: Vec::new(),
            map: HashMap::new(),
            thread: None,
            flushes: 0,
            control: Control { long64: true, osfxsr: true, osxsave: true, xcr0: 7 },
            segments: [Segment { selector: 0x2b, attr: 0xc0f3, limit: u32::MAX, base: 0 }; 6],
            event: false,
            single_step: false,
            xstate: [0x5a; XSAVE_SIZE],
            fault_address: 0,
            random: Some(1),
        }
    }
}

impl TestPort {
    /// Maps a new page of ordinary memory at `la`.
    pub fn map_memory(&mut self, la: u64) {
        self.memory.push([0; PAGE_SIZE]);
        self.map.insert(la >> 12, Mapping::Memory(self.memory.len() - 1));
    }

    /// Maps an EPC page at `la`.
    pub fn map_epc(&mut self, la: u64, page: EpcPage) {
        self.map.insert(la >> 12, Mapping::Epc(page));
    }

    /// Writes ordinary memory at `la`, which must be mapped; across pages.
    pub fn poke(&mut self, la: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = la + i as u64;
            match self.map.get(&(at >> 12)) {
                Some(&Mapping::Memory(page)) => self.memory[page][(at & 0xfff) as usize] = byte,
                other => panic!("{at:#x} is {other:?}, not memory"),
            }
        }
    }

    /// Reads ordinary memory at `la`.
    pub fn peek(&self, la: u64, len: usize) -> Vec<u8> {
        let byte = |at: u64| match self.map.get(&(at >> 12)) {
            Some(&Mapping::Memory(page)) => self.memory[page][(at & 0xfff) as usize],
            other => panic!("{at:#x} is {other:?}, not memory"),
        };
        (0..len as u64).map(|i| byte(la + i)).collect()
    }

    fn place(&mut self, la: u64, write: bool) -> Result<Mapping, Exception> {
        match self.map.get(&(la >> 12)) {
            Some(&place) => Ok(place),
            None => {
                self.fault_address = la;
                Err(Exception::pf(if write { 2 } else { 0 }))
            }
        }
    }
}

impl Port for TestPort {
    fn gpr(&self, number: usize) -> u64 {
        self.gpr[number & 15]
    }
    fn set_gpr(&mut self, number: usize, value: u64) {
        self.gpr[number & 15] = value;
    }
    fn linear(&self, offset: u64, len: u64) -> Result<u64, Exception> {
        let last = offset.wrapping_add(len.saturating_sub(1));
        let within = self.control.long64 || last <= u64::from(self.segments[3].limit);
        let ok = within && arch::paging::is_canonical(offset) && arch::paging::is_canonical(last);
        if ok { Ok(offset) } else { Err(Exception::GP0) }
    }
    fn read(&mut self, la: u64, buf: &mut [u8]) -> Result<(), Exception> {
        for (i, to) in buf.iter_mut().enumerate() {
            let at = la.wrapping_add(i as u64);
            *to = match self.place(at, false)? {
                Mapping::Memory(page) => self.memory[page][(at & 0xfff) as usize],
                Mapping::Epc(_) => 0xff,
            };
        }
        Ok(())
    }
    fn write(&mut self, la: u64, buf: &[u8]) -> Result<(), Exception> {
        for i in 0..buf.len() as u64 {
            self.place(la.wrapping_add(i), true)?;
        }
        for (i, &byte) in buf.iter().enumerate() {
            let at = la.wrapping_add(i as u64);
            if let Mapping::Memory(page) = self.place(at, true)? {
                self.memory[page][(at & 0xfff) as usize] = byte;
            }
        }
        Ok(())
    }
    fn resolve(&mut self, la: u64, access: Access) -> Result<Option<EpcPage>, Exception> {
        Ok(match self.place(la, access == Access::Write)? {
            Mapping::Epc(page) => Some(page),
            Mapping::Memory(_) => None,
        })
    }
    fn page_fault(&mut self, la: u64, access: Access, sgx: bool) -> Exception {
        self.fault_address = la;
        let write = if access == Access::Write { 2 } else { 0 };
        Exception::new(Vector::PageFault, 1 | write | if sgx { 1 << 15 } else { 0 })
    }
    fn thread(&self) -> Option<&Thread> {
        self.thread.as_deref()
    }
    fn thread_mut(&mut self) -> Option<&mut Thread> {
        self.thread.as_deref_mut()
    }
    fn set_thread(&mut self, thread: Option<Box<Thread>>) {
        self.flushes += 1;
        self.thread = thread;
    }
    fn random(&mut self, buf: &mut [u8]) -> bool {
        let Some(next) = &mut self.random else { return false };
        for byte in buf {
            *byte = *next;
            *next = next.wrapping_add(1);
        }
        true
    }
    fn event_pending(&self) -> bool {
        self.event
    }
    fn control(&self) -> Control {
        self.control
    }
    fn set_xcr0(&mut self, value: u64) {
        self.control.xcr0 = value;
    }
    fn segment(&self, number: usize) -> Segment {
        self.segments[number.min(5)]
    }
    fn set_segment(&mut self, number: usize, segment: Segment) {
        self.segments[number.min(5)] = segment;
    }
    fn rip(&self) -> u64 {
        self.rip
    }
    fn next_rip(&self) -> u64 {
        self.rip + 3
    }
    fn jump(&mut self, rip: u64) {
        self.rip = rip;
    }
    fn rflags(&self) -> u64 {
        self.rflags
    }
    fn set_rflags(&mut self, value: u64) {
        self.rflags = value;
    }
    fn pend_single_step(&mut self) {
        self.single_step = true;
    }
    fn xsave_size(&self, _xfrm: u64) -> usize {
        XSAVE_SIZE
    }
    fn xsave(&self, _xfrm: u64, image: &mut [u8]) {
        image.copy_from_slice(&self.xstate);
    }
    fn xrstor(&mut self, _xfrm: u64, image: &[u8]) -> Result<(), Exception> {
        // As the header's reserved bytes: what is not zero there is a bad image.
        if image.len() != XSAVE_SIZE || image[528..].contains(&0xee) {
            return Err(Exception::GP0);
        }
        self.xstate.copy_from_slice(image);
        Ok(())
    }
    fn xinit(&mut self, _xfrm: u64) {
        self.xstate.fill(0);
    }
}
