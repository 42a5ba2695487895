//! The leaves of system software that change or look into a running enclave: one case
//! for each row of each table, and what the leaves do.

mod world;

use arch::Exception;
use arch::regs::{gpr, rflags};
use sgx::claim::{Lane, Mode};
use sgx::encls::{eaug, edbgrd, edbgwr, emodpr, emodt};
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::{Config, Done};
use sgx_abi::{AttributeFlags, Encls, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Status, Tcs};
use world::{
    BASE, CODE, Case, DATA, FREE, MEMORY, R, SECINFO, SECS, SIZE, SOURCE, TCS, W, World, X, content, flags,
    la, run_addresses, run_cases, secs, tcs,
};

/// The running enclave, in front of EAUG.
fn growing() -> World {
    let mut w = World::running();
    w.aug(FREE, BASE + 0x3000);
    w.entry(FREE, |e| *e = Entry::FREE);
    w.package.enclaves.get(SECS).unwrap().with(|s| s.children -= 1);
    w
}

#[test]
fn eaug_rows() {
    use eaug::*;
    let cases: [Case; 27] = [
        (&PAGEINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&TARGET_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&TARGET_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SECINFO_ALIGNED, |w| w.pageinfo(|p| p.secinfo = SECINFO + 32)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secs += 0x100)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.linaddr += 1)),
        (&SOURCE_ZERO, |w| w.pageinfo(|p| p.srcpge = SOURCE)),
        (&SECS_IN_EPC, |w| w.pageinfo(|p| p.secs = SOURCE)),
        (&TARGET_CLAIMED, |w| w.held = Some((FREE, Lane::Base, Mode::Shared))),
        (&EPC_PRESENT, |w| w.package.lose()),
        (&TARGET_FREE, |w| w.port.gpr[gpr::RCX] = la(DATA)),
        (&SECINFO_FLAGS, |w| asking(w, flags(PageType::Reg, R | W))),
        (&SECINFO_FLAGS, |w| asking(w, flags(PageType::SsFirst, R | W))),
        (&SECINFO_FLAGS, |w| asking(w, flags(PageType::SsRest, R | W))),
        (&SECINFO_FLAGS, |w| asking(w, flags(PageType::Tcs, SecinfoFlags::empty()))),
        (&SECS_CLAIMED, |w| w.held = Some((SECS, Lane::Base, Mode::Exclusive))),
        (&SECS_CLAIMED, |w| w.pageinfo(|p| p.secs = la(FREE))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(EpcPage(FREE.0 + 1)))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(DATA))),
        (&INITIALIZED, |w| w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT))),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = BASE - 0x1000)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = BASE + SIZE)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = 0)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = !0xfff)),
        // The order of checks, where two rows would do.
        (&TARGET_IN_EPC, |w| {
            w.port.gpr[gpr::RCX] = SOURCE;
            w.pageinfo(|p| p.srcpge = SOURCE);
        }),
        (&TARGET_FREE, |w| {
            w.port.gpr[gpr::RCX] = la(DATA);
            w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT));
        }),
        (&INITIALIZED, |w| {
            w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT));
            w.pageinfo(|p| p.linaddr = 0);
        }),
    ];
    run_cases(Encls::Eaug, RULES, growing, &cases);
    run_addresses(
        Encls::Eaug,
        growing,
        &[
            |w, a| w.port.gpr[gpr::RBX] = a,
            |w, a| w.port.gpr[gpr::RCX] = a,
            |w, a| w.pageinfo(|p| p.secs = a),
            |w, a| w.pageinfo(|p| p.secinfo = a),
        ],
    );
}

/// With a SECINFO.
fn asking(w: &mut World, flags: SecinfoFlags) {
    w.put(SECINFO, &Secinfo::new(flags));
    w.pageinfo(|p| p.secinfo = SECINFO);
}

#[test]
fn eaug_adds_a_pending_page_of_zeros() {
    let mut w = growing();
    w.package.dram.write(FREE.0, 0, &[0xee; PAGE_SIZE]).unwrap();
    let before = w.children();
    assert_eq!(w.execute(Encls::Eaug), Ok(Done::Quiet));
    let entry = Entry {
        flags: Flags::VALID | Flags::R | Flags::W | Flags::PENDING,
        page_type: PageType::Reg,
        secs: SECS,
        address: BASE + 0x3000,
        epoch: 0,
    };
    assert_eq!(w.package.epcm.get(FREE), entry);
    assert!(w.read::<[u8; PAGE_SIZE]>(FREE, 0) == [0; PAGE_SIZE]);
    assert_eq!(w.children(), before + 1);
    assert_eq!(w.encls(Encls::Eremove, 0, la(FREE), 0), Ok(Done::Success));
    assert_eq!(w.children(), before);
}

#[test]
fn sgx1_has_none_of_these() {
    for leaf in [Encls::Eaug, Encls::Emodpr, Encls::Emodt] {
        let mut w = World::build_from(World::with(Config::sgx1(7)), &secs());
        w.init();
        w.put(SECINFO, &Secinfo::new(flags(PageType::Trim, R)));
        assert_eq!(w.encls(leaf, SECINFO, la(DATA), 0), Err(Exception::GP0), "{leaf}");
    }
}

/// In front of EMODPR that leaves a writable page R.
fn restricting() -> World {
    let mut w = World::running();
    w.put(SECINFO, &Secinfo::new(R));
    w.operands(SECINFO, la(DATA), 0);
    w
}

#[test]
fn emodpr_rows() {
    use emodpr::*;
    let cases: [Case; 24] = [
        (&SECINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 32),
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.reserved1[55] = 1)),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(1u64 << 7))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = W)),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = W | X)),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_FREE, |w| w.held = Some((DATA, Lane::Modify, Mode::Exclusive))),
        (&PAGE_FREE, |w| w.held = Some((DATA, Lane::Modify, Mode::Shared))),
        (&MODIFIABLE, |w| w.entry(DATA, |e| e.flags |= Flags::PENDING)),
        (&MODIFIABLE, |w| w.entry(DATA, |e| e.flags |= Flags::MODIFIED)),
        (&MODIFIABLE, |w| {
            // Comes before the type.
            w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Tcs, Flags::VALID | Flags::MODIFIED))
        }),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(TCS)),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Trim)),
        (&PAGE_TYPE, |w| {
            w.encls(Encls::Epa, PageType::Va as u64, la(FREE), 0).unwrap();
            w.operands(SECINFO, la(FREE), 0);
        }),
        (&INITIALIZED, |w| w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT))),
        (&INITIALIZED, |w| {
            *w = World::build();
            w.put(SECINFO, &Secinfo::new(R));
            w.operands(SECINFO, la(DATA), 0);
        }),
        (&PAGE_CLAIMED, |w| {
            // Comes before whether there is a page.
            w.operands(SECINFO, la(FREE), 0);
            w.held = Some((FREE, Lane::Base, Mode::Exclusive));
        }),
        (&PAGE_VALID, |w| {
            w.operands(SECINFO, la(FREE), 0);
            w.held = Some((FREE, Lane::Modify, Mode::Exclusive));
        }),
        (&PAGE_FREE, |w| {
            w.entry(DATA, |e| e.flags |= Flags::PENDING);
            w.held = Some((DATA, Lane::Modify, Mode::Exclusive));
        }),
        (&PAGE_TYPE, |w| {
            w.port.gpr[gpr::RCX] = la(TCS);
            w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT));
        }),
    ];
    run_cases(Encls::Emodpr, RULES, restricting, &cases);
    run_addresses(
        Encls::Emodpr,
        restricting,
        &[|w, a| w.port.gpr[gpr::RBX] = a, |w, a| w.port.gpr[gpr::RCX] = a],
    );
}

#[test]
fn emodpr_masks_permissions_and_never_gives_any() {
    for asked in [SecinfoFlags::empty(), R, X, R | W, R | X, SecinfoFlags::RWX] {
        for had in 0..8u16 {
            let had = Flags::from_bits_retain(had << 1);
            let mut w = restricting();
            w.entry(DATA, |e| e.flags = Flags::VALID | had);
            w.secinfo(|s| s.flags = asked);
            assert_eq!(w.execute(Encls::Emodpr), Ok(Done::Success));
            let mask = Flags::from_bits_retain((asked.bits() as u16 & 7) << 1);
            let entry = w.package.epcm.get(DATA);
            assert_eq!(entry.flags, Flags::VALID | Flags::PR | (had & mask), "{had:?} & {asked:?}");
            assert_eq!((entry.page_type, entry.address), (PageType::Reg, BASE + 0x1000));
        }
    }
}

/// What EMODPR and EMODT note makes EACCEPT wait for those who were inside.
fn waits(w: &mut World) {
    let enclave = w.package.enclaves.get(SECS).unwrap();
    let epoch = w.package.epcm.get(DATA).epoch;
    let tracked = || enclave.with(|s| s.tracking.tracked_since(epoch));
    assert!(!tracked(), "no cycle has begun");
    assert_eq!(w.encls(Encls::Etrack, 0, la(SECS), 0), Ok(Done::Success));
    assert!(!tracked(), "one is still inside");
    enclave.with(|s| s.tracking.leave(epoch));
    assert!(tracked());
}

#[test]
fn emodpr_and_emodt_note_who_may_hold_old_translations() {
    let mut w = World::running();
    // An earlier cycle does not count.
    assert_eq!(w.encls(Encls::Etrack, 0, la(SECS), 0), Ok(Done::Success));
    w.someone_enters();
    w.put(SECINFO, &Secinfo::new(R));
    assert_eq!(w.encls(Encls::Emodpr, SECINFO, la(DATA), 0), Ok(Done::Success));
    waits(&mut w);
    w.someone_enters();
    w.put(SECINFO, &Secinfo::new(flags(PageType::Trim, R)));
    assert_eq!(w.encls(Encls::Emodt, SECINFO, la(DATA), 0), Ok(Done::Success));
    waits(&mut w);
}

/// In front of EMODT that trims a page.
fn retyping() -> World {
    let mut w = World::running();
    w.put(SECINFO, &Secinfo::new(flags(PageType::Trim, SecinfoFlags::empty())));
    w.operands(SECINFO, la(DATA), 0);
    w
}

#[test]
fn emodt_rows() {
    use emodt::*;
    let cases: [Case; 25] = [
        (&SECINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 32),
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.reserved1[0] = 1)),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(1u64 << 40 | 0x400))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Reg, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Secs, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Va, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::SsFirst, R))),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(0x80u64 << 8))),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Shared))),
        (&PAGE_CLAIMED, |w| {
            w.operands(SECINFO, la(FREE), 0);
            w.held = Some((FREE, Lane::Base, Mode::Exclusive));
        }),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_FREE, |w| w.held = Some((DATA, Lane::Modify, Mode::Exclusive))),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Trim)),
        (&PAGE_TYPE, |w| {
            w.port.gpr[gpr::RCX] = la(TCS);
            w.secinfo(|s| s.flags = flags(PageType::Tcs, SecinfoFlags::empty()));
        }),
        (&PAGE_TYPE, |w| {
            w.encls(Encls::Epa, PageType::Va as u64, la(FREE), 0).unwrap();
            w.operands(SECINFO, la(FREE), 0);
        }),
        (&PAGE_TYPE, |w| {
            // Comes before whether it can be modified, other than in EMODPR.
            w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Trim, Flags::VALID | Flags::MODIFIED))
        }),
        (&PAGE_FREE, |w| {
            w.port.gpr[gpr::RCX] = la(SECS);
            w.held = Some((SECS, Lane::Modify, Mode::Exclusive));
        }),
        (&MODIFIABLE, |w| w.entry(DATA, |e| e.flags |= Flags::PENDING)),
        (&MODIFIABLE, |w| w.entry(DATA, |e| e.flags |= Flags::MODIFIED)),
        (&MODIFIABLE, |w| {
            w.entry(DATA, |e| e.flags |= Flags::PENDING);
            w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT));
        }),
        (&INITIALIZED, |w| w.set_secs(|s| s.attributes.flags.remove(AttributeFlags::INIT))),
        (&INITIALIZED, |w| {
            *w = World::build();
            w.put(SECINFO, &Secinfo::new(flags(PageType::Tcs, R)));
            w.operands(SECINFO, la(DATA), 0);
        }),
    ];
    run_cases(Encls::Emodt, RULES, retyping, &cases);
    run_addresses(
        Encls::Emodt,
        retyping,
        &[|w, a| w.port.gpr[gpr::RBX] = a, |w, a| w.port.gpr[gpr::RCX] = a],
    );
}

#[test]
fn emodt_retypes_and_takes_all_permissions() {
    for (page, new) in
        [(DATA, PageType::Trim), (DATA, PageType::Tcs), (CODE, PageType::Trim), (TCS, PageType::Trim)]
    {
        let mut w = retyping();
        w.entry(page, |e| e.flags |= Flags::PR | Flags::BLOCKED);
        let address = w.package.epcm.get(page).address;
        w.secinfo(|s| s.flags = flags(new, SecinfoFlags::RWX));
        w.operands(SECINFO, la(page), 0);
        assert_eq!(w.execute(Encls::Emodt), Ok(Done::Success));
        let flags = Flags::VALID | Flags::MODIFIED | Flags::BLOCKED;
        let entry = Entry { flags, page_type: new, secs: SECS, address, epoch: 0 };
        assert_eq!(w.package.epcm.get(page), entry);
        assert_eq!(w.children(), 3, "it still belongs to the enclave");
    }
}

/// In front of a read of a word of a debug enclave.
fn looking() -> World {
    let mut w = World::running();
    w.operands(0, la(DATA) + 0x18, 0);
    w
}

/// The same for an enclave that is no debug enclave.
fn production(w: &mut World, page: EpcPage, offset: u64) {
    let mut secs = secs();
    secs.attributes.flags.remove(AttributeFlags::DEBUG);
    *w = World::build_from(World::new(), &secs);
    w.init();
    w.operands(0, la(page) + offset, 0);
}

fn version_array(w: &mut World, slot: u64) {
    w.encls(Encls::Epa, PageType::Va as u64, la(FREE), 0).unwrap();
    w.operands(0, la(FREE) + 8 * slot, 0);
}

#[test]
fn edbgrd_rows() {
    use edbgrd::*;
    let cases: [Case; 22] = [
        (&ALIGNED, |w| w.port.gpr[gpr::RCX] += 4),
        (&ALIGNED, |w| {
            w.port.control.long64 = false;
            w.port.gpr[gpr::RCX] += 2;
        }),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = MEMORY),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Trim)),
        (&PAGE_TYPE, |w| {
            // Comes before whether it can be debugged.
            w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Trim, Flags::VALID | Flags::MODIFIED))
        }),
        (&DEBUGGABLE, |w| w.entry(DATA, |e| e.flags |= Flags::PENDING)),
        (&DEBUGGABLE, |w| w.entry(DATA, |e| e.flags |= Flags::MODIFIED)),
        (&DEBUGGABLE, |w| {
            production(w, DATA, 0);
            w.entry(DATA, |e| e.flags |= Flags::PENDING);
        }),
        (&IN_TCS, |w| w.port.gpr[gpr::RCX] = la(TCS) + 72),
        (&IN_TCS, |w| w.port.gpr[gpr::RCX] = la(TCS) + 0xff8),
        (&IN_TCS, |w| production(w, TCS, 72)),
        (&DEBUG_ENCLAVE, |w| production(w, DATA, 0)),
        (&DEBUG_ENCLAVE, |w| production(w, CODE, 0xff8)),
        (&DEBUG_ENCLAVE, |w| production(w, TCS, 8)),
        (&DEBUG_ENCLAVE, |w| {
            production(w, DATA, 4);
            w.port.control.long64 = false;
        }),
        (&DEBUG_ENCLAVE, |w| {
            // Before EINIT too.
            let mut secs = secs();
            secs.attributes.flags.remove(AttributeFlags::DEBUG);
            *w = World::build_from(World::new(), &secs);
            w.operands(0, la(DATA), 0);
        }),
        (&PAGE_VALID, |w| w.package.lose()),
        (&PAGE_IN_EPC, |w| w.port.map_memory(la(DATA))),
        (&PAGE_CLAIMED, |w| {
            version_array(w, 0);
            w.held = Some((FREE, Lane::Base, Mode::Exclusive));
        }),
    ];
    run_cases(Encls::Edbgrd, RULES, looking, &cases);
    run_addresses(Encls::Edbgrd, looking, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

#[test]
fn edbgrd_reads_whatever_the_permissions() {
    let word = |page, at: usize| u64::from_le_bytes(content(page)[at..at + 8].try_into().unwrap());
    for bits in [Flags::empty(), Flags::X, Flags::RWX] {
        let mut w = looking();
        w.entry(DATA, |e| e.flags = Flags::VALID | bits);
        for at in [0, 0x18, 0xff8] {
            w.port.rflags |= rflags::STATUS;
            assert_eq!(w.encls(Encls::Edbgrd, !0, la(DATA) + at, 0), Ok(Done::Success));
            assert_eq!(w.port.gpr[gpr::RBX], word(DATA, at as usize));
            assert_eq!((w.port.gpr[gpr::RAX], w.port.rflags & rflags::STATUS), (0, 0));
        }
        w.port.control.long64 = false;
        assert_eq!(w.encls(Encls::Edbgrd, !0, la(DATA) + 0xffc, 0), Ok(Done::Success));
        assert_eq!(w.port.gpr[gpr::RBX], word(DATA, 0xff8) >> 32);
    }
    let mut w = looking();
    assert_eq!(w.encls(Encls::Edbgrd, 0, la(TCS) + 64, 0), Ok(Done::Success), "the last word of a TCS");
    assert_eq!(w.encls(Encls::Edbgrd, 0, la(TCS) + 16, 0), Ok(Done::Success));
    assert_eq!(w.port.gpr[gpr::RBX], tcs().ossa);
}

#[test]
fn edbgrd_of_a_version_array_tells_use_only() {
    for (version, wide, value) in [
        (0u64, true, 0),
        (1, true, u64::MAX),
        (0x1234_5678_9abc_def0, true, u64::MAX),
        (0, false, 0),
        (1 << 40, false, u32::MAX.into()),
        (1, false, u32::MAX.into()),
    ] {
        let mut w = World::new();
        version_array(&mut w, 511);
        w.package.write(FREE, 8 * 511, &version).unwrap();
        w.port.control.long64 = wide;
        for half in if wide { 0..1 } else { 0..2 } {
            assert_eq!(w.encls(Encls::Edbgrd, 5, la(FREE) + 8 * 511 + 4 * half, 0), Ok(Done::Success));
            assert_eq!(w.port.gpr[gpr::RBX], value, "{version:#x}");
        }
    }
}

#[test]
fn edbgwr_rows() {
    use edbgwr::*;
    let cases: [Case; 24] = [
        (&ALIGNED, |w| w.port.gpr[gpr::RCX] += 4),
        (&ALIGNED, |w| {
            w.port.control.long64 = false;
            w.port.gpr[gpr::RCX] += 1;
        }),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = MEMORY),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_TYPE, |w| version_array(w, 3)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Trim)),
        (&PAGE_TYPE, |w| {
            w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Trim, Flags::VALID | Flags::MODIFIED))
        }),
        (&DEBUGGABLE, |w| w.entry(DATA, |e| e.flags |= Flags::PENDING)),
        (&DEBUGGABLE, |w| w.entry(DATA, |e| e.flags |= Flags::MODIFIED)),
        (&IN_TCS_FLAGS, |w| w.port.gpr[gpr::RCX] = la(TCS)),
        (&IN_TCS_FLAGS, |w| w.port.gpr[gpr::RCX] = la(TCS) + 16),
        (&IN_TCS_FLAGS, |w| w.port.gpr[gpr::RCX] = la(TCS) + 0xff8),
        (&IN_TCS_FLAGS, |w| {
            w.port.control.long64 = false;
            w.port.gpr[gpr::RCX] = la(TCS) + 4;
        }),
        (&IN_TCS_FLAGS, |w| {
            // Comes before whose it is.
            production(w, TCS, 16)
        }),
        (&DEBUG_ENCLAVE, |w| production(w, DATA, 0)),
        (&DEBUG_ENCLAVE, |w| production(w, TCS, 8)),
        (&DEBUG_ENCLAVE, |w| {
            let mut secs = secs();
            secs.attributes.flags.remove(AttributeFlags::DEBUG);
            *w = World::build_from(World::new(), &secs);
            w.operands(0, la(DATA), 0);
        }),
        (&PAGE_VALID, |w| w.package.lose()),
        (&PAGE_IN_EPC, |w| w.port.map_memory(la(DATA))),
        (&DEBUGGABLE, |w| {
            production(w, DATA, 0);
            w.entry(DATA, |e| e.flags |= Flags::MODIFIED);
        }),
        (&DEBUGGABLE, |w| {
            w.port.gpr[gpr::RCX] = la(TCS);
            w.entry(TCS, |e| e.flags |= Flags::MODIFIED);
        }),
        (&PAGE_CLAIMED, |w| {
            w.port.gpr[gpr::RCX] = la(FREE);
            w.held = Some((FREE, Lane::Base, Mode::Exclusive));
        }),
    ];
    run_cases(Encls::Edbgwr, RULES, looking, &cases);
    run_addresses(Encls::Edbgwr, looking, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

#[test]
fn edbgwr_writes_a_word_and_no_more() {
    for (wide, bytes) in [(true, 8), (false, 4)] {
        let mut w = looking();
        w.port.control.long64 = wide;
        w.entry(DATA, |e| e.flags = Flags::VALID);
        let value = 0x1122_3344_5566_7788u64;
        assert_eq!(w.encls(Encls::Edbgwr, value, la(DATA) + 0x18, 0), Ok(Done::Success));
        let mut expected = content(DATA);
        expected[0x18..0x18 + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        assert!(w.read::<[u8; PAGE_SIZE]>(DATA, 0) == expected);
        assert_eq!(w.port.gpr[gpr::RBX], value);
    }
}

#[test]
fn edbgwr_opts_a_thread_in() {
    let mut w = looking();
    let before: Tcs = w.read(TCS, 0);
    assert_eq!(w.encls(Encls::Edbgwr, 1, la(TCS) + Tcs::FLAGS_OFFSET, 0), Ok(Done::Success));
    let after: Tcs = w.read(TCS, 0);
    assert_eq!(after.flags.bits(), 1);
    let expected = Tcs { flags: after.flags, ..before };
    assert!(zerocopy::IntoBytes::as_bytes(&after) == zerocopy::IntoBytes::as_bytes(&expected));
    // The two halves of FLAGS outside 64-bit mode.
    w.port.control.long64 = false;
    for half in [8, 12] {
        assert_eq!(w.encls(Encls::Edbgwr, 0, la(TCS) + half, 0), Ok(Done::Success));
    }
    assert_eq!(w.read::<Tcs>(TCS, 0).flags.bits(), 0);
}

/// What a debugger of the machine reads of a page.
fn debug_read(w: &World, page: EpcPage, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x55; len];
    w.package.debug_read(page, offset, &mut bytes);
    bytes
}

#[test]
fn a_debugger_reads_what_edbgrd_gives_and_ones() {
    let mut w = looking();
    w.entry(DATA, |e| e.flags = Flags::VALID);
    let all = content(DATA);
    for (offset, len) in
        [(0, 8), (3, 1), (5, 14), (0xff9, 7), (0xff9, 70), (0, PAGE_SIZE), (PAGE_SIZE, 9), (7, 0)]
    {
        let mut expected = vec![0xff; len];
        let inside = len.min(PAGE_SIZE - offset);
        expected[..inside].copy_from_slice(&all[offset..offset + inside]);
        assert!(debug_read(&w, DATA, offset, len) == expected, "{len} at {offset:#x}");
    }
    let read = debug_read(&w, TCS, 0, 128);
    assert_eq!(read[..72], w.read::<[u8; 72]>(TCS, 0));
    assert_eq!(read[32..40], tcs().oentry.to_le_bytes());
    assert_eq!(read[72..], [0xff; 56]);
    for page in [SECS, FREE, EpcPage(u32::MAX)] {
        assert_eq!(debug_read(&w, page, 0, 16), [0xff; 16], "{page:?}");
    }
    production(&mut w, DATA, 0);
    for page in [SECS, TCS, DATA, CODE] {
        assert_eq!(debug_read(&w, page, 8, 16), [0xff; 16], "{page:?} of a production enclave");
    }
}

#[test]
fn a_debugger_writes_what_edbgwr_allows() {
    let mut w = looking();
    let mut expected = content(DATA);
    for (offset, len) in [(0, 8), (3, 1), (5, 14), (0xff9, 7)] {
        let bytes: Vec<u8> = (0..len as u8).map(|n| n ^ 0xa5).collect();
        w.package.debug_write(DATA, offset, &bytes);
        expected[offset..offset + len].copy_from_slice(&bytes);
        assert!(w.read::<[u8; PAGE_SIZE]>(DATA, 0) == expected, "{len} at {offset:#x}");
    }
    w.package.debug_write(DATA, 0xff8, &[1; 64]);
    expected[0xff8..].fill(1);
    assert!(w.read::<[u8; PAGE_SIZE]>(DATA, 0) == expected, "and nothing beyond the page");
    let before: Tcs = w.read(TCS, 0);
    w.package.debug_write(TCS, 0, &[1; 64]);
    let after: Tcs = w.read(TCS, 0);
    assert_eq!(after.flags.bits(), 0x0101_0101_0101_0101);
    let expected = Tcs { flags: after.flags, ..before };
    assert!(zerocopy::IntoBytes::as_bytes(&after) == zerocopy::IntoBytes::as_bytes(&expected), "FLAGS alone");
    production(&mut w, DATA, 0);
    for page in [SECS, TCS, DATA, CODE] {
        let before: [u8; PAGE_SIZE] = w.read(page, 0);
        w.package.debug_write(page, 8, &[1; 16]);
        assert!(w.read::<[u8; PAGE_SIZE]>(page, 0) == before, "{page:?} of a production enclave");
    }
}

#[test]
fn a_debugger_opts_debug_enclaves_in_and_no_others() {
    let mut w = looking();
    assert_eq!(w.package.debug_opt_in(FREE), 0, "of another enclave");
    assert_eq!(w.read::<Tcs>(TCS, 0).flags.bits(), 0);
    assert_eq!(w.package.debug_opt_in(SECS), 1);
    assert_eq!(w.read::<Tcs>(TCS, 0).flags.bits(), 1);
    production(&mut w, DATA, 0);
    assert_eq!(w.package.debug_opt_in(SECS), 0);
    assert_eq!(w.read::<Tcs>(TCS, 0).flags.bits(), 0);
}

#[test]
fn a_status_leaves_other_flags_alone() {
    let mut w = restricting();
    w.entry(DATA, |e| e.flags |= Flags::PENDING);
    w.port.rflags = 2 | rflags::STATUS | rflags::IF | rflags::DF;
    let done = w.execute(Encls::Emodpr);
    assert_eq!(done, Ok(Done::Code(Status::PageNotModifiable, rflags::ZF)));
    assert_eq!(w.port.rflags, 2 | rflags::ZF | rflags::IF | rflags::DF);
    assert_eq!(w.port.gpr[gpr::RBX], SECINFO);
}
