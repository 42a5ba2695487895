//! One case for each row of each table.

use super::*;

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

/// Makes PCMD speak of a page type by number.
fn pcmd_type(w: &mut World, number: u64) {
    pcmd(w, |p| p.secinfo.flags = SecinfoFlags::from_bits_retain(number << 8 | 3));
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
