//! An initialized enclave in the EPC and a processor in front of it, put there
//! without the ENCLS leaves, and what a case of a leaf's table needs.
#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex};

use arch::Vector;
use arch::regs::{gpr, rflags};
use sgx::claim::{Lane, Mode};
use sgx::enclave::Enclave;
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::rule::{Outcome, Rule};
use sgx::testing::TestPort;
use sgx::{Config, Done, Leaf, Package};
use sgx_abi::{
    AttributeFlags, Attributes, Enclu, GprSgx, MiscSelect, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Secs,
    Tcs, TcsFlags,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// First linear address of the enclave.
pub const BASE: u64 = 0x1000_0000;
/// Its size in bytes: 16 pages.
pub const SIZE: u64 = 0x1_0000;
/// Its pages, by address: TCS, three SSA frames of two pages, code, and data.
pub const TCS: u64 = BASE;
pub const SSA: u64 = BASE + 0x1000;
pub const CODE: u64 = BASE + 0x7000;
pub const DATA: u64 = BASE + 0x8000;
pub const OUTPUT: u64 = BASE + 0x9000;
pub const SOURCE: u64 = BASE + 0xa000;
pub const PENDING: u64 = BASE + 0xb000;
pub const EXTRA: u64 = BASE + 0xc000;
/// Ordinary memory.
pub const HOST: u64 = 0x40_0000;
/// AEP.
pub const AEP: u64 = HOST + 0x100;
/// The SECS.
pub const SECS: EpcPage = EpcPage(0);
/// A page of the EPC that is not the enclave's.
pub const FOREIGN: EpcPage = EpcPage(40);
/// Offset of GPRSGX in the second page of a frame.
pub const GPR: usize = PAGE_SIZE - GprSgx::SIZE;

/// The EPC page of an address of the enclave.
pub fn page(la: u64) -> EpcPage {
    EpcPage(1 + ((la - BASE) >> 12) as u32)
}

/// A machine.
pub struct World {
    pub package: Package,
    pub port: TestPort,
    pub enclave: Arc<Enclave>,
    /// A page that another processor's leaf works on meanwhile.
    pub held: Option<(EpcPage, Lane, Mode)>,
}

/// Everything a refused leaf must leave alone.
#[derive(PartialEq)]
pub struct Snapshot {
    entries: Vec<(EpcPage, Entry)>,
    content: Vec<[u8; PAGE_SIZE]>,
    memory: Vec<[u8; PAGE_SIZE]>,
    gpr: [u64; 16],
    rip: u64,
    xcr0: u64,
    inside: u32,
    thread: bool,
    xstate: Vec<u8>,
}

impl World {
    pub fn new() -> World {
        let dram = mee::Dram::new(64, mee::Config::new(64, 1)).unwrap();
        let roots = sgx::keys::Roots {
            seal_fuses: [1; 16],
            provisioning_fuses: [2; 16],
            owner_epoch: [3; 16],
            cpusvn: 4,
            svn_secret: [5; 32],
        };
        let package = Package::new(Config::sgx2(7), dram, roots).unwrap();
        let mut secs = Secs { size: SIZE, baseaddr: BASE, ssaframesize: 2, ..Secs::default() };
        secs.miscselect = MiscSelect::EXINFO;
        let flags = AttributeFlags::INIT
            | AttributeFlags::MODE64BIT
            | AttributeFlags::KSS
            | AttributeFlags::PROVISIONKEY
            | AttributeFlags::EINITTOKEN_KEY;
        secs.attributes = Attributes { flags, xfrm: 7 };
        secs.mrenclave = [0xe1; 32];
        secs.mrsigner = package.launch_hash();
        (secs.isvprodid, secs.isvsvn, secs.configsvn) = (7, 8, 9);
        package.write(SECS, 0, &secs).unwrap();
        let entry = Entry { flags: Flags::VALID, page_type: PageType::Secs, ..Entry::FREE };
        package.epcm.set(SECS, entry);
        let mut w =
            World { enclave: package.enclaves.add(SECS), package, port: TestPort::default(), held: None };
        for la in (BASE..BASE + SIZE - 0x2000).step_by(PAGE_SIZE) {
            let mut flags = Flags::VALID | Flags::R | Flags::W;
            if la == PENDING {
                flags |= Flags::PENDING;
            }
            if la == TCS {
                flags = Flags::VALID;
            }
            let page_type = if la == TCS { PageType::Tcs } else { PageType::Reg };
            w.package.epcm.set(page(la), Entry { flags, page_type, secs: SECS, address: la, epoch: 0 });
            w.port.map_epc(la, page(la));
        }
        let tcs = Tcs {
            ossa: SSA - BASE,
            nssa: 3,
            oentry: CODE - BASE + 0x10,
            ofsbase: DATA - BASE,
            ogsbase: OUTPUT - BASE,
            fslimit: 0xfff,
            gslimit: 0xfff,
            ..Tcs::default()
        };
        w.package.write(page(TCS), 0, &tcs).unwrap();
        w.port.map_memory(HOST);
        w.port.rip = HOST + 0x20;
        w.port.gpr = std::array::from_fn(|i| 0x1111 * i as u64);
        w.port.gpr[gpr::RSP] = HOST + 0xf00;
        w.port.gpr[gpr::RBP] = HOST + 0xf80;
        w
    }

    /// Turns enclave and processor into 32-bit ones.
    pub fn narrow(&mut self) {
        self.port.control.long64 = false;
        self.secs(|s| s.attributes.flags.remove(AttributeFlags::MODE64BIT));
    }

    pub fn secs(&mut self, change: impl FnOnce(&mut Secs)) {
        self.change(SECS, 0, change);
    }
    pub fn tcs(&mut self, change: impl FnOnce(&mut Tcs)) {
        self.change(page(TCS), 0, change);
    }
    /// GPRSGX of a frame.
    pub fn frame(&self, index: u64) -> GprSgx {
        self.package.read(page(SSA + index * 0x2000 + 0x1000), GPR).unwrap()
    }
    pub fn set_frame(&mut self, index: u64, change: impl FnOnce(&mut GprSgx)) {
        self.change(page(SSA + index * 0x2000 + 0x1000), GPR, change);
    }
    pub fn change<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        page: EpcPage,
        at: usize,
        change: impl FnOnce(&mut T),
    ) {
        let mut value: T = self.package.read(page, at).unwrap();
        change(&mut value);
        self.package.write(page, at, &value).unwrap();
    }
    pub fn epcm(&mut self, la: u64, change: impl FnOnce(&mut Entry)) {
        self.package.epcm.update(page(la), change);
    }
    pub fn secinfo(&mut self, la: u64, flags: SecinfoFlags) {
        self.package.write(page(la), (la & 0xfff) as usize, &Secinfo::new(flags)).unwrap();
    }

    pub fn snapshot(&self) -> Snapshot {
        let content =
            (0..self.package.epcm.pages()).map(|p| self.package.read(EpcPage(p), 0).unwrap()).collect();
        Snapshot {
            entries: self.package.epcm.valid().collect(),
            content,
            memory: self.port.memory.clone(),
            gpr: self.port.gpr,
            rip: self.port.rip,
            xcr0: self.port.control.xcr0,
            inside: self.enclave.with(|s| s.tracking.inside()),
            thread: self.port.thread.is_some(),
            xstate: self.port.xstate.to_vec(),
        }
    }

    /// Executes an ENCLU leaf with RBX, RCX and RDX as they are.
    pub fn enclu(&mut self, leaf: Enclu) -> Result<Done, arch::Exception> {
        self.port.gpr[gpr::RAX] = leaf as u64;
        let held = self.held.map(|(page, lane, mode)| self.package.claims.claim(page, lane, mode).unwrap());
        let done = sgx::enclu::execute(&mut Leaf { port: &mut self.port, package: &self.package });
        drop(held);
        done
    }

    pub fn operands(&mut self, rbx: u64, rcx: u64, rdx: u64) {
        self.port.gpr[gpr::RBX] = rbx;
        self.port.gpr[gpr::RCX] = rcx;
        self.port.gpr[gpr::RDX] = rdx;
    }

    /// Enters the enclave.
    pub fn enter(&mut self) {
        self.operands(TCS, AEP, 0);
        assert_eq!(self.enclu(Enclu::Eenter), Ok(Done::Jump));
    }

    /// Leaves it by an exception.
    pub fn aex(&mut self, vector: Vector, error: u32, address: u64) -> sgx::aex::AexOutcome {
        let (rip, rflags) = (self.port.rip, self.port.rflags | rflags::RF);
        let kind = sgx::aex::Kind::Hardware;
        let event = sgx::aex::Event { vector: vector as u8, kind, error, address, rip, rflags };
        sgx::aex::exit(&mut self.port, &self.package, &event)
    }

    pub fn opt_in(&mut self) {
        self.tcs(|t| t.flags |= TcsFlags::DBGOPTIN);
    }
}

/// A row of a leaf's table, and what breaks it in a machine where the leaf would succeed.
pub type Case = (&'static Rule, fn(&mut World));

/// Runs all cases of a leaf: each is stopped by its row, with the row's outcome, and
/// changes nothing. Every row of the table needs a case.
pub fn run(leaf: Enclu, rules: &[&'static Rule], prepare: fn(&mut World), cases: &[Case]) {
    let mut w = World::new();
    prepare(&mut w);
    w.enclu(leaf).unwrap_or_else(|e| panic!("{leaf} fails unprovoked: {e:?}"));
    for (rule, break_it) in cases {
        let mut w = World::new();
        prepare(&mut w);
        break_it(&mut w);
        w.port.gpr[gpr::RAX] = leaf as u64;
        let before = w.snapshot();
        let stopped: Arc<Mutex<Option<&'static Rule>>> = Arc::default();
        let seen = stopped.clone();
        w.package.trace.set_sink(Some(Box::new(move |r| *seen.lock().unwrap() = r.rule)));
        let done = w.enclu(leaf);
        let by = stopped.lock().unwrap().map(|r| r.name);
        assert_eq!(by, Some(rule.name), "{leaf}: {}: {done:?}", rule.text);
        match (rule.outcome, done) {
            (Outcome::Gp, Err(e)) => assert_eq!((e.vector, e.error), (Vector::GeneralProtection, 0)),
            (Outcome::Pf, Err(e)) => {
                assert_eq!((e.vector, e.error & 1), (Vector::PageFault, 1), "{}", rule.name);
                let epc = matches!(
                    w.port.map.get(&(w.port.fault_address >> 12)),
                    Some(sgx::testing::Mapping::Epc(_))
                );
                assert_eq!(e.error & 1 << 15 != 0, epc, "{}", rule.name);
            }
            (Outcome::Status(status), Ok(Done::Code(_, _))) => {
                assert_eq!(w.port.gpr[gpr::RAX], status.rax());
                assert_eq!(w.port.rflags & rflags::STATUS, rflags::ZF);
                w.port.gpr[gpr::RAX] = leaf as u64;
            }
            (outcome, done) => panic!("{leaf}: {}: {outcome:?} and {done:?}", rule.name),
        }
        assert!(w.snapshot() == before, "{leaf}: {} changed something", rule.name);
        w.package.trace.set_sink(None);
    }
    let left: Vec<_> =
        rules.iter().filter(|r| !cases.iter().any(|c| std::ptr::eq(c.0, **r))).map(|r| r.name).collect();
    println!("{leaf}: {} rules, {} cases, without a case: {left:?}", rules.len(), cases.len());
    assert!(left.is_empty(), "{leaf}: rows without a case: {left:?}");
}
