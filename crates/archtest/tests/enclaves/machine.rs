//! A [`World`] with an enclave page cache, and a system in it that makes enclaves.
//!
//! A processor's host program is ENCLU and UD2 at [`host`]; asynchronous exits
//! go to the same two instructions at [`aep`]. Handlers wait in HLT, and IRET after it.

use std::collections::HashMap;
use std::sync::Arc;

use arch::paging::pte;
use arch::regs::{Cr4, Xcr0, gpr};
use archtest::{CODE, EPC, EPC_END, Ended, STACK, STUBS, TSS, USER_STACK, World};
use cpu::{Activity, Engine};
use sgx::measure::Measurement;
use sgx::sigstruct::signer::Signer;
use sgx::{EpcPage, Package};
use sgx_abi::{
    AttributeFlags, Attributes, Einittoken, Encls, Enclu, PAGE_SIZE, PageType, Pageinfo, Secinfo,
    SecinfoFlags, Secs, Sigstruct, Tcs,
};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) use sgx::keys::Roots;

/// First linear address of the first enclave, and bytes of each.
const ELRANGE: u64 = 0x100_0000;
const SIZE: u64 = 0x10_0000;
/// The page table of that address and the 2 MiB from it.
const ENCLAVE_PT: u64 = 0x1_0000;
/// Operands of ENCLS: 32 KiB for each processor.
const OPERANDS: u64 = 0x60_0000;
/// XFRM of all enclaves.
const XFRM: u64 = 3;
const REG: SecinfoFlags = SecinfoFlags::from_bits_retain((PageType::Reg as u64) << 8);
const ENCLU: [u8; 5] = [0x0f, 0x01, 0xd7, 0x0f, 0x0b]; // and UD2
const ENCLS: [u8; 4] = [0x0f, 0x01, 0xcf, 0xf4]; // and HLT
const WRMSR: [u8; 3] = [0x0f, 0x30, 0xf4]; // and HLT

/// Rights of pages.
pub(crate) const RX: SecinfoFlags = SecinfoFlags::R.union(SecinfoFlags::X);
pub(crate) const RW: SecinfoFlags = SecinfoFlags::R.union(SecinfoFlags::W);

/// Offsets in enclaves of [`Machine::standard`]: code, data, TCS, two SSA frames.
pub(crate) mod at {
    pub(crate) const DATA: u64 = 0x1000;
    pub(crate) const TCS: u64 = 0x2000;
    pub(crate) const SSA: u64 = 0x3000;
}

/// Where a processor's host program enters enclaves.
pub(crate) fn host(id: usize) -> u64 {
    CODE + id as u64 * 0x1_0000
}

/// Its asynchronous exit pointer.
pub(crate) fn aep(id: usize) -> u64 {
    host(id) + 0x100
}

pub(crate) fn kernel(id: usize) -> u64 {
    host(id) + 0x800
}

/// The keys that a processor is made with.
pub(crate) fn roots(owner: u8) -> Roots {
    Roots {
        seal_fuses: [1; 16],
        provisioning_fuses: [2; 16],
        owner_epoch: [owner; 16],
        cpusvn: 4,
        svn_secret: [5; 32],
    }
}

/// An enclave.
pub(crate) struct Enclave {
    pub(crate) base: u64,
    pub(crate) secs: EpcPage,
    pub(crate) attributes: Attributes,
    measurement: Measurement,
    pages: HashMap<u64, EpcPage>,
}

impl Enclave {
    /// Linear address.
    pub(crate) fn la(&self, offset: u64) -> u64 {
        self.base + offset
    }

    /// The EPC page at an offset.
    pub(crate) fn page(&self, offset: u64) -> EpcPage {
        self.pages[&offset]
    }

    /// Its SIGSTRUCT, by a test signer.
    pub(crate) fn sign(&self, signer: &Signer) -> Sigstruct {
        let mut sig = Signer::blank();
        sig.enclavehash = self.mrenclave();
        sig.attributes = self.attributes;
        sig.attributemask = Attributes { flags: AttributeFlags::all(), xfrm: u64::MAX };
        (sig.isvprodid, sig.isvsvn) = (7, 3);
        signer.sign(&mut sig);
        sig
    }

    /// MRENCLAVE.
    pub(crate) fn mrenclave(&self) -> [u8; 32] {
        self.measurement.clone().finish()
    }
}

/// What a host program has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The enclave has exited by EEXIT to the instruction after EENTER.
    Back,
    /// An event has taken the processor out of its enclave to the handler of this vector.
    Aex(u8),
    /// The ENCLU at the host's entry or at the AEP has faulted.
    Fault(u8),
    /// Instructions are used up; true: inside the enclave.
    Budget(bool),
}

/// The machine.
pub(crate) struct Machine {
    pub(crate) w: World,
    pub(crate) package: Arc<Package>,
    free: u32,
    enclaves: u64,
}

impl Machine {
    pub(crate) fn new(processors: usize, roots: Roots) -> Machine {
        let mut w = World::with_cpus(&vec![&ENCLU[..]; processors]);
        let flags = pte::P | pte::W;
        w.write64(0xa000 + (EPC >> 21) * 8, EPC | flags | pte::PS);
        w.write64(0xa000 + (ELRANGE >> 21) * 8, ENCLAVE_PT | flags | pte::U);
        for vector in 0..32u64 {
            let stub: &[u8] = match has_error_code(vector as u8) {
                true => &[0xf4, 0x48, 0x83, 0xc4, 8, 0x48, 0xcf], // hlt; add rsp, 8; iretq
                false => &[0xf4, 0x48, 0xcf],
            };
            w.write(STUBS + vector * 16, stub);
        }
        let pages = ((EPC_END - EPC) / PAGE_SIZE as u64) as u32;
        let model = w.cpu().model.clone();
        let dram = mee::Dram::new(pages, mee::Config::new(pages, processors)).unwrap();
        let package = Arc::new(Package::new(model.sgx(), dram, roots).unwrap());
        for id in 0..processors {
            w.write(aep(id), &ENCLU);
            w.write(kernel(id), &ENCLS);
            w.write(kernel(id) + 16, &WRMSR);
            w.write64(TSS + 0x80 * id as u64 + 4, STACK - 0x1000 * id as u64);
            w.engines[id].cpu.set_sgx(package.clone(), EPC);
        }
        let mut machine = Machine { w, package, free: 0, enclaves: 0 };
        machine.launch_key(&Signer::A);
        machine
    }

    fn system(&mut self, id: usize, rip: u64, registers: &[(usize, u64)]) -> Ended {
        system_on(&mut self.w.engines[id], id, rip, registers)
    }

    /// WRMSR.
    pub(crate) fn wrmsr(&mut self, id: usize, number: u64, value: u64) {
        let registers = [(gpr::RCX, number), (gpr::RAX, value & 0xffff_ffff), (gpr::RDX, value >> 32)];
        assert_eq!(self.system(id, kernel(id) + 16, &registers), Ended::Halt, "WRMSR {number:#x}");
    }

    /// Makes a signer the one of IA32_SGXLEPUBKEYHASH.
    pub(crate) fn launch_key(&mut self, signer: &Signer) {
        self.launch_hash(&signer.mrsigner());
    }

    /// Sets IA32_SGXLEPUBKEYHASH.
    pub(crate) fn launch_hash(&mut self, hash: &[u8; 32]) {
        for (number, word) in (0x8c..).zip(hash.chunks_exact(8)) {
            self.wrmsr(0, number, u64::from_le_bytes(word.try_into().unwrap()));
        }
    }

    /// Executes an ENCLS leaf: RAX.
    pub(crate) fn encls(&mut self, id: usize, leaf: Encls, rbx: u64, rcx: u64, rdx: u64) -> u64 {
        encls_on(&mut self.w.engines[id], id, leaf, rbx, rcx, rdx)
            .unwrap_or_else(|vector| panic!("{leaf} ends in vector {vector}"))
    }

    /// Linear address of an EPC page for the system.
    pub(crate) fn epc(page: EpcPage) -> u64 {
        EPC + u64::from(page.0) * PAGE_SIZE as u64
    }

    /// Takes an EPC page that nothing uses.
    pub(crate) fn allocate(&mut self) -> EpcPage {
        self.free += 1;
        EpcPage(self.free - 1)
    }

    /// Address of operand `n`, each a page, of a processor's ENCLS.
    pub(crate) fn operand(id: usize, n: u64) -> u64 {
        OPERANDS + 0x8000 * id as u64 + n * 0x1000
    }

    fn pageinfo(&mut self, linaddr: u64, secs: u64, secinfo: SecinfoFlags, source: &[u8]) -> u64 {
        let [info, second, srcpge] = [0, 1, 2].map(|n| Self::operand(0, n));
        let mut content = source.to_vec();
        content.resize(PAGE_SIZE, 0);
        self.w.write(srcpge, &content);
        self.w.write(second, Secinfo::new(secinfo).as_bytes());
        self.w.write(info, Pageinfo { linaddr, srcpge, secinfo: second, secs }.as_bytes());
        info
    }

    /// A SECINFO among the operands of the first processor.
    pub(crate) fn secinfo(&mut self, flags: SecinfoFlags) -> u64 {
        let at = Self::operand(0, 1);
        self.w.write(at, Secinfo::new(flags).as_bytes());
        at
    }

    /// ECREATE, with an enclave of its own address.
    pub(crate) fn create(&mut self, flags: AttributeFlags) -> Enclave {
        let base = ELRANGE + self.enclaves * SIZE;
        self.enclaves += 1;
        assert!(self.enclaves <= 2, "one page table holds two");
        let attributes = Attributes { flags: flags | AttributeFlags::MODE64BIT, xfrm: XFRM };
        let content = Secs { size: SIZE, baseaddr: base, ssaframesize: 1, attributes, ..Secs::default() };
        let secs = self.allocate();
        let info = self.pageinfo(0, 0, SecinfoFlags::empty(), content.as_bytes());
        self.encls(0, Encls::Ecreate, info, Self::epc(secs), 0);
        let measurement = Measurement::ecreate(1, SIZE);
        Enclave { base, secs, attributes, measurement, pages: HashMap::new() }
    }

    /// EADD and EEXTEND of a whole page, and its mapping.
    pub(crate) fn add(&mut self, enclave: &mut Enclave, offset: u64, flags: SecinfoFlags, content: &[u8]) {
        let page = self.allocate();
        let info = self.pageinfo(enclave.la(offset), Self::epc(enclave.secs), flags, content);
        self.encls(0, Encls::Eadd, info, Self::epc(page), 0);
        enclave.measurement.eadd(offset, &Secinfo::new(flags));
        let mut content = content.to_vec();
        content.resize(PAGE_SIZE, 0);
        for (n, chunk) in content.chunks_exact(256).enumerate() {
            let at = n as u64 * 256;
            self.encls(0, Encls::Eextend, Self::epc(enclave.secs), Self::epc(page) + at, 0);
            enclave.measurement.eextend(offset + at, chunk.try_into().unwrap());
        }
        enclave.pages.insert(offset, page);
        self.map(enclave.la(offset), Some(page));
    }

    /// Maps an enclave's page for user mode, or takes it away.
    pub(crate) fn map(&mut self, la: u64, page: Option<EpcPage>) {
        let entry = page.map_or(0, |page| Self::epc(page) | pte::P | pte::W | pte::U);
        self.w.write64(ENCLAVE_PT + (la >> 12 & 0x1ff) * 8, entry);
    }

    /// An enclave of code, data, a TCS and two SSA frames; not initialized.
    pub(crate) fn standard(
        &mut self,
        flags: AttributeFlags,
        code: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut Tcs),
    ) -> Enclave {
        let mut enclave = self.create(flags);
        let mut tcs = Tcs { ossa: at::SSA, nssa: 2, ..Tcs::default() };
        change(&mut tcs);
        self.add(&mut enclave, 0, REG | RX, code);
        self.add(&mut enclave, at::DATA, REG | RW, data);
        let kind = SecinfoFlags::from_bits_retain((PageType::Tcs as u64) << 8);
        self.add(&mut enclave, at::TCS, kind, tcs.as_bytes());
        self.add(&mut enclave, at::SSA, REG | RW, &[]);
        self.add(&mut enclave, at::SSA + 0x1000, REG | RW, &[]);
        enclave
    }

    /// EINIT: RAX.
    pub(crate) fn init(&mut self, enclave: &Enclave, sig: &Sigstruct, token: &Einittoken) -> u64 {
        let [sig_at, token_at] = [3, 4].map(|n| Self::operand(0, n));
        self.w.write(sig_at, sig.as_bytes());
        self.w.write(token_at, token.as_bytes());
        self.encls(0, Encls::Einit, sig_at, Self::epc(enclave.secs), token_at)
    }

    /// Reads a structure in an enclave, past its encryption.
    pub(crate) fn inside<T: FromBytes + IntoBytes>(&self, enclave: &Enclave, offset: u64) -> T {
        self.package.read(enclave.page(offset & !0xfff), offset as usize & 0xfff).unwrap()
    }

    /// Puts a processor before EENTER.
    pub(crate) fn enter(&mut self, id: usize, tcs: u64, registers: &[(usize, u64)]) {
        processor(&mut self.w.engines[id], id, host(id));
        let cpu = &mut self.w.engines[id].cpu;
        archtest::user(cpu, 64);
        for number in 0..16 {
            if number != gpr::RSP {
                cpu.s.regs.set(number, 0);
            }
        }
        let entry = [
            (gpr::RSP, user_stack(id)),
            (gpr::RAX, Enclu::Eenter as u64),
            (gpr::RBX, tcs),
            (gpr::RCX, aep(id)),
        ];
        entry.iter().chain(registers).for_each(|&(register, value)| cpu.s.regs.set(register, value));
    }

    /// Runs a host program; one whose handler waits returns from it.
    pub(crate) fn run(&mut self, id: usize, budget: u64) -> Seen {
        let exits = self.exits();
        let engine = &mut self.w.engines[id];
        engine.cpu.activity = Activity::Active;
        let vector = match World::run_engine(engine, budget) {
            Ended::Vector(vector) => vector,
            Ended::Budget => return Seen::Budget(engine.cpu.s.enclave.is_some()),
            other => panic!("{other:?}"),
        };
        assert!(engine.cpu.s.enclave.is_none(), "no handler runs in an enclave");
        let error = u64::from(has_error_code(vector));
        assert_eq!(self.frame(id, error + 1) & 3, 3, "the system itself faults");
        match self.frame(id, error) {
            rip if [host(id) + 3, aep(id) + 3].contains(&rip) && vector == 6 => Seen::Back,
            // a fault of ENCLU at the AEP looks the same but for this
            rip if rip == aep(id) && self.exits() != exits => Seen::Aex(vector),
            rip if [host(id), aep(id)].contains(&rip) => Seen::Fault(vector),
            rip => panic!("vector {vector} at {rip:#x}"),
        }
    }

    /// Asynchronous exits so far.
    fn exits(&self) -> u64 {
        let counters = self.package.trace.counters();
        counters.exits.iter().map(|&(_, n)| n).sum::<u64>() + counters.interrupts
    }

    /// Quadword `n` of the frame on a processor's stack.
    pub(crate) fn frame(&self, id: usize, n: u64) -> u64 {
        self.w.read64(self.w.engines[id].cpu.s.regs.get(gpr::RSP) + 8 * n)
    }

    /// A register.
    pub(crate) fn register(&self, id: usize, number: usize) -> u64 {
        self.w.engines[id].cpu.s.regs.get(number)
    }
}

/// Puts a processor into the system, at `rip`.
fn processor(engine: &mut Engine, id: usize, rip: u64) {
    let cpu = &mut engine.cpu;
    assert!(cpu.s.enclave.is_none(), "system code runs outside enclaves");
    archtest::supervisor(cpu, rip, STACK - 0x1000 * id as u64);
    cpu.s.tr.base = TSS + 0x80 * id as u64;
    cpu.s.cr4 |= Cr4::OSXSAVE;
    cpu.s.xcr0 = Xcr0::X87 | Xcr0::SSE;
    cpu.activity = Activity::Active;
    cpu.state_changed();
}

/// Runs code of the system that ends in HLT, on processor `id`.
pub(crate) fn system_on(engine: &mut Engine, id: usize, rip: u64, registers: &[(usize, u64)]) -> Ended {
    processor(engine, id, rip);
    registers.iter().for_each(|&(register, value)| engine.cpu.s.regs.set(register, value));
    World::run_engine(engine, 100_000)
}

/// Executes an ENCLS leaf: RAX, or the vector of its exception.
pub(crate) fn encls_on(
    engine: &mut Engine,
    id: usize,
    leaf: Encls,
    rbx: u64,
    rcx: u64,
    rdx: u64,
) -> Result<u64, u8> {
    let registers = [(gpr::RAX, leaf as u64), (gpr::RBX, rbx), (gpr::RCX, rcx), (gpr::RDX, rdx)];
    match system_on(engine, id, kernel(id), &registers) {
        Ended::Halt => Ok(engine.cpu.s.regs.get(gpr::RAX)),
        Ended::Vector(vector) => Err(vector),
        other => panic!("{leaf}: {other:?}"),
    }
}

fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17)
}

/// Top of the stack of a processor's host program.
pub(crate) fn user_stack(id: usize) -> u64 {
    USER_STACK - 0x1000 * id as u64
}
