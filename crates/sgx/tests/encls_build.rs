//! The leaves that build, launch and remove enclaves: one case for each row of each
//! table, and what the leaves do.

mod world;

use arch::regs::gpr;
use arch::{Exception, Vector};
use sgx::claim::{Lane, Mode};
use sgx::encls::{eadd, ecreate, eextend, einit, epa, eremove};
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::sigstruct::PADDING;
use sgx::sigstruct::signer::Signer;
use sgx::{Config, Done, keys};
use sgx_abi::{
    AttributeFlags, Attributes, Einittoken, Encls, Keyrequest, MiscSelect, PAGE_SIZE, PageType, Secs,
    Sigstruct, Status, Tcs, TcsFlags,
};
use sha2::{Digest, Sha256};
use world::{
    BASE, CODE, CPUSVN, Case, DATA, FREE, MEMORY, PAGEINFO, PAGES, R, SECINFO, SECS, SIGSTRUCT, SIZE, SOURCE,
    TCS, TOKEN, W, World, X, content, flags, la, roots, run_addresses, run_cases, secs, tcs,
};
use zerocopy::IntoBytes;

/// What `execute` gives for a code with ZF.
fn code(status: Status) -> Result<Done, Exception> {
    Ok(Done::Code(status, arch::regs::rflags::ZF))
}

/// An empty machine in front of ECREATE.
fn creating() -> World {
    let mut w = World::new();
    w.ecreate(SECS, &secs()).unwrap();
    assert_eq!(w.encls(Encls::Eremove, 0, la(SECS), 0), Ok(Done::Success));
    w.operands(PAGEINFO, la(SECS), 0);
    w
}

fn source(w: &mut World, change: impl FnOnce(&mut Secs)) {
    w.change(SOURCE, change);
}

#[test]
fn ecreate_rows() {
    use ecreate::*;
    let cases: [Case; 42] = [
        (&PAGEINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&TARGET_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&TARGET_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.srcpge += 8)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secinfo += 32)),
        (&PAGEINFO_UNUSED, |w| w.pageinfo(|p| p.linaddr = 0x1000)),
        (&PAGEINFO_UNUSED, |w| w.pageinfo(|p| p.secs = la(SECS))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.reserved1[55] = 1)),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(1u64 << 6))),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(1u64 << 63))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Reg, R))),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(7u64 << 8))),
        (&TARGET_CLAIMED, |w| w.held = Some((SECS, Lane::Base, Mode::Shared))),
        (&EPC_PRESENT, |w| w.package.lose()),
        (&TARGET_FREE, |w| w.entry(SECS, |e| e.flags |= Flags::VALID)),
        (&XFRM_LEGACY, |w| source(w, |s| s.attributes.xfrm = 1)),
        (&XFRM_LEGACY, |w| source(w, |s| s.attributes.xfrm = 6)),
        (&XFRM_LEGAL, |w| source(w, |s| s.attributes.xfrm |= 1 << 9)),
        (&XFRM_LEGAL, |w| source(w, |s| s.attributes.xfrm |= 1 << 63)),
        (&XFRM_LEGAL, |w| source(w, |s| s.attributes.xfrm = 0xe3)),
        (&XFRM_LEGAL, |w| source(w, |s| s.attributes.xfrm = 0x67)),
        (&CET_ABSENT, |w| source(w, |s| s.cet_attributes = 1)),
        (&CET_ABSENT, |w| source(w, |s| s.cet_leg_bitmap_offset = 0x1000)),
        (&MISCSELECT_SUPPORTED, |w| source(w, |s| s.miscselect = MiscSelect::CPINFO)),
        (&SSA_FRAME, |w| source(w, |s| s.ssaframesize = 0)),
        (&BASE_CANONICAL, |w| source(w, |s| s.baseaddr = 1 << 47)),
        (&BASE_32, |w| {
            source(w, |s| {
                s.attributes.flags.remove(AttributeFlags::MODE64BIT);
                s.baseaddr = 1 << 32;
            })
        }),
        (&SIZE_LIMIT_32, |w| {
            source(w, |s| {
                s.attributes.flags.remove(AttributeFlags::MODE64BIT);
                (s.baseaddr, s.size) = (0, 1 << 31);
            })
        }),
        (&SIZE_LIMIT_64, |w| source(w, |s| (s.baseaddr, s.size) = (0, 1 << 56))),
        (&SIZE_LIMIT_64, |w| source(w, |s| (s.baseaddr, s.size) = (0, 1 << 63))),
        (&SIZE_POWER, |w| source(w, |s| s.size = 4096)),
        (&SIZE_POWER, |w| source(w, |s| s.size = 0)),
        (&SIZE_POWER, |w| source(w, |s| s.size = 0x3000)),
        (&BASE_ALIGNED, |w| source(w, |s| s.baseaddr += SIZE / 2)),
        (&ATTRIBUTES_SUPPORTED, |w| source(w, |s| s.attributes.flags |= AttributeFlags::INIT)),
        (&ATTRIBUTES_SUPPORTED, |w| source(w, |s| s.attributes.flags |= AttributeFlags::CET)),
        (&ATTRIBUTES_SUPPORTED, |w| {
            source(w, |s| s.attributes.flags = AttributeFlags::from_bits_retain(1 << 3))
        }),
        (&RESERVED, |w| source(w, |s| s.reserved1[0] = 1)),
        (&RESERVED, |w| source(w, |s| s.private.eid = 1)),
        (&RESERVED, |w| source(w, |s| s.private.reserved1[3391] = 1)),
        (&CONFIG_NEEDS_KSS, |w| source(w, |s| s.configid[63] = 1)),
        (&CONFIG_NEEDS_KSS, |w| source(w, |s| s.configsvn = 1)),
    ];
    run_cases(Encls::Ecreate, RULES, creating, &cases);
    run_addresses(
        Encls::Ecreate,
        creating,
        &[
            |w, a| w.port.gpr[gpr::RBX] = a,
            |w, a| w.port.gpr[gpr::RCX] = a,
            |w, a| w.pageinfo(|p| p.srcpge = a),
            |w, a| w.pageinfo(|p| p.secinfo = a),
        ],
    );
}

#[test]
fn ecreate_keeps_what_software_says_and_nothing_else() {
    let mut w = World::new();
    let mut given = secs();
    given.attributes.flags |= AttributeFlags::KSS | AttributeFlags::PROVISIONKEY;
    (given.configid, given.configsvn) = ([7; 64], 8);
    given.miscselect = MiscSelect::EXINFO;
    (given.mrenclave, given.mrsigner) = ([0xaa; 32], [0xbb; 32]);
    (given.isvprodid, given.isvsvn) = (1, 2);
    w.package.dram.write(SECS.0, 0, &[0xcc; PAGE_SIZE]).unwrap();
    assert_eq!(w.ecreate(SECS, &given), Ok(Done::Quiet));
    let made = w.secs_page();
    let mut expected = given.clone();
    (expected.mrenclave, expected.mrsigner) = ([0; 32], [0; 32]);
    (expected.isvprodid, expected.isvsvn) = (0, 0);
    expected.private.eid = made.private.eid;
    (expected.private.hash, expected.private.hash_blocks) = (made.private.hash, 1);
    assert!(made.as_bytes() == expected.as_bytes());
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Secs, secs: SECS, ..Entry::FREE };
    assert_eq!(w.package.epcm.get(SECS), entry);

    assert_eq!(w.ecreate(FREE, &given), Ok(Done::Quiet));
    let other: Secs = w.read(FREE, 0);
    assert!(other.private.eid != 0 && other.private.eid != made.private.eid, "an identifier of its own");
    assert_eq!(w.package.enclaves.all().len(), 2);
}

#[test]
fn ecreate_by_model() {
    // SGX1 has neither EXINFO nor KSS; its enclaves stay below 64 GiB.
    let refused = |change: fn(&mut Secs)| {
        let mut given = secs();
        change(&mut given);
        let mut w = World::with(Config::sgx1(7));
        w.ecreate(SECS, &given) == Err(Exception::GP0)
    };
    assert!(!refused(|_| ()));
    assert!(refused(|s| s.miscselect = MiscSelect::EXINFO));
    assert!(refused(|s| s.attributes.flags |= AttributeFlags::KSS));
    assert!(refused(|s| s.attributes.flags |= AttributeFlags::AEXNOTIFY));
    assert!(refused(|s| s.attributes.xfrm = 0xe7));
    assert!(refused(|s| (s.baseaddr, s.size) = (0, 1 << 36)));
    assert!(!refused(|s| (s.baseaddr, s.size) = (0, 1 << 35)));
    // The largest 32-bit enclave, and one that ends at 4 GiB.
    let narrow = |baseaddr, size| {
        let mut given = Secs { baseaddr, size, ..secs() };
        given.attributes.flags.remove(AttributeFlags::MODE64BIT);
        World::with(Config::sgx1(7)).ecreate(SECS, &given)
    };
    assert_eq!(narrow(0x4000_0000, 1 << 30), Ok(Done::Quiet));
    assert_eq!(narrow(0xffff_0000, 0x1_0000), Ok(Done::Quiet));
}

/// The enclave half built, in front of EADD of one more page.
fn adding() -> World {
    let mut w = World::build();
    w.prepare_eadd(FREE, BASE + 0x3000, flags(PageType::Reg, R | W), &[0x5a; PAGE_SIZE]);
    w
}

fn adding_tcs(w: &mut World, change: impl FnOnce(&mut Tcs)) {
    let mut tcs = tcs();
    change(&mut tcs);
    w.prepare_eadd(FREE, BASE + 0x3000, flags(PageType::Tcs, R), tcs.as_bytes());
}

/// As [`adding`], of a 32-bit enclave.
fn adding_tcs_32(w: &mut World, fslimit: u32, gslimit: u32) {
    let mut secs = secs();
    secs.attributes.flags.remove(AttributeFlags::MODE64BIT);
    *w = World::new();
    w.ecreate(SECS, &secs).unwrap();
    adding_tcs(w, |t| (t.fslimit, t.gslimit) = (fslimit, gslimit));
}

#[test]
fn eadd_rows() {
    use eadd::*;
    let cases: [Case; 38] = [
        (&PAGEINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 16),
        (&TARGET_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&TARGET_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.srcpge += 8)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secs += 0x100)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.secinfo += 32)),
        (&OPERANDS_ALIGNED, |w| w.pageinfo(|p| p.linaddr += 1)),
        (&SECS_IN_EPC, |w| w.pageinfo(|p| p.secs = SOURCE)),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.reserved1[0] = 1)),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(1u64 << 16 | 0x203))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Secs, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Va, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::Trim, R))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::SsFirst, R | W))),
        (&SECINFO_FLAGS, |w| w.secinfo(|s| s.flags = flags(PageType::SsRest, R | W))),
        (&SECINFO_FLAGS, |w| w.put(SECINFO, &(0xffu64 << 8))),
        (&TARGET_CLAIMED, |w| w.held = Some((FREE, Lane::Base, Mode::Shared))),
        (&EPC_PRESENT, |w| w.package.lose()),
        (&TARGET_FREE, |w| w.port.gpr[gpr::RCX] = la(DATA)),
        (&SECS_CLAIMED, |w| w.held = Some((SECS, Lane::Base, Mode::Exclusive))),
        (&SECS_CLAIMED, |w| w.pageinfo(|p| p.secs = la(FREE))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(EpcPage(FREE.0 + 1)))),
        (&SECS_VALID, |w| w.pageinfo(|p| p.secs = la(DATA))),
        (&TCS_RESERVED, |w| adding_tcs(w, |t| t.reserved1[4007] = 1)),
        (&TCS_RESERVED, |w| adding_tcs(w, |t| t.flags = TcsFlags::from_bits_retain(1 << 2))),
        (&TCS_RESERVED, |w| adding_tcs(w, |t| t.ocetssa = 0x1000)),
        (&TCS_RESERVED, |w| adding_tcs(w, |t| t.prevssp = 8)),
        (&TCS_LIMITS, |w| adding_tcs_32(w, 0xffe, 0xfff)),
        (&TCS_LIMITS, |w| adding_tcs_32(w, 0xfff, 0x1000)),
        (&WRITE_NEEDS_READ, |w| w.secinfo(|s| s.flags = flags(PageType::Reg, W))),
        (&WRITE_NEEDS_READ, |w| w.secinfo(|s| s.flags = flags(PageType::Reg, W | X))),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = BASE - 0x1000)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = BASE + SIZE)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = 0)),
        (&IN_ELRANGE, |w| w.pageinfo(|p| p.linaddr = !0xfff)),
        (&MEASUREMENT_CLAIMED, |w| w.held = Some((SECS, Lane::Build, Mode::Exclusive))),
        (&UNINITIALIZED, |w| {
            let operands = w.port.gpr;
            let (info, secinfo) = (w.port.peek(PAGEINFO, 32), w.port.peek(SECINFO, 64));
            w.init();
            w.port.gpr = operands;
            w.port.poke(PAGEINFO, &info);
            w.port.poke(SECINFO, &secinfo);
        }),
        (&UNINITIALIZED, |w| w.set_secs(|s| s.attributes.flags |= AttributeFlags::INIT)),
    ];
    run_cases(Encls::Eadd, RULES, adding, &cases);
    run_addresses(
        Encls::Eadd,
        adding,
        &[
            |w, a| w.port.gpr[gpr::RBX] = a,
            |w, a| w.port.gpr[gpr::RCX] = a,
            |w, a| w.pageinfo(|p| p.srcpge = a),
            |w, a| w.pageinfo(|p| p.secinfo = a),
            |w, a| w.pageinfo(|p| p.secs = a),
        ],
    );
}

#[test]
fn eadd_takes_content_place_and_permissions() {
    let w = World::build();
    for (page, address, bits) in
        [(DATA, BASE + 0x1000, Flags::R | Flags::W), (CODE, BASE + 0x2000, Flags::R | Flags::X)]
    {
        let flags = Flags::VALID | bits;
        let entry = Entry { flags, page_type: PageType::Reg, secs: SECS, address, epoch: 0 };
        assert_eq!(w.package.epcm.get(page), entry);
        assert!(w.read::<[u8; PAGE_SIZE]>(page, 0) == content(page));
    }
    assert_eq!(w.children(), 3);
    // The first and the last page of the range.
    let mut w = adding();
    w.pageinfo(|p| p.linaddr = BASE + SIZE - 0x1000);
    assert_eq!(w.execute(Encls::Eadd), Ok(Done::Quiet));
    assert_eq!(w.children(), 4);
}

#[test]
fn eadd_forces_the_fields_of_a_tcs() {
    let mut w = World::build();
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Tcs, secs: SECS, address: BASE, epoch: 0 };
    assert_eq!(w.package.epcm.get(TCS), entry, "R, W and X were asked for in vain");
    let stored: Tcs = w.read(TCS, 0);
    assert!(stored.as_bytes() == Tcs { cssa: 0, aep: 0, state: 0, ..tcs() }.as_bytes());

    adding_tcs(&mut w, |t| t.flags = TcsFlags::DBGOPTIN | TcsFlags::AEXNOTIFY);
    assert_eq!(w.execute(Encls::Eadd), Ok(Done::Quiet));
    assert!(w.read::<Tcs>(FREE, 0).flags == TcsFlags::AEXNOTIFY);
    // A model without AEX-Notify has no such flag.
    let mut w = World::build_from(World::with(Config::sgx1(7)), &secs());
    adding_tcs(&mut w, |t| t.flags = TcsFlags::AEXNOTIFY);
    assert_eq!(w.execute(Encls::Eadd), Err(Exception::GP0));
}

/// The stream that [`World::build`] is measured as, written out by hand.
fn stream() -> Vec<u8> {
    fn block(stream: &mut Vec<u8>, parts: &[&[u8]]) {
        let at = stream.len();
        parts.iter().for_each(|part| stream.extend_from_slice(part));
        stream.resize(at + 64, 0);
    }
    let mut s = Vec::new();
    block(&mut s, &[b"ECREATE\0", &1u32.to_le_bytes(), &SIZE.to_le_bytes()]);
    for (offset, flags) in [(0u64, 0x100u64), (0x1000, 0x203), (0x2000, 0x205)] {
        block(&mut s, &[b"EADD\0\0\0\0", &offset.to_le_bytes(), &flags.to_le_bytes()]);
    }
    for chunk in 0..16 {
        block(&mut s, &[b"EEXTEND\0", &(0x2000u64 + chunk * 256).to_le_bytes()]);
        s.extend_from_slice(&content(CODE)[chunk as usize * 256..][..256]);
    }
    s
}

#[test]
fn the_measurement_is_the_hash_of_the_stream() {
    let expected: [u8; 32] = Sha256::digest(stream()).into();
    let w = World::running();
    assert_eq!(w.secs_page().mrenclave, expected);

    // A TCS is measured as it is stored, not as it was given.
    let mut w = World::build();
    assert_eq!(w.encls(Encls::Eextend, la(SECS), la(TCS), 0), Ok(Done::Quiet));
    let mut more = stream();
    let mut head = [0; 64];
    head[..8].copy_from_slice(b"EEXTEND\0");
    more.extend(head);
    let stored = Tcs { cssa: 0, aep: 0, state: 0, ..tcs() };
    more.extend(&stored.as_bytes()[..256]);
    assert_eq!(w.sigstruct().enclavehash[..], Sha256::digest(more)[..]);
}

/// In front of EEXTEND of a page's last chunk.
fn extending() -> World {
    let mut w = World::build();
    w.operands(la(SECS), la(DATA) + 0xf00, 0);
    w
}

#[test]
fn eextend_rows() {
    use eextend::*;
    let cases: [Case; 19] = [
        (&SECS_ALIGNED, |w| w.port.gpr[gpr::RBX] += 0x100),
        (&SECS_IN_EPC, |w| w.port.gpr[gpr::RBX] = SOURCE),
        (&CHUNK_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x80),
        (&CHUNK_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Exclusive))),
        (&PAGE_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&PAGE_TYPE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Va)),
        (&PAGE_TYPE, |w| w.entry(DATA, |e| e.page_type = PageType::Trim)),
        (&SECS_MATCHES, |w| w.port.gpr[gpr::RBX] = la(FREE)),
        (&SECS_MATCHES, |w| w.port.gpr[gpr::RBX] = la(DATA)),
        (&SECS_MATCHES, |w| {
            w.ecreate(FREE, &secs()).unwrap();
            w.operands(la(FREE), la(DATA), 0);
        }),
        (&MEASUREMENT_CLAIMED, |w| w.held = Some((SECS, Lane::Build, Mode::Exclusive))),
        (&MEASUREMENT_CLAIMED, |w| w.held = Some((SECS, Lane::Build, Mode::Shared))),
        (&UNINITIALIZED, |w| {
            w.init();
            w.operands(la(SECS), la(DATA), 0);
        }),
        // Where paging leads is all that counts, not the address itself.
        (&PAGE_VALID, |w| w.port.map_epc(la(DATA), FREE)),
        (&SECS_MATCHES, |w| w.port.map_epc(la(SECS), CODE)),
        (&CHUNK_IN_EPC, |w| w.port.map_memory(la(DATA))),
        (&SECS_IN_EPC, |w| w.port.map_memory(la(SECS))),
    ];
    run_cases(Encls::Eextend, RULES, extending, &cases);
    run_addresses(
        Encls::Eextend,
        extending,
        &[|w, a| w.port.gpr[gpr::RBX] = a, |w, a| w.port.gpr[gpr::RCX] = a],
    );
}

/// In front of EINIT, without a token.
fn launching() -> World {
    let mut w = World::build();
    w.sign(&Signer::A, |_| ());
    w.operands(SIGSTRUCT, la(SECS), TOKEN);
    w
}

fn sig(w: &mut World, change: impl FnOnce(&mut Sigstruct)) {
    w.sign(&Signer::A, change);
}

/// The enclave from another SECS.
fn rebuilt(w: &mut World, change: impl FnOnce(&mut Secs)) {
    let mut secs = secs();
    change(&mut secs);
    *w = World::build_from(World::new(), &secs);
    sig(w, |_| ());
    w.operands(SIGSTRUCT, la(SECS), TOKEN);
}

/// Changes a token after its MAC was made.
fn forge(w: &mut World, change: impl FnOnce(&mut Einittoken)) {
    w.token(|_| ());
    w.change(TOKEN, change);
}

#[test]
fn einit_rows() {
    use einit::*;
    let cases: [Case; 59] = [
        (&OPERANDS_ALIGNED, |w| w.port.gpr[gpr::RBX] += 0x800),
        (&OPERANDS_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&TOKEN_ALIGNED, |w| w.port.gpr[gpr::RDX] += 0x100),
        (&SECS_IN_EPC, |w| w.port.gpr[gpr::RCX] = SOURCE),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.header[12] = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.header2[0] = 0)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.vendor = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.exponent = 65537)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.reserved1[83] = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.reserved2[0] = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.reserved3[0] = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.reserved4[11] = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.cet_attributes = 1)),
        (&SIGSTRUCT_FORM, |w| sig(w, |s| s.cet_attributes_mask = 1)),
        (&SIGSTRUCT_FORM, |w| {
            // Form comes before events.
            sig(w, |s| s.vendor = 1);
            w.port.event = true;
        }),
        (&NO_EVENT, |w| w.port.event = true),
        (&NO_EVENT, |w| {
            // Events come before the signature.
            w.change(SIGSTRUCT, |s: &mut Sigstruct| s.q1[0] ^= 1);
            w.port.event = true;
        }),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.signature[0] ^= 1)),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.modulus[383] ^= 0x80)),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.q1[0] ^= 1)),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.q2[383] ^= 1)),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.date += 1)),
        (&SIGNATURE, |w| w.change(SIGSTRUCT, |s: &mut Sigstruct| s.isvsvn += 1)),
        (&SIGNATURE, |w| {
            // The signature comes before the SECS.
            w.change(SIGSTRUCT, |s: &mut Sigstruct| s.q1[0] ^= 1);
            w.port.gpr[gpr::RCX] = la(FREE);
        }),
        (&SECS_CLAIMED, |w| w.held = Some((SECS, Lane::Base, Mode::Exclusive))),
        (&SECS_VALID, |w| w.port.gpr[gpr::RCX] = la(FREE)),
        (&SECS_VALID, |w| w.port.gpr[gpr::RCX] = la(DATA)),
        (&FAMILY_NEEDS_KSS, |w| sig(w, |s| s.isvfamilyid[0] = 1)),
        (&MEASUREMENT_CLAIMED, |w| w.held = Some((SECS, Lane::Build, Mode::Exclusive))),
        (&UNINITIALIZED, |w| {
            w.execute(Encls::Einit).unwrap();
        }),
        (&MEASUREMENT, |w| sig(w, |s| s.enclavehash[31] ^= 1)),
        (&MEASUREMENT, |w| {
            w.encls(Encls::Eextend, la(SECS), la(DATA), 0).unwrap();
            w.operands(SIGSTRUCT, la(SECS), TOKEN);
        }),
        (&CONTROLLED, |w| {
            rebuilt(w, |s| s.attributes.flags |= AttributeFlags::EINITTOKEN_KEY);
            w.launch_key(&Signer::B);
        }),
        (&CONTROLLED, |w| {
            // No token helps there.
            rebuilt(w, |s| s.attributes.flags |= AttributeFlags::EINITTOKEN_KEY);
            w.token(|_| ());
        }),
        (&ATTRIBUTES, |w| sig(w, |s| s.attributes.flags.remove(AttributeFlags::DEBUG))),
        (&ATTRIBUTES, |w| sig(w, |s| s.attributes.flags |= AttributeFlags::PROVISIONKEY)),
        (&ATTRIBUTES, |w| sig(w, |s| s.attributes.xfrm = 7)),
        (&ATTRIBUTES, |w| sig(w, |s| s.attributes.flags |= AttributeFlags::INIT)),
        (&MISCSELECT, |w| sig(w, |s| s.miscselect = MiscSelect::EXINFO)),
        (&MISCSELECT, |w| sig(w, |s| s.miscselect = MiscSelect::from_bits_retain(1 << 31))),
        (&LAUNCH_KEY, |w| w.launch_key(&Signer::B)),
        (&LAUNCH_KEY, |w| w.package.set_launch_hash_msr(3, 0)),
        (&LAUNCH_KEY, |w| w.token(|t| t.valid = 0)),
        (&LAUNCH_KEY, |w| w.token(|t| t.valid = 2)),
        (&TOKEN_DEBUG, |w| {
            rebuilt(w, |s| s.attributes.flags.remove(AttributeFlags::DEBUG));
            w.token(|t| t.maskedattributesle.flags |= AttributeFlags::DEBUG);
        }),
        (&TOKEN_RESERVED, |w| w.token(|t| t.valid = 3)),
        (&TOKEN_RESERVED, |w| w.token(|t| t.reserved1[43] = 1)),
        (&TOKEN_RESERVED, |w| w.token(|t| t.reserved2[0] = 1)),
        (&TOKEN_RESERVED, |w| w.token(|t| t.reserved3[31] = 1)),
        (&TOKEN_RESERVED, |w| w.token(|t| t.reserved4[0] = 1)),
        (&TOKEN_RESERVED, |w| w.token(|t| t.cet_masked_attributes_le = 1)),
        (&TOKEN_CPUSVN, |w| w.token(|t| t.cpusvnle[0] = CPUSVN + 1)),
        (&TOKEN_CPUSVN, |w| w.token(|t| t.cpusvnle[15] = 1)),
        (&TOKEN_MAC, |w| forge(w, |t| t.mac[15] ^= 1)),
        (&TOKEN_MAC, |w| forge(w, |t| t.keyid[0] ^= 1)),
        (&TOKEN_MAC, |w| forge(w, |t| t.isvsvnle += 1)),
        (&TOKEN_IDENTITY, |w| w.token(|t| t.mrenclave[0] ^= 1)),
        (&TOKEN_IDENTITY, |w| w.token(|t| t.mrsigner = Signer::B.mrsigner())),
        (&TOKEN_ATTRIBUTES, |w| w.token(|t| t.attributes.flags.remove(AttributeFlags::DEBUG))),
    ];
    run_cases(Encls::Einit, RULES, launching, &cases);
    run_addresses(
        Encls::Einit,
        launching,
        &[|w, a| w.port.gpr[gpr::RBX] = a, |w, a| w.port.gpr[gpr::RCX] = a, |w, a| w.port.gpr[gpr::RDX] = a],
    );
}

#[test]
fn einit_commits_the_identity() {
    let mut w = World::build_from(World::new(), &{
        let mut secs = secs();
        secs.attributes.flags |= AttributeFlags::KSS;
        (secs.configid, secs.configsvn) = ([6; 64], 7);
        secs
    });
    let before = w.secs_page();
    sig(&mut w, |s| (s.isvfamilyid, s.isvextprodid) = ([8; 16], [9; 16]));
    assert_eq!(w.encls(Encls::Einit, SIGSTRUCT, la(SECS), TOKEN), Ok(Done::Success));
    let after = w.secs_page();
    let mut expected = before.clone();
    expected.mrenclave = Sha256::digest(stream()).into();
    expected.mrsigner = Signer::A.mrsigner();
    (expected.isvprodid, expected.isvsvn) = (0x1234, 0x5678);
    (expected.private.isvfamilyid, expected.private.isvextprodid) = ([8; 16], [9; 16]);
    expected.private.padding = PADDING;
    expected.attributes.flags |= AttributeFlags::INIT;
    assert!(after.as_bytes() == expected.as_bytes());
}

#[test]
fn einit_honours_the_masks() {
    let mut w = launching();
    sig(&mut w, |s| {
        s.attributes = Attributes { flags: AttributeFlags::PROVISIONKEY, xfrm: 0xff };
        s.attributemask = Attributes::default();
        (s.miscselect, s.miscmask) = (MiscSelect::EXINFO, !1);
        s.vendor = Sigstruct::VENDOR_INTEL;
        s.swdefined = 5;
    });
    assert_eq!(w.execute(Encls::Einit), Ok(Done::Success));
    assert!(w.secs_page().attributes.flags == secs().attributes.flags | AttributeFlags::INIT);
}

#[test]
fn einit_with_a_token() {
    // A token of a launch enclave with another signer, of this version or an older one.
    for svn in [CPUSVN, 1] {
        let mut w = launching();
        w.token(|t| t.cpusvnle[0] = svn);
        assert_eq!(w.execute(Encls::Einit), Ok(Done::Success), "CPUSVN {svn}");
        assert_eq!(w.secs_page().mrsigner, Signer::A.mrsigner());
    }
    // A debug launch enclave's, for a debug enclave.
    let mut w = launching();
    w.token(|t| t.maskedattributesle.flags |= AttributeFlags::DEBUG);
    assert_eq!(w.execute(Encls::Einit), Ok(Done::Success));
    // Of the same launch enclave on another platform.
    let mut w = launching();
    w.token(|_| ());
    let mut elsewhere = roots();
    elsewhere.seal_fuses[0] ^= 1;
    w.change(TOKEN, |t: &mut Einittoken| {
        let key = keys::einittoken_key(&elsewhere, t, &Signer::B.mrsigner()).unwrap();
        t.mac = keys::cmac(&key, t.mac_data());
    });
    assert_eq!(w.execute(Encls::Einit), code(Status::InvalidEinittoken));
    // With the launch key changed after the token was made.
    let mut w = launching();
    w.token(|_| ());
    w.launch_key(&Signer::A);
    assert_eq!(w.execute(Encls::Einit), code(Status::InvalidEinittoken), "a valid token is looked at");
}

#[test]
fn the_launch_enclave_can_make_the_token() {
    // The key that EGETKEY would give a launch enclave of signer B makes tokens that
    // EINIT accepts: derivation on both sides agrees.
    let mut w = World::build_from(World::new(), &{
        let mut secs = secs();
        secs.attributes.flags = AttributeFlags::MODE64BIT | AttributeFlags::EINITTOKEN_KEY;
        secs
    });
    w.launch_key(&Signer::B);
    w.sign(&Signer::B, |_| ());
    assert_eq!(w.encls(Encls::Einit, SIGSTRUCT, la(SECS), TOKEN), Ok(Done::Success));
    let launch = w.secs_page();
    let request = Keyrequest {
        isvsvn: 2,
        cpusvn: roots().cpusvn(),
        attributemask: Attributes { flags: AttributeFlags::EINITTOKEN_KEY, xfrm: 0 },
        keyid: [0x77; 32],
        ..Keyrequest::default()
    };
    let key = keys::requested_key(&roots(), sgx_abi::KeyName::Einittoken, &launch, &request).unwrap();

    let mut w = launching();
    w.token(|_| ());
    w.change(TOKEN, |t: &mut Einittoken| {
        (t.isvprodidle, t.isvsvnle, t.keyid) = (launch.isvprodid, 2, [0x77; 32]);
        let flags = AttributeFlags::EINITTOKEN_KEY | AttributeFlags::INIT;
        t.maskedattributesle = Attributes { flags, xfrm: 0 };
        t.mac = keys::cmac(&key, t.mac_data());
    });
    assert_eq!(w.execute(Encls::Einit), Ok(Done::Success));
}

#[test]
fn einit_reserves_what_a_model_lacks() {
    for (change, status) in [
        ((|s| s.isvfamilyid[15] = 1) as fn(&mut Sigstruct), Status::InvalidSigStruct),
        (|s| s.isvextprodid[15] = 1, Status::InvalidSigStruct),
    ] {
        let mut w = World::build_from(World::with(Config::sgx1(7)), &secs());
        sig(&mut w, change);
        assert_eq!(w.encls(Encls::Einit, SIGSTRUCT, la(SECS), TOKEN), code(status));
    }
}

/// In front of EREMOVE of a page of a running enclave.
fn removing() -> World {
    let mut w = World::running();
    w.operands(0, la(DATA), 0);
    w
}

#[test]
fn eremove_rows() {
    use eremove::*;
    let cases: [Case; 12] = [
        (&PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 0x800),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = MEMORY),
        (&PAGE_CLAIMED, |w| w.held = Some((DATA, Lane::Base, Mode::Shared))),
        (&PAGE_CLAIMED, |w| {
            w.operands(0, la(SECS), 0);
            w.held = Some((SECS, Lane::Base, Mode::Shared));
        }),
        (&PAGE_CLAIMED, |w| {
            w.operands(0, la(FREE), 0);
            w.held = Some((FREE, Lane::Base, Mode::Exclusive));
        }),
        (&CHILDLESS, |w| w.operands(0, la(SECS), 0)),
        (&CHILDLESS, |w| {
            // One child is enough.
            for page in [TCS, DATA] {
                assert_eq!(w.encls(Encls::Eremove, 0, la(page), 0), Ok(Done::Success));
            }
            w.operands(0, la(SECS), 0);
        }),
        (&INACTIVE, |w| _ = w.someone_enters()),
        (&INACTIVE, |w| {
            w.someone_enters();
            w.operands(0, la(TCS), 0);
        }),
        (&INACTIVE, |w| {
            w.someone_enters();
            w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Trim, Flags::VALID | Flags::MODIFIED));
        }),
        (&INACTIVE, |w| {
            w.someone_enters();
            w.entry(DATA, |e| e.flags |= Flags::PENDING);
        }),
        (&INACTIVE, |w| {
            w.someone_enters();
            w.entry(DATA, |e| e.flags |= Flags::BLOCKED);
        }),
    ];
    run_cases(Encls::Eremove, RULES, removing, &cases);
    run_addresses(Encls::Eremove, removing, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

#[test]
fn eremove_frees_a_page_and_its_content() {
    let mut w = removing();
    assert_eq!(w.execute(Encls::Eremove), Ok(Done::Success));
    assert_eq!(w.package.epcm.get(DATA), Entry::FREE);
    assert!(w.read::<[u8; PAGE_SIZE]>(DATA, 0) == [0; PAGE_SIZE], "nothing of it is left");
    assert_eq!(w.children(), 2);
    // Again: it is not in use, and that is no error.
    assert_eq!(w.execute(Encls::Eremove), Ok(Done::Success));
    assert_eq!(w.children(), 2);
    for page in [TCS, CODE, SECS] {
        assert_eq!(w.encls(Encls::Eremove, 0, la(page), 0), Ok(Done::Success));
    }
    assert!(w.package.enclaves.all().is_empty() && w.package.epcm.valid().next().is_none());
    // The SECS page can be anything now.
    assert_eq!(w.encls(Encls::Epa, PageType::Va as u64, la(SECS), 0), Ok(Done::Quiet));
}

#[test]
fn eremove_of_a_trimmed_and_accepted_page_does_not_wait() {
    let mut w = removing();
    w.someone_enters();
    w.entry(DATA, |e| (e.page_type, e.flags) = (PageType::Trim, Flags::VALID));
    assert_eq!(w.execute(Encls::Eremove), Ok(Done::Success));
    assert_eq!((w.package.epcm.get(DATA), w.children()), (Entry::FREE, 2));
}

#[test]
fn eremove_of_a_version_array_does_not_look_at_enclaves() {
    let mut w = removing();
    w.someone_enters();
    assert_eq!(w.encls(Encls::Epa, PageType::Va as u64, la(FREE), 0), Ok(Done::Quiet));
    assert_eq!(w.encls(Encls::Eremove, 0, la(FREE), 0), Ok(Done::Success));
    assert_eq!((w.package.epcm.get(FREE), w.children()), (Entry::FREE, 3));
}

#[test]
fn a_lost_epc_can_be_removed_but_not_used() {
    // Told to the package, as by an operator, or found out by the engine.
    for told in [true, false] {
        let mut w = World::running();
        if told {
            w.package.lose()
        } else {
            w.package.dram.lose()
        }
        for page in (0..PAGES).map(EpcPage) {
            assert_eq!(w.encls(Encls::Eremove, 0, la(page), 0), Ok(Done::Success), "{page:?}");
            assert_eq!(w.package.epcm.get(page), Entry::FREE);
        }
        assert_eq!(w.ecreate(SECS, &secs()), Err(Exception::GP0));
        assert_eq!(w.encls(Encls::Epa, PageType::Va as u64, la(FREE), 0), Err(Exception::GP0));
        assert!(w.package.epcm.valid().next().is_none());
        w.package.reset().unwrap();
        assert_eq!(w.ecreate(SECS, &secs()), Ok(Done::Quiet), "until reset");
    }
}

fn making_va() -> World {
    let mut w = World::build();
    w.operands(PageType::Va as u64, la(FREE), 0);
    w
}

#[test]
fn epa_rows() {
    use epa::*;
    let cases: [Case; 10] = [
        (&OPERANDS, |w| w.port.gpr[gpr::RBX] = 0),
        (&OPERANDS, |w| w.port.gpr[gpr::RBX] = PageType::Reg as u64),
        (&OPERANDS, |w| w.port.gpr[gpr::RBX] |= 1 << 32),
        (&OPERANDS, |w| w.port.gpr[gpr::RCX] += 8),
        (&PAGE_IN_EPC, |w| w.port.gpr[gpr::RCX] = MEMORY),
        (&PAGE_CLAIMED, |w| w.held = Some((FREE, Lane::Base, Mode::Shared))),
        (&EPC_PRESENT, |w| w.package.lose()),
        (&PAGE_FREE, |w| w.port.gpr[gpr::RCX] = la(DATA)),
        (&PAGE_FREE, |w| w.port.gpr[gpr::RCX] = la(SECS)),
        (&PAGE_FREE, |w| w.entry(FREE, |e| (e.flags, e.page_type) = (Flags::VALID, PageType::Va))),
    ];
    run_cases(Encls::Epa, RULES, making_va, &cases);
    run_addresses(Encls::Epa, making_va, &[|w, a| w.port.gpr[gpr::RCX] = a]);
}

#[test]
fn epa_makes_an_empty_version_array() {
    let mut w = making_va();
    w.package.dram.write(FREE.0, 0, &[0xee; PAGE_SIZE]).unwrap();
    assert_eq!(w.execute(Encls::Epa), Ok(Done::Quiet));
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Va, ..Entry::FREE };
    assert_eq!(w.package.epcm.get(FREE), entry);
    assert!(w.read::<[u8; PAGE_SIZE]>(FREE, 0) == [0; PAGE_SIZE]);
    // Outside 64-bit mode the upper half of RBX does not count.
    let mut w = making_va();
    w.port.control.long64 = false;
    w.port.gpr[gpr::RBX] |= 1 << 32;
    assert_eq!(w.execute(Encls::Epa), Ok(Done::Quiet));
}

#[test]
fn operands_in_the_epc_read_as_ones() {
    // A PAGEINFO, a source page or a SECINFO in the EPC is the abort page: it is read
    // as ones, never as an enclave's content.
    let mut w = adding();
    w.pageinfo(|p| p.srcpge = la(DATA));
    assert_eq!(w.execute(Encls::Eadd), Ok(Done::Quiet));
    assert!(w.read::<[u8; PAGE_SIZE]>(FREE, 0) == [0xff; PAGE_SIZE]);
    let mut w = adding();
    w.pageinfo(|p| p.secinfo = la(DATA));
    assert_eq!(w.execute(Encls::Eadd), Err(Exception::GP0));
    let mut w = launching();
    w.port.gpr[gpr::RBX] = la(DATA);
    assert_eq!(w.execute(Encls::Einit), code(Status::InvalidSigStruct));
}

#[test]
fn tampering_found_by_a_leaf_loses_the_epc() {
    let mut w = World::build();
    w.package.dram.lose();
    assert_eq!(w.encls(Encls::Eextend, la(SECS), la(DATA), 0), Err(Exception::GP0));
    assert!(w.package.is_lost() && w.package.epcm.valid().next().is_none());
    assert!(w.package.enclaves.all().is_empty());
    let fault = w.encls(Encls::Eextend, la(SECS), la(DATA), 0).unwrap_err();
    assert_eq!((fault.vector, fault.error & 1 << 15), (Vector::PageFault, 1 << 15));
}
