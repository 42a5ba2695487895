//! A machine whose enclaves come about through the real ENCLS leaves, and what a case
//! of a leaf's table needs.
//!
//! All EPC pages are mapped in order at [`EPC`], as a kernel has them. An enclave that
//! [`World::build`] makes has its SECS in page 0, a TCS in 1, a writable page in 2 and
//! an executable one in 3; page [`FREE`] and those after it are not in use.
#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex, OnceLock};

use arch::regs::{gpr, rflags};
use arch::{Exception, Vector};
use sgx::claim::{Lane, Mode};
use sgx::epcm::{Entry, EpcPage};
use sgx::keys::{self, Roots};
use sgx::measure::Measurement;
use sgx::rule::{Outcome, Rule};
use sgx::sigstruct::signer::Signer;
use sgx::testing::{Mapping, TestPort};
use sgx::{Config, Done, Leaf, Package};
use sgx_abi::{
    AttributeFlags, Attributes, Einittoken, Encls, MiscSelect, PAGE_SIZE, PageType, Pageinfo, Secinfo,
    SecinfoFlags, Secs, Sigstruct, Tcs,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Number of EPC pages.
pub const PAGES: u32 = 32;
/// Linear address of EPC page 0.
pub const EPC: u64 = 0x7000_0000;
/// First linear address of the enclave, and its size in bytes.
pub const BASE: u64 = 0x1000_0000;
pub const SIZE: u64 = 0x1_0000;
/// The enclave's pages.
pub const SECS: EpcPage = EpcPage(0);
pub const TCS: EpcPage = EpcPage(1);
pub const DATA: EpcPage = EpcPage(2);
pub const CODE: EpcPage = EpcPage(3);
/// The first page that is not in use.
pub const FREE: EpcPage = EpcPage(8);
/// Ordinary memory, and the operands in it.
pub const MEMORY: u64 = 0x40_0000;
pub const PAGEINFO: u64 = MEMORY;
pub const SECINFO: u64 = MEMORY + 0x40;
pub const SOURCE: u64 = MEMORY + 0x1000;
pub const SIGSTRUCT: u64 = MEMORY + 0x2000;
pub const TOKEN: u64 = MEMORY + 0x3000;
/// Not mapped.
pub const NOWHERE: u64 = 0x5000_0000;
/// An address that does not exist.
pub const NONCANONICAL: u64 = 1 << 47;
/// The security version of the processor.
pub const CPUSVN: u8 = 4;

/// Linear address of an EPC page.
pub fn la(page: EpcPage) -> u64 {
    EPC + u64::from(page.0) * PAGE_SIZE as u64
}

/// R, W and X.
pub const R: SecinfoFlags = SecinfoFlags::R;
pub const W: SecinfoFlags = SecinfoFlags::W;
pub const X: SecinfoFlags = SecinfoFlags::X;

/// Flags of a SECINFO.
pub fn flags(page_type: PageType, bits: SecinfoFlags) -> SecinfoFlags {
    SecinfoFlags::new(page_type, bits)
}

/// The platform of every [`World`].
pub fn roots() -> Roots {
    Roots {
        seal_fuses: [1; 16],
        provisioning_fuses: [2; 16],
        owner_epoch: [3; 16],
        cpusvn: CPUSVN,
        svn_secret: [5; 32],
    }
}

/// The SECS that ECREATE gets for a debug enclave.
pub fn secs() -> Secs {
    let flags = AttributeFlags::MODE64BIT | AttributeFlags::DEBUG;
    Secs {
        size: SIZE,
        baseaddr: BASE,
        ssaframesize: 1,
        attributes: Attributes { flags, xfrm: 3 },
        ..Secs::default()
    }
}

/// A TCS with a value in every field that the processor forces.
pub fn tcs() -> Tcs {
    Tcs { ossa: 0x4000, cssa: 9, nssa: 2, oentry: 0x2000, aep: 7, state: 5, ..Tcs::default() }
}

/// Content of the pages that [`World::build`] adds.
pub fn content(page: EpcPage) -> [u8; PAGE_SIZE] {
    std::array::from_fn(|i| (i / 256 * 16) as u8 ^ (i as u8) ^ page.0 as u8)
}

/// A machine.
pub struct World {
    pub package: Package,
    pub port: TestPort,
    /// A page that another processor's leaf works on meanwhile.
    pub held: Option<(EpcPage, Lane, Mode)>,
}

/// Everything a refused leaf must leave alone.
#[derive(PartialEq)]
pub struct Snapshot {
    entries: Vec<(EpcPage, Entry)>,
    enclaves: Vec<(EpcPage, u64, u32, u64)>,
    content: Vec<[u8; PAGE_SIZE]>,
    memory: Vec<[u8; PAGE_SIZE]>,
    gpr: [u64; 15],
    rflags: u64,
}

impl World {
    /// A machine with an empty EPC; SGX2 and everything else.
    pub fn new() -> World {
        World::with(Config::sgx2(0xe7))
    }

    /// The same, of a model.
    pub fn with(config: Config) -> World {
        let dram = mee::Dram::new(PAGES, mee::Config::new(64, 1)).unwrap();
        let package = Package::new(config, dram, roots()).unwrap();
        let mut w = World { package, port: TestPort::default(), held: None };
        for page in 0..PAGES {
            w.port.map_epc(la(EpcPage(page)), EpcPage(page));
        }
        for page in 0..4 {
            w.port.map_memory(MEMORY + page * PAGE_SIZE as u64);
        }
        w.launch_key(&Signer::A);
        w
    }

    /// A machine with the enclave, not initialized.
    pub fn build() -> World {
        World::build_from(World::new(), &secs())
    }

    /// The same in a machine, from a SECS.
    pub fn build_from(mut w: World, secs: &Secs) -> World {
        assert_eq!(w.ecreate(SECS, secs), Ok(Done::Quiet));
        w.add(TCS, BASE, flags(PageType::Tcs, R), tcs().as_bytes());
        w.add(DATA, BASE + 0x1000, flags(PageType::Reg, R | W), &content(DATA));
        w.add(CODE, BASE + 0x2000, flags(PageType::Reg, R | X), &content(CODE));
        for chunk in 0..16 {
            assert_eq!(w.encls(Encls::Eextend, la(SECS), la(CODE) + chunk * 256, 0), Ok(Done::Quiet));
        }
        w
    }

    /// A machine with the enclave, initialized.
    pub fn running() -> World {
        let mut w = World::build();
        w.init();
        w
    }

    /// Signs and initializes the enclave.
    pub fn init(&mut self) {
        self.sign(&Signer::A, |_| ());
        assert_eq!(self.encls(Encls::Einit, SIGSTRUCT, la(SECS), TOKEN), Ok(Done::Success));
    }

    /// Makes a signer the one of IA32_SGXLEPUBKEYHASH.
    pub fn launch_key(&self, signer: &Signer) {
        for (index, word) in signer.mrsigner().chunks_exact(8).enumerate() {
            self.package.set_launch_hash_msr(index, u64::from_le_bytes(word.try_into().unwrap()));
        }
    }

    /// ECREATE.
    pub fn ecreate(&mut self, page: EpcPage, secs: &Secs) -> Result<Done, Exception> {
        self.put(SOURCE, secs);
        self.put(SECINFO, &Secinfo::new(flags(PageType::Secs, SecinfoFlags::empty())));
        self.put(PAGEINFO, &Pageinfo { linaddr: 0, srcpge: SOURCE, secinfo: SECINFO, secs: 0 });
        self.encls(Encls::Ecreate, PAGEINFO, la(page), 0)
    }

    /// EADD of a page of the enclave, which must succeed.
    pub fn add(&mut self, page: EpcPage, address: u64, secinfo: SecinfoFlags, content: &[u8]) {
        self.prepare_eadd(page, address, secinfo, content);
        assert_eq!(self.execute(Encls::Eadd), Ok(Done::Quiet), "EADD at {address:#x}");
    }

    /// The operands of EADD.
    pub fn prepare_eadd(&mut self, page: EpcPage, address: u64, secinfo: SecinfoFlags, content: &[u8]) {
        self.port.poke(SOURCE, content);
        self.put(SECINFO, &Secinfo::new(secinfo));
        let info = Pageinfo { linaddr: address, srcpge: SOURCE, secinfo: SECINFO, secs: la(SECS) };
        self.put(PAGEINFO, &info);
        self.operands(PAGEINFO, la(page), 0);
    }

    /// EAUG of a page of the enclave, which must succeed.
    pub fn aug(&mut self, page: EpcPage, address: u64) {
        self.put(PAGEINFO, &Pageinfo { linaddr: address, secs: la(SECS), ..Pageinfo::default() });
        assert_eq!(self.encls(Encls::Eaug, PAGEINFO, la(page), 0), Ok(Done::Quiet));
    }

    /// The SIGSTRUCT that fits the enclave; it demands every attribute.
    pub fn sigstruct(&self) -> Sigstruct {
        let secs: Secs = self.secs_page();
        Sigstruct {
            enclavehash: Measurement::load(&secs.private).finish(),
            attributes: secs.attributes,
            attributemask: !Attributes::default(),
            miscselect: MiscSelect::from_bits_retain(secs.miscselect.bits()),
            miscmask: u32::MAX,
            isvprodid: 0x1234,
            isvsvn: 0x5678,
            ..Signer::blank()
        }
    }

    /// Puts a SIGSTRUCT that fits, but for a change, at [`SIGSTRUCT`], signed.
    pub fn sign(&mut self, signer: &Signer, change: impl FnOnce(&mut Sigstruct)) {
        let mut sig = self.sigstruct();
        change(&mut sig);
        // Most tests sign the same: what was signed, and the result.
        type Signed = (Vec<u8>, Sigstruct);
        static LAST: OnceLock<Mutex<Vec<Signed>>> = OnceLock::new();
        let key = [&signer.mrsigner(), sig.as_bytes()].concat();
        let mut last = LAST.get_or_init(Mutex::default).lock().unwrap();
        let known = last.iter().find(|l| l.0 == key).map(|l| l.1.clone());
        let signed = known.unwrap_or_else(|| {
            signer.sign(&mut sig);
            last.push((key, sig.clone()));
            sig
        });
        self.put(SIGSTRUCT, &signed);
    }

    /// Puts a token of a launch enclave signed by B, which becomes the launch key, at
    /// [`TOKEN`]; it fits but for a change, and its MAC is right.
    pub fn token(&mut self, change: impl FnOnce(&mut Einittoken)) {
        self.launch_key(&Signer::B);
        let mut token = Einittoken {
            valid: 1,
            attributes: self.secs_page().attributes,
            mrenclave: self.sigstruct().enclavehash,
            mrsigner: Signer::A.mrsigner(),
            cpusvnle: roots().cpusvn(),
            isvprodidle: 20,
            isvsvnle: 3,
            maskedattributesle: Attributes { flags: AttributeFlags::EINITTOKEN_KEY, xfrm: 0 },
            keyid: [0x1d; 32],
            ..Einittoken::default()
        };
        change(&mut token);
        let key = keys::einittoken_key(&roots(), &token, &Signer::B.mrsigner());
        if let Ok(key) = key {
            token.mac = keys::cmac(&key, token.mac_data());
        }
        self.put(TOKEN, &token);
    }

    /// Writes a structure to ordinary memory.
    pub fn put<T: IntoBytes + Immutable>(&mut self, la: u64, value: &T) {
        self.port.poke(la, value.as_bytes());
    }
    /// Changes a structure in ordinary memory.
    pub fn change<T: FromBytes + IntoBytes + Immutable>(&mut self, la: u64, change: impl FnOnce(&mut T)) {
        let mut value = T::read_from_bytes(&self.port.peek(la, size_of::<T>())).unwrap();
        change(&mut value);
        self.put(la, &value);
    }
    pub fn pageinfo(&mut self, change: impl FnOnce(&mut Pageinfo)) {
        self.change(PAGEINFO, change);
    }
    pub fn secinfo(&mut self, change: impl FnOnce(&mut Secinfo)) {
        self.change(SECINFO, change);
    }
    pub fn entry(&mut self, page: EpcPage, change: impl FnOnce(&mut Entry)) {
        self.package.epcm.update(page, change);
    }
    pub fn read<T: FromBytes + IntoBytes>(&self, page: EpcPage, offset: usize) -> T {
        self.package.read(page, offset).unwrap()
    }
    pub fn secs_page(&self) -> Secs {
        self.read(SECS, 0)
    }
    /// Changes the SECS page behind the processor's back.
    pub fn set_secs(&mut self, change: impl FnOnce(&mut Secs)) {
        let mut secs = self.secs_page();
        change(&mut secs);
        self.package.write(SECS, 0, &secs).unwrap();
    }
    /// Children of the enclave.
    pub fn children(&self) -> u64 {
        self.package.enclaves.get(SECS).unwrap().with(|s| s.children)
    }
    /// A processor enters the enclave; the epoch it belongs to.
    pub fn someone_enters(&self) -> u64 {
        self.package.enclaves.get(SECS).unwrap().with(|s| s.tracking.enter())
    }

    pub fn operands(&mut self, rbx: u64, rcx: u64, rdx: u64) {
        self.port.gpr[gpr::RBX] = rbx;
        self.port.gpr[gpr::RCX] = rcx;
        self.port.gpr[gpr::RDX] = rdx;
    }

    /// Executes an ENCLS leaf.
    pub fn encls(&mut self, leaf: Encls, rbx: u64, rcx: u64, rdx: u64) -> Result<Done, Exception> {
        self.operands(rbx, rcx, rdx);
        self.execute(leaf)
    }

    /// Executes an ENCLS leaf with RBX, RCX and RDX as they are.
    pub fn execute(&mut self, leaf: Encls) -> Result<Done, Exception> {
        self.port.gpr[gpr::RAX] = leaf as u64;
        let held = self.held.map(|(page, lane, mode)| self.package.claims.claim(page, lane, mode).unwrap());
        let done = sgx::encls::execute(&mut Leaf { port: &mut self.port, package: &self.package });
        drop(held);
        done
    }

    pub fn snapshot(&self) -> Snapshot {
        let enclaves = self.package.enclaves.all();
        let enclave = |e: &Arc<sgx::enclave::Enclave>| {
            e.with(|s| (e.secs, s.children, s.tracking.inside(), s.tracking.epoch()))
        };
        Snapshot {
            entries: self.package.epcm.valid().collect(),
            enclaves: enclaves.iter().map(enclave).collect(),
            content: (0..PAGES).map(|p| self.read(EpcPage(p), 0)).collect(),
            memory: self.port.memory.clone(),
            gpr: std::array::from_fn(|i| self.port.gpr[i + 1]),
            rflags: self.port.rflags & !rflags::STATUS,
        }
    }
}

/// A row of a leaf's table, and what breaks it in a machine where the leaf would succeed.
pub type Case = (&'static Rule, fn(&mut World));

/// Runs all cases of a leaf: each is stopped by its row, with the row's outcome, and
/// changes nothing. Every row of the table needs a case.
pub fn run_cases(leaf: Encls, rules: &[&'static Rule], make: fn() -> World, cases: &[Case]) {
    let mut w = make();
    w.port.rflags |= rflags::STATUS;
    let done = w.execute(leaf).unwrap_or_else(|e| panic!("{leaf} fails unprovoked: {e:?}"));
    match done {
        Done::Quiet => assert_eq!(w.port.rflags & rflags::STATUS, rflags::STATUS),
        Done::Success => assert_eq!((w.port.gpr[gpr::RAX], w.port.rflags & rflags::STATUS), (0, 0)),
        done => panic!("{leaf} fails unprovoked: {done:?}"),
    }
    for (rule, break_it) in cases {
        let mut w = make();
        break_it(&mut w);
        w.port.rflags |= rflags::STATUS;
        let before = w.snapshot();
        let stopped: Arc<Mutex<Option<&'static Rule>>> = Arc::default();
        let seen = stopped.clone();
        w.package.trace.set_sink(Some(Box::new(move |r| *seen.lock().unwrap() = r.rule)));
        let done = w.execute(leaf);
        let by = stopped.lock().unwrap().map(|r| r.name);
        assert_eq!(by, Some(rule.name), "{leaf}: {}: {done:?}", rule.text);
        let outcome = (w.port.gpr[gpr::RAX], w.port.rflags & rflags::STATUS);
        match (rule.outcome, done) {
            (Outcome::Gp, Err(e)) => {
                assert_eq!((e.vector, e.error), (Vector::GeneralProtection, 0));
                assert_eq!(outcome, (leaf as u64, rflags::STATUS), "{}", rule.name);
            }
            (Outcome::Pf, Err(e)) => {
                let at = w.port.map.get(&(w.port.fault_address >> 12));
                let epc = matches!(at, Some(Mapping::Epc(_)));
                let sgx = if epc { 1 << 15 } else { 0 };
                assert_eq!((e.vector, e.error & !2), (Vector::PageFault, 1 | sgx), "{}", rule.name);
                assert_eq!(outcome, (leaf as u64, rflags::STATUS), "{}", rule.name);
            }
            (Outcome::Status(status), Ok(Done::Code(_, _))) => {
                assert_eq!(outcome, (status.rax(), rflags::ZF), "{}", rule.name);
            }
            (Outcome::Carry(status), Ok(Done::Code(_, _))) => {
                assert_eq!(outcome, (status.rax(), rflags::CF), "{}", rule.name);
            }
            (outcome, done) => panic!("{leaf}: {}: {outcome:?} and {done:?}", rule.name),
        }
        assert!(w.snapshot() == before, "{leaf}: {} changed something", rule.name);
    }
    let left: Vec<_> =
        rules.iter().filter(|r| !cases.iter().any(|c| std::ptr::eq(c.0, **r))).map(|r| r.name).collect();
    println!("{leaf}: {} rules, {} cases, without a case: {left:?}", rules.len(), cases.len());
    assert!(left.is_empty(), "{leaf}: rows without a case: {left:?}");
}

/// Operands whose access faults as any: each of `offsets` is where the leaf is told of an
/// address; with one that does not exist the leaf gives `#GP(0)`, with one that is not
/// mapped `#PF` there, without the SGX bit, and nothing changes.
pub fn run_addresses(leaf: Encls, make: fn() -> World, set: &[fn(&mut World, u64)]) {
    for (index, set) in set.iter().enumerate() {
        for (address, vector) in [(NONCANONICAL, Vector::GeneralProtection), (NOWHERE, Vector::PageFault)] {
            let mut w = make();
            set(&mut w, address);
            let before = w.snapshot();
            let fault = w.execute(leaf).unwrap_err();
            assert_eq!(fault.vector, vector, "{leaf}: operand {index} at {address:#x}");
            if vector == Vector::PageFault {
                assert_eq!((w.port.fault_address, fault.error & !2), (address, 0), "{leaf}: operand {index}");
            }
            assert!(w.snapshot() == before, "{leaf}: operand {index} at {address:#x} changed something");
        }
    }
}
