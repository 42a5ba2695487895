//! The leaves that block, track, write out and load pages, and those beside them: one
//! case for each row of each table, and what the leaves do.

#[path = "../world/mod.rs"]
mod world;

mod behaviour;
mod rows;

use std::sync::Barrier;

use arch::Exception;
use arch::regs::{gpr, rflags};
use sgx::claim::{Lane, Mode};
use sgx::encls::{self, eblock, eldb, erdinfo, etrack, eupdatesvn, ewb};
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::keys::svn_step;
use sgx::rule::Rule;
use sgx::testing::TestPort;
use sgx::{Config, Done, Leaf};
use sgx_abi::{
    Encls, PAGE_SIZE, PageType, Pageinfo, Pcmd, Rdinfo, RdinfoStatus, Secinfo, SecinfoFlags, Secs, Status,
};
use world::{
    BASE, CODE, CPUSVN, Case, DATA, EPC, FREE, MEMORY, NOWHERE, PAGEINFO, PAGES, R, SECS, SOURCE, TCS, W,
    World, X, content, flags, la, roots, run_addresses, run_cases, secs, tcs,
};
use zerocopy::{FromBytes, IntoBytes};

/// A version array, and the slot that most tests use.
const ARRAY: EpcPage = EpcPage(4);
const SLOT: u64 = EPC + 4 * 0x1000 + 5 * 8;
/// Another version array.
const ARRAY_2: EpcPage = EpcPage(5);
/// Ordinary memory for pages written out.
const SWAP: u64 = 0x60_0000;
const SWAPS: u64 = 8;
/// The operand of most tests.
const PCMD: u64 = MEMORY + 0x80;
/// Where ERDINFO writes.
const RDINFO: u64 = MEMORY + 0x200;
/// Where the board has the EPC.
const EPC_BASE: u64 = 0x8_0000_0000;

/// What `execute` gives for a code with ZF.
fn code(status: Status) -> Result<Done, Exception> {
    Ok(Done::Code(status, rflags::ZF))
}

/// The same with CF.
fn carry(status: Status) -> Result<Done, Exception> {
    Ok(Done::Code(status, rflags::CF))
}

/// Linear address of a slot.
fn slot(array: EpcPage, number: u64) -> u64 {
    la(array) + number * 8
}

/// Content and metadata of a page written out.
#[derive(Clone)]
struct Evicted {
    content: Vec<u8>,
    pcmd: Pcmd,
    linaddr: u64,
}

/// Adds version arrays and memory to a machine.
fn prepared(mut w: World) -> World {
    for page in 0..SWAPS {
        w.port.map_memory(SWAP + page * 0x1000);
    }
    for array in [ARRAY, ARRAY_2] {
        assert_eq!(w.encls(Encls::Epa, PageType::Va as u64, la(array), 0), Ok(Done::Quiet));
    }
    w.package.set_epc_base(EPC_BASE);
    w
}

fn running() -> World {
    prepared(World::running())
}

/// An initialized enclave that has nothing in the EPC but its SECS and `pages`.
fn running_with(pages: &[EpcPage]) -> World {
    let mut w = running();
    for page in [TCS, DATA, CODE] {
        if !pages.contains(&page) {
            assert_eq!(w.encls(Encls::Eremove, 0, la(page), 0), Ok(Done::Success));
        }
    }
    w
}

fn block(w: &mut World, page: EpcPage) {
    assert_eq!(w.encls(Encls::Eblock, 0, la(page), 0), Ok(Done::Success));
}

fn track(w: &mut World, secs: EpcPage) {
    assert_eq!(w.encls(Encls::Etrack, 0, la(secs), 0), Ok(Done::Success));
}

/// EWB; the page if it was written out.
fn write_out(w: &mut World, page: EpcPage, slot: u64) -> (Result<Done, Exception>, Evicted) {
    w.put(PAGEINFO, &Pageinfo { linaddr: 0, srcpge: SWAP, secinfo: PCMD, secs: 0 });
    let done = w.encls(Encls::Ewb, PAGEINFO, la(page), slot);
    let pcmd = Pcmd::read_from_bytes(&w.port.peek(PCMD, 128)).unwrap();
    let info = Pageinfo::read_from_bytes(&w.port.peek(PAGEINFO, 32)).unwrap();
    (done, Evicted { content: w.port.peek(SWAP, PAGE_SIZE), pcmd, linaddr: info.linaddr })
}

/// Blocks, tracks and writes out a page of the enclave.
fn evict(w: &mut World, page: EpcPage, slot: u64) -> Evicted {
    block(w, page);
    track(w, SECS);
    let (done, evicted) = write_out(w, page, slot);
    assert_eq!(done, Ok(Done::Success), "EWB of {page:?}");
    evicted
}

/// Puts the operands of the ELD leaves.
fn prepare_load(w: &mut World, evicted: &Evicted, target: EpcPage, slot: u64, secs: u64) {
    w.port.poke(SWAP, &evicted.content);
    w.put(PCMD, &evicted.pcmd);
    w.put(PAGEINFO, &Pageinfo { linaddr: evicted.linaddr, srcpge: SWAP, secinfo: PCMD, secs });
    w.operands(PAGEINFO, la(target), slot);
}

fn load(
    w: &mut World,
    leaf: Encls,
    evicted: &Evicted,
    target: EpcPage,
    slot: u64,
    secs: u64,
) -> Result<Done, Exception> {
    prepare_load(w, evicted, target, slot, secs);
    w.execute(leaf)
}

fn enclave(w: &World, secs: EpcPage) -> std::sync::Arc<sgx::enclave::Enclave> {
    w.package.enclaves.get(secs).expect("an enclave")
}

/// In front of EWB.
fn writing() -> World {
    let mut w = running();
    block(&mut w, DATA);
    track(&mut w, SECS);
    w.put(PAGEINFO, &Pageinfo { linaddr: 0, srcpge: SWAP, secinfo: PCMD, secs: 0 });
    w.operands(PAGEINFO, la(DATA), SLOT);
    w
}

/// In front of the ELD leaves, with a page of the enclave.
fn loading() -> World {
    let mut w = running();
    let evicted = evict(&mut w, DATA, SLOT);
    prepare_load(&mut w, &evicted, FREE, SLOT, la(SECS));
    w
}

fn pcmd(w: &mut World, change: impl FnOnce(&mut Pcmd)) {
    w.change(PCMD, change);
}

/// Another enclave with the same layout, and its SECS.
fn another_enclave(w: &mut World) -> EpcPage {
    let other = EpcPage(20);
    let kept = (w.port.gpr, w.port.peek(MEMORY, 0x400));
    assert_eq!(w.ecreate(other, &secs()), Ok(Done::Quiet));
    w.port.poke(MEMORY, &kept.1);
    w.port.gpr = kept.0;
    other
}

/// The secret of the version before which is `before`; the test chain goes upwards by
/// choosing the last one first.
fn chain(length: usize) -> Vec<[u8; 32]> {
    let mut chain = vec![[0x77; 32]];
    for _ in 0..length {
        chain.push(svn_step(chain.last().unwrap()));
    }
    chain.reverse();
    chain
}

/// A machine with an empty EPC on a platform that can go on to two later versions.
fn updatable() -> World {
    let mut w = World::new();
    let dram = mee::Dram::new(PAGES, mee::Config::new(64, 1)).unwrap();
    let roots = sgx::keys::Roots { svn_secret: chain(2)[0], ..roots() };
    w.package = sgx::Package::new(Config::sgx2(0xe7), dram, roots).unwrap();
    w
}
