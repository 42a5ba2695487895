//! Leaves of several processors at once: tracking of threads inside while a page
//! is evicted, and who may work on a page.

use std::sync::atomic::{AtomicBool, Ordering};

use arch::paging::pf;
use arch::regs::gpr;
use archtest::{Ended, World, guest, sdm};
use cpu::{Activity, Engine};
use mem::Ram;
use sgx::EpcPage;
use sgx::sigstruct::signer::Signer;
use sgx_abi::{AttributeFlags, Einittoken, Encls, PageType, Pageinfo, SecinfoFlags, Status};
use zerocopy::IntoBytes;

use crate::machine::{self, Enclave, Machine, Seen, aep, at, host, roots};

// Counts in the page at 5000h and in R13 until the word at RDI, outside, is set;
// R13 then goes to the data page.
guest!(
    counter,
    "lea r14, [rip + 771b + 0x5000]",
    "xor r13d, r13d",
    "31: inc qword ptr [r14]",
    "inc r13",
    "cmp qword ptr [rdi], 0",
    "je 31b",
    "mov [rip + 771b + 0x1000], r13",
    "mov rbx, rcx",
    "mov eax, 4", // EEXIT
    "enclu",
);
// Enables the x2APIC and sends an NMI to processor 0.
guest!(
    send_nmi,
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "xor edx, edx",
    "mov ecx, 0x80f",
    "mov eax, 0x1ff",
    "wrmsr",
    "mov ecx, 0x830",
    "mov eax, 0x400",
    "wrmsr",
    "hlt",
);

const PAGE: u64 = 0x5000;
const STOP: u64 = archtest::DATA;
const NMI: u8 = 2;

/// Two processors; the first runs the counter.
fn counting() -> (Machine, Enclave) {
    let mut m = Machine::new(2, roots(3));
    m.w.write(SEND_NMI, send_nmi());
    let mut e = m.standard(AttributeFlags::empty(), counter(), &[], |_| ());
    let kind = SecinfoFlags::new(PageType::Reg, machine::RW);
    m.add(&mut e, PAGE, kind, &[]);
    let sig = e.sign(&Signer::A);
    assert_eq!(m.init(&e, &sig, &Einittoken::default()), 0);
    m.enter(0, e.la(at::TCS), &[(gpr::RDI, STOP)]);
    (m, e)
}

/// Where the second processor's system has [`send_nmi`].
const SEND_NMI: u64 = archtest::CODE + 0x1_0900;

/// Evicts and reloads a page on the second processor.
struct Pager<'a> {
    engine: &'a mut Engine,
    ram: Ram,
    secs: u64,
    slot: u64,
}

impl Pager<'_> {
    fn encls(&mut self, leaf: Encls, rbx: u64, rcx: u64, rdx: u64) -> Result<u64, u8> {
        machine::encls_on(self.engine, 1, leaf, rbx, rcx, rdx)
    }

    fn block(&mut self, page: EpcPage) -> Result<u64, u8> {
        self.encls(Encls::Eblock, 0, Machine::epc(page), 0)
    }

    fn track(&mut self) -> Result<u64, u8> {
        self.encls(Encls::Etrack, 0, self.secs, 0)
    }

    fn info(&self, linaddr: u64, secs: u64) -> u64 {
        let [info, pcmd, srcpge] = [0, 1, 2].map(|n| Machine::operand(1, n));
        let pageinfo = Pageinfo { linaddr, srcpge, secinfo: pcmd, secs };
        assert!(self.ram.write(info, pageinfo.as_bytes()));
        info
    }

    fn evict(&mut self, page: EpcPage) -> Result<u64, u8> {
        let info = self.info(0, 0);
        self.encls(Encls::Ewb, info, Machine::epc(page), self.slot)
    }

    fn reload(&mut self, la: u64, page: EpcPage) -> Result<u64, u8> {
        let info = self.info(la, self.secs);
        self.encls(Encls::Eldu, info, Machine::epc(page), self.slot)
    }

    fn interrupt(&mut self) {
        assert_eq!(machine::system_on(self.engine, 1, SEND_NMI, &[]), Ended::Halt);
    }
}

/// The second processor, with a version array; the first stays with the machine.
fn pager<'a>(m: &mut Machine, e: &Enclave, engine: &'a mut Engine) -> Pager<'a> {
    let va = m.allocate();
    let mut pager =
        Pager { engine, ram: m.w.ram.clone(), secs: Machine::epc(e.secs), slot: Machine::epc(va) };
    // EPA leaves RAX alone
    let epa = Encls::Epa as u64;
    assert_eq!(pager.encls(Encls::Epa, PageType::Va as u64, Machine::epc(va), 0), Ok(epa));
    pager
}

fn status(status: Status) -> Result<u64, u8> {
    Ok(status as u64)
}

#[test]
fn a_page_goes_when_no_thread_can_hold_its_translation() {
    sdm("vol. 3D, EBLOCK, ETRACK, EWB; \"EPC Management\", eviction");
    let (mut m, e) = counting();
    let mut second = m.w.engines.pop().unwrap();
    let mut pager = pager(&mut m, &e, &mut second);
    let page = e.page(PAGE);
    assert_eq!(m.run(0, 5000), Seen::Budget(true));

    assert_eq!(pager.evict(page), status(Status::PageNotBlocked));
    assert_eq!(pager.block(page), Ok(0));
    assert_eq!(pager.block(page), status(Status::Blkstate));
    assert_eq!(pager.evict(page), status(Status::NotTracked), "no cycle has begun");
    assert_eq!(pager.track(), Ok(0));
    assert_eq!(pager.evict(page), status(Status::NotTracked), "a thread is inside");
    assert_eq!(pager.track(), status(Status::PrevTrkIncmpl));
    // The same after a while: only leaving counts.
    m.map(e.la(PAGE), None);
    m.run(0, 2);
    assert_eq!(pager.evict(page), status(Status::NotTracked));
    pager.interrupt();
    assert_eq!(m.run(0, 5000), Seen::Aex(NMI));
    let counted: u64 = m.inside(&e, PAGE);
    assert!(counted > 100);
    assert_eq!(pager.evict(page), Ok(0));
    assert_eq!(pager.track(), Ok(0), "the cycle is over");

    // The thread comes back and misses its page, which comes back elsewhere.
    assert_eq!(m.run(0, 5000), Seen::Aex(14));
    assert_eq!(m.frame(0, 0) as u32, pf::U | pf::W);
    assert_eq!(m.w.cpu().s.cr2, e.la(PAGE));
    let elsewhere = m.allocate();
    assert_eq!(pager.reload(e.la(PAGE), elsewhere), Ok(0));
    m.map(e.la(PAGE), Some(elsewhere));
    assert_eq!(m.run(0, 5000), Seen::Budget(true));
    m.w.write64(STOP, 1);
    assert_eq!(m.run(0, 5000), Seen::Back);
    let now: u64 = m.package.read(elsewhere, 0).unwrap();
    assert!(now > counted);
    assert_eq!(now, m.inside::<u64>(&e, at::DATA), "no count is lost");
}

/// A thread that enters after ETRACK is no concern of that cycle.
#[test]
fn later_threads_do_not_delay_a_cycle() {
    let (mut m, e) = counting();
    let mut second = m.w.engines.pop().unwrap();
    let mut pager = pager(&mut m, &e, &mut second);
    let page = e.page(PAGE);
    assert_eq!((pager.block(page), pager.track()), (Ok(0), Ok(0)));
    m.map(e.la(PAGE), None);
    assert_eq!(m.run(0, 5000), Seen::Aex(14));
    // It may resume and fault again meanwhile; then a page is mapped that it does not wait for.
    assert_eq!(m.run(0, 5000), Seen::Aex(14));
    assert_eq!(pager.evict(page), Ok(0));
    // And of a blocked page it gets no new translation.
    assert_eq!(pager.reload(e.la(PAGE), page), Ok(0));
    assert_eq!(pager.block(page), Ok(0));
    m.map(e.la(PAGE), Some(page));
    assert_eq!(m.run(0, 5000), Seen::Aex(14));
    assert_eq!(m.frame(0, 0) as u32, pf::P | pf::U | pf::W | pf::SGX);
}

/// Runs the first processor's program to its end, whatever interrupts it.
fn to_the_end(engine: &mut Engine, ram: &Ram) {
    for _ in 0..10_000_000 {
        engine.cpu.activity = Activity::Active;
        let Ended::Vector(vector) = World::run_engine(engine, 20_000) else { continue };
        let mut rip = [0; 8];
        assert!(ram.read(engine.cpu.s.regs.get(gpr::RSP), &mut rip));
        let rip = u64::from_le_bytes(rip);
        match vector {
            6 if [host(0) + 3, aep(0) + 3].contains(&rip) => return,
            NMI => {}
            14 => std::thread::yield_now(),
            _ => panic!("vector {vector} at {rip:#x}"),
        }
    }
    panic!("the program does not end");
}

#[test]
fn pages_come_and_go_while_a_thread_uses_them() {
    const ROUNDS: u64 = 300;
    let (mut m, e) = counting();
    let mut second = m.w.engines.pop().unwrap();
    let mut first = m.w.engines.pop().unwrap();
    let mut pages = [e.page(PAGE), m.allocate()];
    let mut pager = pager(&mut m, &e, &mut second);
    let ram = m.w.ram.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| to_the_end(&mut first, &ram));
        for _ in 0..ROUNDS {
            let [from, to] = pages;
            assert_eq!(pager.block(from), Ok(0));
            m.map(e.la(PAGE), None);
            assert_eq!(pager.track(), Ok(0));
            loop {
                match pager.evict(from) {
                    Ok(0) => break,
                    // a leaf of the other processor's has the page in hand: as #GP
                    Err(13) => {}
                    other => assert_eq!(other, status(Status::NotTracked)),
                }
                pager.interrupt();
                std::thread::yield_now();
            }
            assert_eq!(pager.reload(e.la(PAGE), to), Ok(0));
            m.map(e.la(PAGE), Some(to));
            pages = [to, from];
        }
        m.w.write64(STOP, 1);
    });
    let counted: u64 = m.package.read(pages[0], 0).unwrap();
    assert_eq!(counted, m.inside::<u64>(&e, at::DATA), "no count is lost");
}

/// Two systems at the same page: each leaf is done, or says that the other is there.
#[test]
fn conflicting_leaves_are_refused() {
    sdm("vol. 3D, EBLOCK, EMODPR: SGX_EPC_PAGE_CONFLICT; EWB, ELDU: #GP(0); concurrency tables");
    let (mut m, e) = counting();
    let page = e.page(PAGE);
    // Another processor in the middle of a leaf that has the page for itself.
    {
        use sgx::claim::{Lane, Mode};
        let secinfo = m.secinfo(SecinfoFlags::R);
        let mut second = m.w.engines.pop().unwrap();
        let mut pager = pager(&mut m, &e, &mut second);
        let claim = m.package.claims.claim(page, Lane::Base, Mode::Exclusive).unwrap();
        let conflict = status(Status::EpcPageConflict);
        assert_eq!(pager.block(page), conflict);
        assert_eq!(pager.encls(Encls::Emodpr, secinfo, Machine::epc(page), 0), Err(13));
        assert_eq!(pager.evict(page), Err(13));
        drop(claim);
        // In the middle of another SGX2 leaf.
        let claim = m.package.claims.claim(page, Lane::Modify, Mode::Exclusive).unwrap();
        assert_eq!(pager.encls(Encls::Emodpr, secinfo, Machine::epc(page), 0), conflict);
        drop(claim);
        assert_eq!(pager.encls(Encls::Emodpr, secinfo, Machine::epc(page), 0), Ok(0));
    }

    let (mut m, e) = counting();
    let page = e.page(PAGE);
    m.package.write(page, 0, &0x1234u64).unwrap();
    let mut second = m.w.engines.pop().unwrap();
    let mut first = m.w.engines.pop().unwrap();
    let mut pager = pager(&mut m, &e, &mut second);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use Status::{Blkstate, EntryepochLocked, EpcPageConflict, PgInvld, Success};
            let allowed = [Success, Blkstate, PgInvld, EpcPageConflict, EntryepochLocked];
            let allowed = allowed.map(|status| status as u64);
            while !done.load(Ordering::Relaxed) {
                let said = machine::encls_on(&mut first, 0, Encls::Eblock, 0, Machine::epc(page), 0);
                assert!(said.is_ok_and(|code| allowed.contains(&code)), "{said:x?}");
            }
        });
        let mut again = |what: &mut dyn FnMut(&mut Pager) -> Result<u64, u8>, fine: &[Status]| {
            for _ in 0..1_000_000 {
                match what(&mut pager) {
                    Err(13) => std::thread::yield_now(),
                    Ok(code) if fine.iter().any(|&status| status as u64 == code) => return,
                    Ok(code) if code == Status::EpcPageConflict as u64 => std::thread::yield_now(),
                    other => {
                        done.store(true, Ordering::Relaxed);
                        panic!("{other:x?}");
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
            panic!("never done");
        };
        for _ in 0..500 {
            again(&mut |p| p.block(page), &[Status::Success, Status::Blkstate]);
            again(&mut |p| p.track(), &[Status::Success]);
            again(&mut |p| p.evict(page), &[Status::Success]);
            again(&mut |p| p.reload(e.la(PAGE), page), &[Status::Success]);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(m.package.read::<u64>(page, 0).unwrap(), 0x1234);
}
