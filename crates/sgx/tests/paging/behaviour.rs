//! What the leaves do.

use super::*;

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
