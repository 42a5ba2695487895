//! The leaves that block, track, write out and load pages, and those beside them: one
//! case for each row of each table, and what the leaves do.

mod world;

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

// ---------------------------------------------------------------- the tables

/// In front of EBLOCK.
fn blocking() -> World {
    let mut w = running();
    w.operands(0, la(DATA), 0);
    w
}

#[test]
fn eblock_rows() {
    use eblock::*;
    let cases: [Case; 10] = [
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 8),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_VALID, |w| w.package.lose()),
        (&NOT_SECS, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&BLOCKABLE, |w| w.port.gpr[gpr::RCX] = la(ARRAY)),
        (&EPOCH_UNLOCKED, |w| w.held = Some((SECS, Lane::Track, Mode::Exclusive))),
        (&UNBLOCKED, |w| w.entry(DATA, |e| e.flags |= Flags::BLOCKED)),
        (&UNBLOCKED, |w| w.entry(DATA, |e| e.flags |= Flags::BLOCKED | Flags::PENDING)),
    ];
    run_cases(Encls::Eblock, RULES, blocking, &cases);
    run_addresses(Encls::Eblock, blocking, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

/// In front of ETRACK.
fn tracking() -> World {
    let mut w = running();
    w.operands(0, la(SECS), 0);
    w
}

/// In front of ETRACKC.
fn tracking_coded() -> World {
    let mut w = running();
    w.operands(0, la(DATA), 0);
    w
}

/// A processor is inside that the last cycle waits for.
fn cycle_incomplete(w: &mut World) {
    w.someone_enters();
    assert!(enclave(w, SECS).with(|s| s.tracking.begin_cycle()));
}

#[test]
fn etrack_rows() {
    use etrack::*;
    let cases: [Case; 10] = [
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&PAGE_CLAIMED, |w| w.held = Some((SECS, Lane::Base, Mode::Exclusive))),
        (&TRACKING_CLAIMED, |w| w.held = Some((SECS, Lane::Track, Mode::Exclusive))),
        (&TRACKING_CLAIMED, |w| w.held = Some((SECS, Lane::Track, Mode::Shared))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_VALID, |w| w.package.lose()),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(DATA)),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(ARRAY)),
        (&CYCLE_COMPLETE, cycle_incomplete),
    ];
    run_cases(Encls::Etrack, RULES, tracking, &cases);
    run_addresses(Encls::Etrack, tracking, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

#[test]
fn etrackc_rows() {
    use etrack::etrackc_rules::*;
    let cases: [Case; 9] = [
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_VALID, |w| w.package.lose()),
        (&TRACKED, |w| w.port.gpr[gpr::RCX] = la(ARRAY)),
        (&TRACKING_CLAIMED, |w| w.held = Some((SECS, Lane::Track, Mode::Exclusive))),
        (&TRACKING_CLAIMED, |w| w.held = Some((SECS, Lane::Track, Mode::Shared))),
        (&CYCLE_COMPLETE, cycle_incomplete),
    ];
    run_cases(Encls::Etrackc, RULES, tracking_coded, &cases);
    run_addresses(Encls::Etrackc, tracking_coded, &[|w, a| w.port.gpr[gpr::RCX] = a]);
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

#[test]
fn ewb_rows() {
    use ewb::*;
    let cases: [Case; 28] = [
        (&PAGEINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SLOT_ALIGNED, |w| w.port.gpr[gpr::RDX] += 4),
        (&SLOT_IN_EPC, |w| w.port.gpr[gpr::RDX] = SOURCE),
        (&DIFFERENT_PAGES, |w| w.port.gpr[gpr::RDX] = la(DATA) + 8),
        (&DIFFERENT_PAGES, |w| w.port.gpr[gpr::RCX] = la(ARRAY)),
        (&PAGEINFO_UNUSED, |w| w.pageinfo(|p| p.linaddr = BASE + 0x1000)),
        (&PAGEINFO_UNUSED, |w| w.pageinfo(|p| p.secs = la(SECS))),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secinfo += 64)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.srcpge += 0x800)),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Shared))),
        (&ARRAY_CLAIMED, |w| w.held = Some((ARRAY, Lane::Base, Mode::Exclusive))),
        (&ARRAY_CLAIMED, |w| w.held = Some((ARRAY, Lane::Slot(5), Mode::Exclusive))),
        (&ARRAY_CLAIMED, |w| w.held = Some((ARRAY, Lane::Slot(5), Mode::Shared))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_VALID, |w| w.package.lose()),
        (&ARRAY_VALID, |w| w.port.gpr[gpr::RDX] = la(FREE)),
        (&ARRAY_VALID, |w| w.port.gpr[gpr::RDX] = la(CODE)),
        (&ARRAY_VALID, |w| w.port.gpr[gpr::RDX] = la(SECS)),
        (&TRACKING_CLAIMED, |w| w.held = Some((SECS, Lane::Track, Mode::Exclusive))),
        (&BLOCKED, |w| w.port.gpr[gpr::RCX] = la(CODE)),
        (&BLOCKED, |w| w.port.gpr[gpr::RCX] = la(TCS)),
        (&BLOCKED, |w| w.entry(DATA, |e| e.flags -= Flags::BLOCKED)),
        // Blocked after the last ETRACK.
        (&TRACKED, |w| {
            let operands = w.port.gpr;
            block(w, CODE);
            w.port.gpr = operands;
            w.port.gpr[gpr::RCX] = la(CODE);
        }),
        // Someone was inside at the ETRACK after it.
        (&TRACKED, |w| {
            let operands = w.port.gpr;
            block(w, CODE);
            w.someone_enters();
            track(w, SECS);
            w.port.gpr = operands;
            w.port.gpr[gpr::RCX] = la(CODE);
        }),
        (&CHILDLESS, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&CHILDLESS, |w| {
            let operands = w.port.gpr;
            *w = running_with(&[CODE]);
            w.put(PAGEINFO, &Pageinfo { linaddr: 0, srcpge: SWAP, secinfo: PCMD, secs: 0 });
            w.port.gpr = operands;
            w.port.gpr[gpr::RCX] = la(SECS);
        }),
    ];
    run_cases(Encls::Ewb, RULES, writing, &cases);
    run_addresses(
        Encls::Ewb,
        writing,
        &[
            |w, a| w.port.gpr[gpr::RBX] = a,
            |w, a| w.port.gpr[gpr::RCX] = a,
            |w, a| w.port.gpr[gpr::RDX] = a,
            |w, a| w.pageinfo(|p| p.srcpge = a),
            |w, a| w.pageinfo(|p| p.secinfo = a),
        ],
    );
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

/// Makes PCMD speak of a page type by number.
fn pcmd_type(w: &mut World, number: u64) {
    pcmd(w, |p| p.secinfo.flags = SecinfoFlags::from_bits_retain(number << 8 | 3));
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

/// The name of a rule that the leaves have as a fault or as a code, and what breaks it.
type Conflict = (&'static str, fn(&mut World));

const CONFLICTS: [Conflict; 7] = [
    ("TARGET_CLAIMED", |w| w.held = Some((FREE, Lane::Base, Mode::Shared))),
    ("TARGET_CLAIMED", |w| w.held = Some((FREE, Lane::Base, Mode::Exclusive))),
    ("ARRAY_CLAIMED", |w| w.held = Some((ARRAY, Lane::Base, Mode::Exclusive))),
    ("ARRAY_CLAIMED", |w| w.held = Some((ARRAY, Lane::Slot(5), Mode::Exclusive))),
    ("ARRAY_CLAIMED", |w| w.held = Some((ARRAY, Lane::Slot(5), Mode::Shared))),
    ("SECS_CLAIMED", |w| w.held = Some((SECS, Lane::Base, Mode::Exclusive))),
    // Its own target is used already.
    ("SECS_CLAIMED", |w| w.pageinfo(|p| p.secs = la(FREE))),
];

#[test]
fn eld_rows() {
    use eldb::*;
    let common: [Case; 48] = [
        (&PAGEINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&TARGET_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&TARGET_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SLOT_ALIGNED, |w| w.port.gpr[gpr::RDX] += 4),
        (&SLOT_IN_EPC, |w| w.port.gpr[gpr::RDX] = SOURCE),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secinfo += 64)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.srcpge += 0x800)),
        (&EPC_PRESENT, |w| w.package.lose()),
        (&TARGET_FREE, |w| w.port.gpr[gpr::RCX] = la(CODE)),
        (&TARGET_FREE, |w| w.port.gpr[gpr::RCX] = la(ARRAY_2)),
        (&ARRAY_VALID, |w| w.port.gpr[gpr::RDX] = la(DATA)),
        (&ARRAY_VALID, |w| w.port.gpr[gpr::RDX] = la(CODE)),
        (&SECS_ALIGNED, |w| w.pageinfo(|p| p.secs += 8)),
        (&SECS_ALIGNED, |w| w.pageinfo(|p| p.secs = 0x800)),
        (&SECS_IN_EPC, |w| w.pageinfo(|p| p.secs = SOURCE)),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(CODE))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(ARRAY))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(EpcPage(FREE.0 + 1)))),
        (&SECS_UNUSED, |w| pcmd_type(w, PageType::Secs as u64)),
        (&SECS_UNUSED, |w| pcmd_type(w, PageType::Va as u64)),
        (&SECS_UNUSED, |w| pcmd_type(w, PageType::SsFirst as u64)),
        (&SECS_UNUSED, |w| pcmd_type(w, PageType::SsRest as u64)),
        (&SECS_UNUSED, |w| pcmd_type(w, 7)),
        (&SECS_UNUSED, |w| pcmd_type(w, 0xff)),
        // The content.
        (&MAC, |w| w.change(SWAP, |byte: &mut u8| *byte ^= 1)),
        (&MAC, |w| w.change(SWAP + 0xfff, |byte: &mut u8| *byte ^= 0x80)),
        (&MAC, |w| w.pageinfo(|p| p.srcpge += 0x1000)),
        // What it is.
        (&MAC, |w| pcmd(w, |p| p.mac[0] ^= 1)),
        (&MAC, |w| pcmd(w, |p| p.mac[15] ^= 0x80)),
        (&MAC, |w| pcmd(w, |p| p.reserved1[0] = 1)),
        (&MAC, |w| pcmd(w, |p| p.reserved1[39] = 1)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.reserved1[0] = 1)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.reserved1[55] = 1)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.flags |= X)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.flags -= W)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.flags |= SecinfoFlags::PENDING)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.flags |= SecinfoFlags::MODIFIED)),
        (&MAC, |w| pcmd(w, |p| p.secinfo.flags |= SecinfoFlags::PR)),
        (&MAC, |w| pcmd_type(w, PageType::Tcs as u64)),
        (&MAC, |w| {
            pcmd_type(w, PageType::Secs as u64);
            w.pageinfo(|p| p.secs = 0);
        }),
        (&MAC, |w| {
            pcmd_type(w, 0xff);
            w.pageinfo(|p| p.secs = 0);
        }),
        // Where it is, and whose.
        (&MAC, |w| w.pageinfo(|p| p.linaddr += 0x1000)),
        (&MAC, |w| w.pageinfo(|p| p.linaddr += 1)),
        (&MAC, |w| {
            let other = another_enclave(w);
            w.pageinfo(|p| p.secs = la(other));
        }),
        // Its version.
        (&MAC, |w| w.port.gpr[gpr::RDX] += 8),
        (&MAC, |w| w.port.gpr[gpr::RDX] = slot(ARRAY_2, 5)),
        (&MAC, |w| w.package.write(ARRAY, 40, &0u64).unwrap()),
        (&MAC, |w| {
            let version: u64 = w.read(ARRAY, 40);
            w.package.write(ARRAY, 40, &(version + 1)).unwrap();
        }),
    ];
    for leaf in [Encls::Eldb, Encls::Eldu, Encls::Eldbc, Encls::Elduc] {
        let codes = matches!(leaf, Encls::Eldbc | Encls::Elduc);
        let is_conflict = |rule: &&&Rule| CONFLICTS.iter().any(|c| c.0 == rule.name);
        let (conflicts, others): (Vec<&Rule>, Vec<&Rule>) = RULES.iter().partition(is_conflict);
        let conflicts = if codes { coded::RULES.to_vec() } else { conflicts };
        let mut cases = common.to_vec();
        for (name, break_it) in CONFLICTS {
            cases.push((conflicts.iter().find(|rule| rule.name == name).unwrap(), break_it));
        }
        run_cases(leaf, &[others, conflicts].concat(), loading, &cases);
        run_addresses(
            leaf,
            loading,
            &[
                |w, a| w.port.gpr[gpr::RBX] = a,
                |w, a| w.port.gpr[gpr::RCX] = a,
                |w, a| w.port.gpr[gpr::RDX] = a,
                |w, a| w.pageinfo(|p| p.srcpge = a),
                |w, a| w.pageinfo(|p| p.secinfo = a),
                |w, a| w.pageinfo(|p| p.secs = a),
            ],
        );
    }
}

/// In front of ERDINFO.
fn asking() -> World {
    let mut w = running();
    w.operands(RDINFO, la(DATA), 0);
    w
}

#[test]
fn erdinfo_rows() {
    use erdinfo::*;
    let cases: [Case; 6] = [
        (&RDINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 8),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_VALID, |w| w.package.lose()),
    ];
    run_cases(Encls::Erdinfo, RULES, asking, &cases);
    run_addresses(
        Encls::Erdinfo,
        asking,
        &[|w, a| w.port.gpr[gpr::RBX] = a, |w, a| w.port.gpr[gpr::RCX] = a],
    );
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

/// The same with a later version loaded: in front of EUPDATESVN.
fn updating() -> World {
    let w = updatable();
    w.package.load_update(CPUSVN + 1, &chain(2)[1]).unwrap();
    w
}

#[test]
fn eupdatesvn_rows() {
    use eupdatesvn::*;
    let cases: [Case; 7] = [
        (&EPC_CLAIMED, |w| w.held = Some((FREE, Lane::Base, Mode::Shared))),
        (&EPC_CLAIMED, |w| w.held = Some((FREE, Lane::Track, Mode::Exclusive))),
        (&EPC_READY, |w| assert_eq!(w.encls(Encls::Epa, 3, la(FREE), 0), Ok(Done::Quiet))),
        (&EPC_READY, |w| assert_eq!(w.ecreate(SECS, &secs()), Ok(Done::Quiet))),
        (&EPC_READY, |w| w.entry(EpcPage(PAGES - 1), |e| e.flags |= Flags::VALID)),
        (&ENTROPY, |w| w.port.random = None),
        (&LATER_VERSION, |w| *w = updatable()),
    ];
    run_cases(Encls::Eupdatesvn, RULES, updating, &cases);
}

#[test]
fn models_without_oversubscription_lack_its_leaves() {
    let mut w = World::with(Config::sgx1(7));
    for leaf in [Encls::Erdinfo, Encls::Etrackc, Encls::Eldbc, Encls::Elduc, Encls::Eupdatesvn] {
        assert_eq!(w.encls(leaf, 0, 0, 0), Err(Exception::GP0), "{leaf}");
    }
    let names: Vec<_> = encls::rules().iter().map(|r| (r.leaf, r.name)).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "{name:?} is there twice");
    }
}

/// What another processor's leaf may do with the pages meanwhile, by the leaves' tables
/// of concurrency.
#[test]
fn leaves_that_share_a_page_do_not_conflict() {
    type Held = (EpcPage, Lane, Mode);
    let shared = |page, lane| (page, lane, Mode::Shared);
    let other_slot: Held = (ARRAY, Lane::Slot(6), Mode::Exclusive);
    // EADD, EEXTEND and EINIT elsewhere in the enclave; EACCEPT and the like of the page.
    let (build, modify) = ((SECS, Lane::Build, Mode::Exclusive), (DATA, Lane::Modify, Mode::Exclusive));
    let array = shared(ARRAY, Lane::Base);
    let (data, secs) = (shared(DATA, Lane::Base), shared(SECS, Lane::Base));
    // The SECS of the page is used implicitly, and not claimed.
    let implicit: Held = (SECS, Lane::Base, Mode::Exclusive);
    let eld = [array, secs, other_slot, build, shared(SECS, Lane::Track)];
    type Row<'a> = (Encls, fn() -> World, &'a [Held]);
    let table: [Row<'_>; 9] = [
        (Encls::Eblock, blocking, &[data, build, modify, shared(SECS, Lane::Track), implicit]),
        (Encls::Etrack, tracking, &[secs, build]),
        (Encls::Etrackc, tracking_coded, &[data, build, modify, implicit]),
        (Encls::Ewb, writing, &[array, other_slot, build, modify, shared(SECS, Lane::Track)]),
        (Encls::Eldb, loading, &eld),
        (Encls::Eldu, loading, &eld),
        (Encls::Eldbc, loading, &eld),
        (Encls::Elduc, loading, &eld),
        (Encls::Erdinfo, asking, &[data, build, modify, implicit]),
    ];
    for (leaf, make, held) in table {
        for &held in held {
            let mut w = make();
            w.held = Some(held);
            assert_eq!(w.execute(leaf), Ok(Done::Success), "{leaf} beside {held:?}");
        }
    }
}

// ------------------------------------------------------------ what they do

/// The entries that a page of an enclave can have: types with all their flags.
fn entries() -> Vec<(PageType, Flags)> {
    let mut entries = Vec::new();
    for page_type in [PageType::Reg, PageType::Tcs, PageType::Trim] {
        for bits in 0..=Flags::all().bits() {
            let flags = Flags::from_bits_truncate(bits);
            if flags.contains(Flags::VALID) && !flags.contains(Flags::BLOCKED) {
                entries.push((page_type, flags));
            }
        }
    }
    entries
}

#[test]
fn a_page_comes_back_as_it_left() {
    let mut w = running();
    let mut seen = 0;
    for (page_type, flags) in entries() {
        for leaf in [Encls::Eldb, Encls::Eldu, Encls::Eldbc, Encls::Elduc] {
            let from = if w.package.epcm.get(DATA).valid() { DATA } else { FREE };
            let to = if from == DATA { FREE } else { DATA };
            w.entry(from, |e| (e.page_type, e.flags) = (page_type, flags));
            let before = w.package.epcm.get(from);
            let children = w.children();
            let gone = evict(&mut w, from, SLOT);
            assert_eq!((w.package.epcm.get(from), w.children()), (Entry::FREE, children - 1));
            assert_eq!(gone.linaddr, BASE + 0x1000);
            assert_eq!(gone.pcmd.secinfo.flags.page_type(), Some(page_type));
            assert!(gone.pcmd.reserved_is_zero());
            assert_eq!(gone.pcmd.enclaveid, w.secs_page().private.eid);
            assert_ne!(w.read::<u64>(ARRAY, 40), 0, "the version is in the slot");
            assert_eq!(load(&mut w, leaf, &gone, to, SLOT, la(SECS)), Ok(Done::Success));
            let after = w.package.epcm.get(to);
            let blocks = matches!(leaf, Encls::Eldb | Encls::Eldbc);
            let expected = if blocks { flags | Flags::BLOCKED } else { flags };
            assert_eq!((after.flags, after.page_type), (expected, page_type), "{leaf}");
            assert_eq!((after.address, after.secs), (before.address, before.secs));
            assert_eq!(w.read::<[u8; PAGE_SIZE]>(to, 0), content(DATA));
            assert_eq!((w.read::<u64>(ARRAY, 40), w.children()), (0, children));
            seen += 1;
        }
    }
    println!("{seen} pages written out and loaded");
    assert_eq!(seen, 3 * 64 * 4);
}

#[test]
fn nothing_of_a_page_is_outside() {
    let mut w = running();
    let plain = content(DATA);
    let first = evict(&mut w, DATA, SLOT);
    let shown = |memory: &[[u8; PAGE_SIZE]]| {
        memory.iter().flat_map(|page| page.windows(16)).any(|window| plain.windows(16).any(|p| p == window))
    };
    // The search finds what is there: the builder's own copy, until it is gone.
    w.port.poke(SOURCE, &plain);
    assert!(shown(&w.port.memory));
    w.port.poke(SOURCE, &[0; PAGE_SIZE]);
    assert!(!shown(&w.port.memory));
    assert_eq!(load(&mut w, Encls::Eldu, &first, DATA, SLOT, la(SECS)), Ok(Done::Success));
    let second = evict(&mut w, DATA, SLOT);
    assert!(first.content != second.content, "no key stream is used twice");
    assert_ne!(first.pcmd.mac, second.pcmd.mac);
}

#[test]
fn software_may_say_of_which_enclave_it_thinks_a_page_is() {
    // PCMD.ENCLAVEID is for software; the MAC covers the identifier in the SECS.
    let mut w = loading();
    pcmd(&mut w, |p| p.enclaveid ^= 7);
    assert_eq!(w.execute(Encls::Eldu), Ok(Done::Success));
}

#[test]
fn a_version_opens_once() {
    let mut w = loading();
    let again = w.port.gpr;
    assert_eq!(w.execute(Encls::Eldu), Ok(Done::Success));
    w.port.gpr = again;
    w.port.gpr[gpr::RCX] = la(EpcPage(FREE.0 + 1));
    assert_eq!(w.execute(Encls::Eldu), code(Status::MacCompareFail), "a second copy");
}

#[test]
fn an_older_content_does_not_come_back() {
    let mut w = running();
    let old = evict(&mut w, DATA, SLOT);
    assert_eq!(load(&mut w, Encls::Eldu, &old, DATA, SLOT, la(SECS)), Ok(Done::Success));
    w.package.write(DATA, 0, &0x1234_5678u64).unwrap();
    let new = evict(&mut w, DATA, SLOT);
    assert_eq!(load(&mut w, Encls::Eldu, &old, DATA, SLOT, la(SECS)), code(Status::MacCompareFail));
    let mixed = Evicted { pcmd: new.pcmd, ..old };
    assert_eq!(load(&mut w, Encls::Eldu, &mixed, DATA, SLOT, la(SECS)), code(Status::MacCompareFail));
    assert_eq!(load(&mut w, Encls::Eldu, &new, DATA, SLOT, la(SECS)), Ok(Done::Success));
    assert_eq!(w.read::<u64>(DATA, 0), 0x1234_5678);
}

#[test]
fn an_occupied_slot_is_told_and_overwritten() {
    let mut w = running();
    let first = evict(&mut w, DATA, SLOT);
    block(&mut w, CODE);
    track(&mut w, SECS);
    let (done, second) = write_out(&mut w, CODE, SLOT);
    assert_eq!(done, carry(Status::VaSlotOccupied));
    let reported = (w.port.gpr[gpr::RAX], w.port.rflags & rflags::STATUS);
    assert_eq!(reported, (Status::VaSlotOccupied.rax(), rflags::CF));
    assert_eq!(w.package.epcm.get(CODE), Entry::FREE);
    assert_eq!(load(&mut w, Encls::Eldu, &first, DATA, SLOT, la(SECS)), code(Status::MacCompareFail));
    assert_eq!(load(&mut w, Encls::Eldu, &second, CODE, SLOT, la(SECS)), Ok(Done::Success));
    assert_eq!(w.read::<[u8; PAGE_SIZE]>(CODE, 0), content(CODE));
}

#[test]
fn a_whole_enclave_moves_with_its_version_array() {
    let mut w = running();
    let before = w.secs_page();
    let mut gone = Vec::new();
    for (number, page) in [TCS, DATA, CODE].into_iter().enumerate() {
        gone.push(evict(&mut w, page, slot(ARRAY, number as u64)));
    }
    // SECS and version array need neither be blocked nor tracked.
    let (done, secs) = write_out(&mut w, SECS, slot(ARRAY, 511));
    assert_eq!(done, Ok(Done::Success));
    assert_eq!((secs.linaddr, secs.pcmd.enclaveid), (0, before.private.eid));
    assert_eq!(secs.pcmd.secinfo, Secinfo::new(flags(PageType::Secs, SecinfoFlags::empty())));
    assert!(w.package.enclaves.get(SECS).is_none());
    let (done, array) = write_out(&mut w, ARRAY, slot(ARRAY_2, 0));
    assert_eq!(done, Ok(Done::Success));
    assert_eq!((array.linaddr, array.pcmd.enclaveid), (0, 0));
    assert_eq!(array.pcmd.secinfo, Secinfo::new(flags(PageType::Va, SecinfoFlags::empty())));
    assert_eq!(w.package.epcm.valid().count(), 1);

    // Back, to other places; an enclave needs its SECS first.
    let place = |n: u32| EpcPage(16 + n);
    assert_eq!(load(&mut w, Encls::Eldb, &array, place(0), slot(ARRAY_2, 0), 0), Ok(Done::Success));
    let va = Entry { flags: Flags::VALID, page_type: PageType::Va, ..Entry::FREE };
    assert_eq!(w.package.epcm.get(place(0)), va, "a version array is never blocked");
    let versions = |n: u64| slot(place(0), n);
    let early = load(&mut w, Encls::Eldu, &gone[0], place(2), versions(0), la(place(1)));
    assert_eq!(early.unwrap_err().vector, arch::Vector::PageFault);
    assert_eq!(load(&mut w, Encls::Eldb, &secs, place(1), versions(511), 0), Ok(Done::Success));
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Secs, secs: place(1), ..Entry::FREE };
    assert_eq!(w.package.epcm.get(place(1)), entry, "nor is a SECS");
    let after: Secs = w.read(place(1), 0);
    assert!(after.as_bytes() == before.as_bytes(), "the processor's own fields come back, too");
    let now = enclave(&w, place(1));
    assert_eq!(now.with(|s| (s.children, s.tracking.inside(), s.tracking.epoch())), (0, 0, 0));
    for (number, page) in gone.iter().enumerate() {
        let to = place(2 + number as u32);
        let done = load(&mut w, Encls::Eldu, page, to, versions(number as u64), la(place(1)));
        assert_eq!(done, Ok(Done::Success));
        assert_eq!(w.package.epcm.get(to).secs, place(1));
    }
    assert_eq!(now.with(|s| s.children), 3);
    assert_eq!(w.read::<[u8; PAGE_SIZE]>(place(3), 0), content(DATA));
}

#[test]
fn an_enclave_half_built_is_measured_on() {
    // The same enclave, with and without its SECS being written out in the middle.
    let finish = |w: &mut World, secs: EpcPage| {
        w.prepare_eadd(FREE, BASE + 0x3000, flags(PageType::Reg, R | W), &[0x5a; PAGE_SIZE]);
        w.pageinfo(|p| p.secs = la(secs));
        assert_eq!(w.execute(Encls::Eadd), Ok(Done::Quiet));
        let made: Secs = w.read(secs, 0);
        sgx::measure::Measurement::load(&made.private).finish()
    };
    let build = || {
        let mut w = prepared(World::new());
        w.ecreate(SECS, &secs()).unwrap();
        w.add(TCS, BASE, flags(PageType::Tcs, R), tcs().as_bytes());
        w
    };
    let mut whole = build();
    let expected = finish(&mut whole, SECS);
    let mut w = build();
    let tcs = evict(&mut w, TCS, slot(ARRAY, 0));
    let (done, secs) = write_out(&mut w, SECS, slot(ARRAY, 1));
    assert_eq!(done, Ok(Done::Success));
    let to = EpcPage(20);
    assert_eq!(load(&mut w, Encls::Eldu, &secs, to, slot(ARRAY, 1), 0), Ok(Done::Success));
    assert_eq!(load(&mut w, Encls::Eldu, &tcs, TCS, slot(ARRAY, 0), la(to)), Ok(Done::Success));
    assert_eq!(finish(&mut w, to), expected);
}

#[test]
fn eviction_waits_for_those_inside() {
    let mut w = running();
    let inside = w.someone_enters();
    block(&mut w, DATA);
    let (done, _) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, code(Status::NotTracked), "no cycle has begun");
    track(&mut w, SECS);
    let (done, _) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, code(Status::NotTracked), "one who was inside still is");
    for leaf in [Encls::Etrack, Encls::Etrackc] {
        let done = w.encls(leaf, 0, la(SECS), 0);
        assert_eq!(done, code(Status::PrevTrkIncmpl), "{leaf}: the cycle is not complete");
    }
    // Whoever enters now cannot have a translation of the page.
    let late = w.someone_enters();
    enclave(&w, SECS).with(|s| s.tracking.leave(inside));
    let (done, gone) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, Ok(Done::Success));

    // Loaded blocked, it can be written out after one more cycle; unblocked, not at all.
    assert_eq!(load(&mut w, Encls::Eldb, &gone, DATA, SLOT, la(SECS)), Ok(Done::Success));
    let (done, _) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, code(Status::NotTracked));
    assert_eq!(w.encls(Encls::Etrackc, 0, la(DATA), 0), Ok(Done::Success), "by any page of it");
    enclave(&w, SECS).with(|s| s.tracking.leave(late));
    let (done, gone) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, Ok(Done::Success));
    assert_eq!(load(&mut w, Encls::Eldu, &gone, DATA, SLOT, la(SECS)), Ok(Done::Success));
    let (done, _) = write_out(&mut w, DATA, SLOT);
    assert_eq!(done, code(Status::PageNotBlocked));
}

#[test]
fn one_cycle_serves_all_pages_blocked_before() {
    let mut w = running();
    for page in [TCS, DATA, CODE] {
        block(&mut w, page);
    }
    track(&mut w, SECS);
    for (number, page) in [TCS, DATA, CODE].into_iter().enumerate() {
        let (done, _) = write_out(&mut w, page, slot(ARRAY, number as u64));
        assert_eq!(done, Ok(Done::Success));
    }
}

#[test]
fn erdinfo_tells_type_and_state() {
    let mut w = running();
    let ask = |w: &mut World, page: EpcPage| {
        w.port.poke(RDINFO, &[0xaa; 32]);
        assert_eq!(w.encls(Encls::Erdinfo, RDINFO, la(page), 0), Ok(Done::Success));
        assert_eq!(w.port.peek(RDINFO + 24, 8), [0xaa; 8], "24 bytes, no more");
        Rdinfo::read_from_bytes(&w.port.peek(RDINFO, 24)).unwrap()
    };
    let of = |flags: u64, status, enclavecontext| Rdinfo { status, flags, enclavecontext };
    let none = RdinfoStatus::empty();
    assert_eq!(ask(&mut w, SECS), of(0x000, RdinfoStatus::CHLDPRESENT, EPC_BASE));
    assert_eq!(ask(&mut w, TCS), of(0x100, none, EPC_BASE));
    assert_eq!(ask(&mut w, DATA), of(0x203, none, EPC_BASE));
    assert_eq!(ask(&mut w, CODE), of(0x205, none, EPC_BASE));
    assert_eq!(ask(&mut w, ARRAY), of(0x300, none, 0));
    w.entry(DATA, |e| e.flags |= Flags::BLOCKED | Flags::PENDING | Flags::MODIFIED | Flags::PR);
    assert_eq!(ask(&mut w, DATA), of(1 << 63 | 0x23b, none, EPC_BASE));
    w.entry(DATA, |e| e.page_type = PageType::Trim);
    assert_eq!(ask(&mut w, DATA), of(1 << 63 | 0x43b, none, EPC_BASE));
    let mut w = running_with(&[]);
    assert_eq!(ask(&mut w, SECS), of(0, none, EPC_BASE));
    let other = another_enclave(&mut w);
    assert_eq!(ask(&mut w, other), of(0, none, EPC_BASE + 20 * 0x1000));
}

#[test]
fn a_runtime_update_takes_effect_when_the_epc_is_empty() {
    let secrets = chain(2);
    let mut w = updatable();
    let current = |w: &World| w.package.with_secrets(|s| (s.roots.cpusvn, s.roots.svn_secret));
    let keys = |w: &World| w.package.with_secrets(|s| (s.paging_key, s.report_keyid));

    // Without a later version only the key of evicted pages changes.
    let before = keys(&w);
    assert_eq!(w.execute(Encls::Eupdatesvn), carry(Status::NoUpdate));
    assert!(keys(&w).0 != before.0 && keys(&w).1 == before.1);
    assert_eq!(current(&w), (CPUSVN, secrets[0]));

    // What is not of this platform, or not later, is not loaded.
    assert!(w.package.load_update(CPUSVN, &secrets[0]).is_err());
    assert!(w.package.load_update(CPUSVN - 1, &secrets[0]).is_err());
    assert!(w.package.load_update(CPUSVN + 1, &secrets[2]).is_err());
    assert!(w.package.load_update(CPUSVN + 1, &[1; 32]).is_err());
    assert!(w.package.load_update(u8::MAX, &secrets[2]).is_err());
    assert_eq!(w.execute(Encls::Eupdatesvn), carry(Status::NoUpdate));

    w.package.load_update(CPUSVN + 1, &secrets[1]).unwrap();
    assert_eq!(current(&w), (CPUSVN, secrets[0]), "not by itself");
    let before = keys(&w);
    assert_eq!(w.execute(Encls::Eupdatesvn), Ok(Done::Success));
    assert_eq!(current(&w), (CPUSVN + 1, secrets[1]));
    assert!(keys(&w).0 != before.0 && keys(&w).1 != before.1);
    assert_eq!(w.execute(Encls::Eupdatesvn), carry(Status::NoUpdate), "once");

    // A reset does it, too.
    w.package.load_update(CPUSVN + 2, &secrets[2]).unwrap();
    w.package.reset().unwrap();
    assert_eq!(current(&w), (CPUSVN + 2, secrets[2]));
    let old = w.package.with_secrets(|s| s.roots.svn_secret(CPUSVN).map(|s| *s));
    assert_eq!(old, Some(secrets[0]), "what was sealed before opens");
}

#[test]
fn pages_written_out_before_an_update_or_a_reset_stay_outside() {
    for by_reset in [false, true] {
        let mut w = prepared(World::new());
        w.ecreate(SECS, &secs()).unwrap();
        let (done, gone) = write_out(&mut w, SECS, SLOT);
        assert_eq!(done, Ok(Done::Success));
        let version: u64 = w.read(ARRAY, 40);
        if by_reset {
            w.package.reset().unwrap();
        } else {
            for array in [ARRAY, ARRAY_2] {
                assert_eq!(w.encls(Encls::Eremove, 0, la(array), 0), Ok(Done::Success));
            }
            assert_eq!(w.execute(Encls::Eupdatesvn), carry(Status::NoUpdate));
        }
        // Even if the version could be had again.
        assert_eq!(w.encls(Encls::Epa, PageType::Va as u64, la(ARRAY), 0), Ok(Done::Quiet));
        w.package.write(ARRAY, 40, &version).unwrap();
        assert_eq!(load(&mut w, Encls::Eldu, &gone, SECS, SLOT, 0), code(Status::MacCompareFail));
    }
}

#[test]
fn nothing_is_written_unless_all_can_be() {
    let mut w = writing();
    w.pageinfo(|p| p.secinfo = NOWHERE);
    assert!(w.execute(Encls::Ewb).is_err());
    assert_eq!(w.port.peek(SWAP, PAGE_SIZE), [0; PAGE_SIZE]);
}

#[test]
fn two_processors_do_not_load_one_page_twice() {
    let (mut loaded, mut refused) = (0, 0);
    for _ in 0..200 {
        let w = loading();
        let barrier = Barrier::new(2);
        let run = |target: EpcPage| {
            let mut port = TestPort { gpr: w.port.gpr, ..TestPort::default() };
            port.memory.clone_from(&w.port.memory);
            port.map.clone_from(&w.port.map);
            port.gpr[gpr::RAX] = Encls::Elduc as u64;
            port.gpr[gpr::RCX] = la(target);
            barrier.wait();
            encls::execute(&mut Leaf { port: &mut port, package: &w.package })
        };
        let results = std::thread::scope(|scope| {
            let other = scope.spawn(|| run(EpcPage(9)));
            [run(EpcPage(8)), other.join().unwrap()]
        });
        for result in results {
            match result {
                Ok(Done::Success) => loaded += 1,
                Ok(Done::Code(Status::EpcPageConflict | Status::MacCompareFail, rflags::ZF)) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(w.children(), 3);
    }
    assert_eq!((loaded, refused), (200, 200));
}
