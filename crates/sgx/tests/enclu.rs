//! ENCLU, leaf by leaf: one case for each row of each table, and what the leaves do.

mod inside;

use arch::regs::{gpr, rflags};
use arch::{Exception, Vector};
use inside::{
    AEP, BASE, CODE, Case, DATA, EXTRA, FOREIGN, HOST, OUTPUT, PENDING, SECS, SIZE, SOURCE, SSA, TCS, World,
    page, run,
};
use sgx::claim::{Lane, Mode};
use sgx::enclu::{eaccept, eacceptcopy, edeccssa, eenter, eexit, egetkey, emodpe, ereport, eresume};
use sgx::epcm::Flags;
use sgx::{Done, Leaf, keys};
use sgx_abi::{
    AttributeFlags, Enclu, GprSgx, KeyName, KeyPolicy, Keyrequest, PAGE_SIZE, PageType, Report, Secinfo,
    SecinfoFlags, Targetinfo, Tcs, TcsFlags,
};
use zerocopy::IntoBytes;

const NONCANONICAL: u64 = 1 << 47;

/// Rows about the TCS and about where to go on, which entering leaves share.
macro_rules! entry_cases {
    ($leaf:ident) => {{
        let cases: Vec<Case> = vec![
            (&$leaf::DS_EXPAND_UP, |w| (w.narrow(), w.port.segments[3].attr |= 1 << 2).0),
            (&$leaf::CS_DS_BASE, |w| (w.narrow(), w.port.segments[1].base = 0x1000).0),
            (&$leaf::CS_DS_BASE, |w| (w.narrow(), w.port.segments[3].base = 0x1000).0),
            (&$leaf::ES_BASE, |w| (w.narrow(), w.port.segments[0].base = 0x1000).0),
            (&$leaf::SS_BASE, |w| (w.narrow(), w.port.segments[2].base = 0x1000).0),
            (&$leaf::SS_BIG, |w| (w.narrow(), w.port.segments[2].attr &= !(1 << 14)).0),
            (&$leaf::TCS_ALIGNED, |w| w.port.gpr[gpr::RBX] += 8),
            (&$leaf::TCS_IN_EPC, |w| w.port.map_memory(TCS)),
            (&$leaf::AEP_CANONICAL, |w| w.port.gpr[gpr::RCX] = NONCANONICAL),
            (&$leaf::TCS_FREE, |w| w.held = Some((page(TCS), Lane::Base, Mode::Exclusive))),
            (&$leaf::TCS_VALID, |w| w.epcm(TCS, |e| e.flags.remove(Flags::VALID))),
            (&$leaf::TCS_UNBLOCKED, |w| w.epcm(TCS, |e| e.flags |= Flags::BLOCKED)),
            (&$leaf::TCS_PLACE, |w| w.epcm(TCS, |e| e.address += 0x1000)),
            (&$leaf::TCS_PLACE, |w| w.epcm(TCS, |e| e.page_type = PageType::Reg)),
            (&$leaf::TCS_ACCEPTED, |w| w.epcm(TCS, |e| e.flags |= Flags::PENDING)),
            (&$leaf::TCS_ACCEPTED, |w| w.epcm(TCS, |e| e.flags |= Flags::MODIFIED)),
            (&$leaf::OSSA_ALIGNED, |w| w.tcs(|t| t.ossa += 0x80)),
            (&$leaf::FS_GS_ALIGNED, |w| w.tcs(|t| t.ofsbase += 1)),
            (&$leaf::FS_GS_ALIGNED, |w| w.tcs(|t| t.ogsbase += 1)),
            (&$leaf::FLAGS_RESERVED, |w| w.tcs(|t| t.flags = TcsFlags::from_bits_retain(1 << 2))),
            (&$leaf::FLAGS_RESERVED, |w| w.tcs(|t| t.flags = TcsFlags::from_bits_retain(1 << 63))),
            (&$leaf::INITIALIZED, |w| w.secs(|s| s.attributes.flags.remove(AttributeFlags::INIT))),
            (&$leaf::MODE, |w| w.secs(|s| s.attributes.flags.remove(AttributeFlags::MODE64BIT))),
            (&$leaf::MODE, |w| w.port.control.long64 = false),
            (&$leaf::OSFXSR, |w| w.port.control.osfxsr = false),
            (&$leaf::XFRM_LEGACY, |w| w.port.control.osxsave = false),
            (&$leaf::XFRM_IN_XCR0, |w| w.port.control.xcr0 = 3),
            (&$leaf::AEXNOTIFY_AGREES, |w| w.tcs(|t| t.flags = TcsFlags::AEXNOTIFY)),
            (&$leaf::AEXNOTIFY_AGREES, |w| w.secs(|s| s.attributes.flags |= AttributeFlags::AEXNOTIFY)),
            (&$leaf::TARGET_IN_CS, |w| (w.narrow(), w.port.segments[1].limit = 0x1000).0),
            (&$leaf::FS_WRAP, |w| {
                w.narrow();
                w.port.segments[3].limit = u32::MAX - 1;
                w.tcs(|t| t.fslimit = u32::MAX);
            }),
            (&$leaf::FS_LIMIT, |w| {
                w.narrow();
                w.port.segments[3].limit = 0x2000_0000;
                w.tcs(|t| t.fslimit = 0x7fff_ffff);
            }),
            (&$leaf::GS_WRAP, |w| {
                w.narrow();
                w.port.segments[3].limit = u32::MAX - 1;
                w.tcs(|t| t.gslimit = u32::MAX);
            }),
            (&$leaf::GS_LIMIT, |w| {
                w.narrow();
                w.port.segments[3].limit = 0x2000_0000;
                w.tcs(|t| t.gslimit = 0x7fff_ffff);
            }),
            (&$leaf::INACTIVE, |w| w.tcs(|t| t.state = 1)),
        ];
        cases
    }};
}

/// Rows about a page of an SSA frame at `$la`; `$also` makes the leaf look at it.
macro_rules! page_cases {
    ($also:expr, $la:expr, $in_epc:expr, $valid:expr, $unblocked:expr, $accepted:expr, $usable:expr) => {{
        let cases: Vec<Case> = vec![
            (&$in_epc, |w| ($also(w), w.port.map_memory($la)).1),
            (&$valid, |w| ($also(w), w.epcm($la, |e| e.flags.remove(Flags::VALID))).1),
            (&$valid, |w| ($also(w), w.held = Some((page($la), Lane::Base, Mode::Exclusive))).1),
            (&$unblocked, |w| ($also(w), w.epcm($la, |e| e.flags |= Flags::BLOCKED)).1),
            (&$accepted, |w| ($also(w), w.epcm($la, |e| e.flags |= Flags::PENDING)).1),
            (&$accepted, |w| ($also(w), w.epcm($la, |e| e.flags |= Flags::MODIFIED)).1),
            (&$usable, |w| ($also(w), w.epcm($la, |e| e.address += 0x1000)).1),
            (&$usable, |w| ($also(w), w.epcm($la, |e| e.page_type = PageType::Trim)).1),
            (&$usable, |w| ($also(w), w.epcm($la, |e| e.secs = FOREIGN)).1),
            (&$usable, |w| ($also(w), w.epcm($la, |e| e.flags.remove(Flags::R))).1),
            (&$usable, |w| ($also(w), w.epcm($la, |e| e.flags.remove(Flags::W))).1),
        ];
        cases
    }};
}

macro_rules! frame_cases {
    ($leaf:ident) => {{
        let mut cases = page_cases!(
            |_: &mut World| (),
            SSA,
            $leaf::XSAVE_IN_EPC,
            $leaf::XSAVE_VALID,
            $leaf::XSAVE_UNBLOCKED,
            $leaf::XSAVE_ACCEPTED,
            $leaf::XSAVE_USABLE
        );
        cases.extend(page_cases!(
            |_: &mut World| (),
            SSA + 0x1000,
            $leaf::GPR_IN_EPC,
            $leaf::GPR_VALID,
            $leaf::GPR_UNBLOCKED,
            $leaf::GPR_ACCEPTED,
            $leaf::GPR_USABLE
        ));
        cases.push((&$leaf::GPR_IN_DS, |w| {
            w.narrow();
            w.port.segments[3].limit = (SSA + 0x1100) as u32;
        }));
        cases
    }};
}

#[test]
fn eenter_rows() {
    let mut cases = entry_cases!(eenter);
    cases.extend(frame_cases!(eenter));
    let own: [Case; 5] = [
        (&eenter::FRAME_LEFT, |w| w.tcs(|t| t.nssa = 0)),
        (&eenter::FRAME_LEFT, |w| w.tcs(|t| t.cssa = 3)),
        (&eenter::TARGET_CANONICAL, |w| w.tcs(|t| t.oentry = NONCANONICAL)),
        (&eenter::FS_GS_CANONICAL, |w| w.tcs(|t| t.ofsbase = NONCANONICAL)),
        (&eenter::FS_GS_CANONICAL, |w| w.tcs(|t| t.ogsbase = NONCANONICAL)),
    ];
    cases.extend(own);
    run(Enclu::Eenter, eenter::RULES, |w| w.operands(TCS, AEP, 0), &cases);
}

fn interrupted(w: &mut World) {
    w.enter();
    w.aex(Vector::DivideError, 0, 0);
}

fn notified(w: &mut World) {
    w.secs(|s| s.attributes.flags |= AttributeFlags::AEXNOTIFY);
    w.tcs(|t| t.flags |= TcsFlags::AEXNOTIFY);
    w.set_frame(0, |f| f.aexnotify = 1);
}

#[test]
fn eresume_rows() {
    let mut cases = entry_cases!(eresume);
    cases.extend(frame_cases!(eresume));
    cases.extend(page_cases!(
        notified,
        SSA + 0x2000,
        eresume::NOTIFY_XSAVE_IN_EPC,
        eresume::NOTIFY_XSAVE_VALID,
        eresume::NOTIFY_XSAVE_UNBLOCKED,
        eresume::NOTIFY_XSAVE_ACCEPTED,
        eresume::NOTIFY_XSAVE_USABLE
    ));
    cases.extend(page_cases!(
        notified,
        SSA + 0x3000,
        eresume::NOTIFY_GPR_IN_EPC,
        eresume::NOTIFY_GPR_VALID,
        eresume::NOTIFY_GPR_UNBLOCKED,
        eresume::NOTIFY_GPR_ACCEPTED,
        eresume::NOTIFY_GPR_USABLE
    ));
    let own: [Case; 11] = [
        (&eresume::FRAME_USED, |w| w.tcs(|t| t.cssa = 0)),
        (&eresume::NOTIFY_FRAME_LEFT, |w| (notified(w), w.tcs(|t| t.nssa = 1)).1),
        (&eresume::NOTIFY_GPR_IN_DS, |w| {
            notified(w);
            w.narrow();
            w.port.segments[3].limit = (SSA + 0x3100) as u32;
        }),
        (&eresume::TARGET_CANONICAL, |w| w.set_frame(0, |f| f.rip = NONCANONICAL)),
        (&eresume::TARGET_CANONICAL, |w| (notified(w), w.tcs(|t| t.oentry = NONCANONICAL)).1),
        (&eresume::FS_GS_CANONICAL, |w| w.set_frame(0, |f| f.fsbase = NONCANONICAL)),
        (&eresume::FS_GS_CANONICAL, |w| w.set_frame(0, |f| f.gsbase = NONCANONICAL)),
        (&eresume::XSAVE_HEADER_VALID, |w| w.change(page(SSA), 512, |bv: &mut u64| *bv |= 1 << 5)),
        (&eresume::XSAVE_HEADER_VALID, |w| w.change(page(SSA), 520, |b: &mut u8| *b = 1)),
        (&eresume::XSAVE_HEADER_VALID, |w| w.change(page(SSA), 535, |b: &mut u8| *b = 1)),
        (&eresume::XRSTOR, |w| w.change(page(SSA), 540, |b: &mut u8| *b = 0xee)),
    ];
    cases.extend(own);
    run(Enclu::Eresume, eresume::RULES, interrupted, &cases);
}

#[test]
fn eexit_rows() {
    let cases: [Case; 2] = [
        (&eexit::TARGET_CANONICAL, |w| w.port.gpr[gpr::RBX] = NONCANONICAL),
        (&eexit::TARGET_IN_CS, |w| (w.narrow(), w.port.segments[1].limit = 0x1000).0),
    ];
    run(Enclu::Eexit, eexit::RULES, |w| (w.enter(), w.operands(HOST, 0, 0)).1, &cases);
}

#[test]
fn edeccssa_rows() {
    let mut cases = frame_cases!(edeccssa);
    let own: [Case; 2] = [
        (&edeccssa::TCS_FREE, |w| w.held = Some((page(TCS), Lane::Base, Mode::Exclusive))),
        (&edeccssa::FRAME_USED, |w| w.tcs(|t| t.cssa = 0)),
    ];
    cases.extend(own);
    run(Enclu::Edeccssa, edeccssa::RULES, |w| (interrupted(w), w.enter()).1, &cases);
}

/// Rows about an operand in `$register` at `$la`, with the permission it needs.
macro_rules! operand_cases {
    ($register:expr, $la:expr, $align:expr, $permission:expr,
     $place:expr, $in_epc:expr, $valid:expr, $unblocked:expr, $usable:expr) => {{
        let cases: Vec<Case> = vec![
            (&$place, |w| w.port.gpr[$register] += $align / 2),
            (&$place, |w| w.port.gpr[$register] = HOST),
            (&$place, |w| w.port.gpr[$register] = BASE + SIZE),
            (&$in_epc, |w| w.port.map_memory($la)),
            (&$valid, |w| w.epcm($la, |e| e.flags.remove(Flags::VALID))),
            (&$unblocked, |w| w.epcm($la, |e| e.flags |= Flags::BLOCKED)),
            (&$usable, |w| w.epcm($la, |e| e.page_type = PageType::Tcs)),
            (&$usable, |w| w.epcm($la, |e| e.secs = FOREIGN)),
            (&$usable, |w| w.epcm($la, |e| e.flags |= Flags::PENDING)),
            (&$usable, |w| w.epcm($la, |e| e.flags |= Flags::MODIFIED)),
            (&$usable, |w| w.epcm($la, |e| e.address += 0x1000)),
            (&$usable, |w| w.epcm($la, |e| e.flags.remove($permission))),
        ];
        cases
    }};
}

#[test]
fn ereport_rows() {
    let mut cases = operand_cases!(
        gpr::RBX,
        DATA,
        512,
        Flags::R,
        ereport::TARGET_PLACE,
        ereport::TARGET_IN_EPC,
        ereport::TARGET_VALID,
        ereport::TARGET_UNBLOCKED,
        ereport::TARGET_USABLE
    );
    cases.extend(operand_cases!(
        gpr::RCX,
        SOURCE,
        128,
        Flags::R,
        ereport::DATA_PLACE,
        ereport::DATA_IN_EPC,
        ereport::DATA_VALID,
        ereport::DATA_UNBLOCKED,
        ereport::DATA_USABLE
    ));
    cases.extend(operand_cases!(
        gpr::RDX,
        OUTPUT,
        512,
        Flags::W,
        ereport::OUTPUT_PLACE,
        ereport::OUTPUT_IN_EPC,
        ereport::OUTPUT_VALID,
        ereport::OUTPUT_UNBLOCKED,
        ereport::OUTPUT_USABLE
    ));
    cases.push((&ereport::TARGET_RESERVED, |w| w.change(page(DATA), 511, |b: &mut u8| *b = 1)));
    cases.push((&ereport::TARGET_RESERVED, |w| w.change(page(DATA), 48, |b: &mut u8| *b = 1)));
    run(Enclu::Ereport, ereport::RULES, |w| (w.enter(), w.operands(DATA, SOURCE, OUTPUT)).1, &cases);
}

fn request(w: &mut World, change: impl FnOnce(&mut Keyrequest)) {
    w.change(page(DATA), 0, change);
}

#[test]
fn egetkey_rows() {
    fn prepare(w: &mut World) {
        w.enter();
        w.operands(DATA, OUTPUT + 0x10, 0);
        request(w, |r| (r.keyname = KeyName::Seal as u16, r.keypolicy = KeyPolicy::MRSIGNER).1);
    }
    let mut cases = operand_cases!(
        gpr::RBX,
        DATA,
        512,
        Flags::R,
        egetkey::REQUEST_PLACE,
        egetkey::REQUEST_VALID,
        egetkey::REQUEST_VALID,
        egetkey::REQUEST_UNBLOCKED,
        egetkey::REQUEST_USABLE
    );
    cases.extend(operand_cases!(
        gpr::RCX,
        OUTPUT,
        16,
        Flags::W,
        egetkey::OUTPUT_PLACE,
        egetkey::OUTPUT_VALID,
        egetkey::OUTPUT_VALID,
        egetkey::OUTPUT_UNBLOCKED,
        egetkey::OUTPUT_USABLE
    ));
    fn without(w: &mut World, attribute: AttributeFlags) {
        w.secs(|s| s.attributes.flags.remove(attribute));
    }
    let own: [Case; 21] = [
        (&egetkey::REQUEST_RESERVED, |w| request(w, |r| r.reserved1 = 1)),
        (&egetkey::REQUEST_RESERVED, |w| request(w, |r| r.reserved2[433] = 1)),
        (&egetkey::REQUEST_RESERVED, |w| request(w, |r| r.cet_attributes_mask = 1)),
        (&egetkey::REQUEST_RESERVED, |w| request(w, |r| r.keypolicy = KeyPolicy::from_bits_retain(0x40))),
        (&egetkey::KSS, |w| (without(w, AttributeFlags::KSS), request(w, |r| r.configsvn = 1)).1),
        (&egetkey::KSS, |w| {
            without(w, AttributeFlags::KSS);
            request(w, |r| r.keypolicy = KeyPolicy::NOISVPRODID);
        }),
        (&egetkey::KEYNAME, |w| request(w, |r| r.keyname = 5)),
        (&egetkey::EINITTOKEN_KEY, |w| {
            without(w, AttributeFlags::EINITTOKEN_KEY);
            request(w, |r| r.keyname = KeyName::Einittoken as u16);
        }),
        (&egetkey::LAUNCH_SIGNER, |w| {
            w.secs(|s| s.mrsigner[0] ^= 1);
            request(w, |r| r.keyname = KeyName::Einittoken as u16);
        }),
        (&egetkey::PROVISIONKEY, |w| {
            without(w, AttributeFlags::PROVISIONKEY);
            request(w, |r| r.keyname = KeyName::Provision as u16);
        }),
        (&egetkey::PROVISIONKEY, |w| {
            without(w, AttributeFlags::PROVISIONKEY);
            request(w, |r| r.keyname = KeyName::ProvisionSeal as u16);
        }),
        (&egetkey::CPUSVN, |w| request(w, |r| r.cpusvn[0] = 5)),
        (&egetkey::CPUSVN, |w| request(w, |r| r.cpusvn[15] = 1)),
        (&egetkey::CPUSVN, |w| request(w, |r| (r.keyname = 0, r.cpusvn[0] = 5).1)),
        (&egetkey::CPUSVN, |w| request(w, |r| (r.keyname = 1, r.cpusvn[0] = 5).1)),
        (&egetkey::CPUSVN, |w| request(w, |r| (r.keyname = 2, r.cpusvn[0] = 5).1)),
        (&egetkey::ISVSVN, |w| request(w, |r| r.isvsvn = 9)),
        (&egetkey::ISVSVN, |w| request(w, |r| (r.keyname = 0, r.isvsvn = 9).1)),
        (&egetkey::ISVSVN, |w| request(w, |r| (r.keyname = 1, r.isvsvn = 9).1)),
        (&egetkey::CONFIGSVN, |w| request(w, |r| r.configsvn = 10)),
        (&egetkey::CONFIGSVN, |w| request(w, |r| (r.keyname = 2, r.configsvn = 10).1)),
    ];
    cases.extend(own);
    run(Enclu::Egetkey, egetkey::RULES, prepare, &cases);
}

const RW_PENDING: SecinfoFlags = SecinfoFlags::R.union(SecinfoFlags::W).union(SecinfoFlags::PENDING);

fn reg(bits: SecinfoFlags) -> SecinfoFlags {
    SecinfoFlags::new(PageType::Reg, bits)
}

/// The row in which the SECINFO leaves combine what they ask of its page.
macro_rules! secinfo_cases {
    ($usable:expr) => {{
        let cases: Vec<Case> = vec![
            (&$usable, |w| w.epcm(DATA, |e| e.flags.remove(Flags::VALID))),
            (&$usable, |w| w.epcm(DATA, |e| e.flags.remove(Flags::R))),
            (&$usable, |w| w.epcm(DATA, |e| e.flags |= Flags::PENDING)),
            (&$usable, |w| w.epcm(DATA, |e| e.flags |= Flags::MODIFIED)),
            (&$usable, |w| w.epcm(DATA, |e| e.flags |= Flags::BLOCKED)),
            (&$usable, |w| w.epcm(DATA, |e| e.page_type = PageType::Tcs)),
            (&$usable, |w| w.epcm(DATA, |e| e.secs = FOREIGN)),
            (&$usable, |w| w.epcm(DATA, |e| e.address += 0x1000)),
        ];
        cases
    }};
}

/// EXTRA became a TCS by EMODT, and everyone has left since.
fn new_tcs(w: &mut World, change: fn(&mut Tcs)) {
    w.epcm(EXTRA, |e| {
        e.page_type = PageType::Tcs;
        e.flags = Flags::VALID | Flags::MODIFIED;
    });
    let mut tcs = Tcs { nssa: 1, fslimit: 0xfff, gslimit: 0xfff, ..Tcs::default() };
    change(&mut tcs);
    w.package.write(page(EXTRA), 0, &tcs).unwrap();
    w.secinfo(DATA, SecinfoFlags::new(PageType::Tcs, SecinfoFlags::MODIFIED));
    w.operands(DATA, EXTRA, 0);
    // this processor entered before; let it count for the next epoch
    w.enclave.with(|s| {
        s.tracking.begin_cycle();
        s.tracking.leave(0);
        s.tracking.enter();
    });
}

#[test]
fn eaccept_rows() {
    fn prepare(w: &mut World) {
        w.enter();
        w.secinfo(DATA, reg(RW_PENDING));
        w.operands(DATA, PENDING, 0);
    }
    let mut cases = secinfo_cases!(eaccept::SECINFO_USABLE);
    let own: [Case; 44] = [
        (&eaccept::SECINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 32),
        (&eaccept::SECINFO_IN_ELRANGE, |w| w.port.gpr[gpr::RBX] = HOST),
        (&eaccept::SECINFO_IN_EPC, |w| w.port.map_memory(DATA)),
        (&eaccept::SECINFO_RESERVED, |w| w.change(page(DATA), 63, |b: &mut u8| *b = 1)),
        (&eaccept::SECINFO_RESERVED, |w| w.change(page(DATA), 0, |b: &mut u8| *b |= 1 << 6)),
        (&eaccept::PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 64),
        (&eaccept::PAGE_IN_ELRANGE, |w| w.port.gpr[gpr::RCX] = HOST),
        (&eaccept::PAGE_IN_EPC, |w| w.port.map_memory(PENDING)),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, reg(SecinfoFlags::R))),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, reg(RW_PENDING | SecinfoFlags::MODIFIED))),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, SecinfoFlags::new(PageType::Tcs, RW_PENDING))),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, SecinfoFlags::new(PageType::Trim, SecinfoFlags::empty()))),
        (&eaccept::REQUEST, |w| {
            w.secinfo(DATA, SecinfoFlags::new(PageType::Trim, SecinfoFlags::MODIFIED | SecinfoFlags::PR));
        }),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, SecinfoFlags::new(PageType::Secs, RW_PENDING))),
        (&eaccept::REQUEST, |w| w.secinfo(DATA, SecinfoFlags::new(PageType::SsRest, RW_PENDING))),
        (&eaccept::PAGE_USABLE, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::VALID))),
        (&eaccept::PAGE_USABLE, |w| w.epcm(PENDING, |e| e.flags |= Flags::BLOCKED)),
        (&eaccept::PAGE_USABLE, |w| w.epcm(PENDING, |e| e.page_type = PageType::Va)),
        (&eaccept::PAGE_USABLE, |w| w.epcm(PENDING, |e| e.secs = FOREIGN)),
        (&eaccept::PAGE_FREE, |w| w.held = Some((page(PENDING), Lane::Base, Mode::Exclusive))),
        (&eaccept::PAGE_FREE, |w| w.held = Some((page(PENDING), Lane::Modify, Mode::Exclusive))),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.address += 0x1000)),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::PENDING))),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.flags |= Flags::MODIFIED)),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::R))),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::W))),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.flags |= Flags::X)),
        (&eaccept::MATCHES, |w| w.epcm(PENDING, |e| e.page_type = PageType::Trim)),
        (&eaccept::TRACKED, |w| {
            w.epcm(EXTRA, |e| e.flags = Flags::VALID | Flags::R | Flags::PR);
            w.secinfo(DATA, reg(SecinfoFlags::R | SecinfoFlags::PR));
            w.operands(DATA, EXTRA, 0);
        }),
        (&eaccept::TRACKED, |w| {
            w.epcm(EXTRA, |e| (e.flags = Flags::VALID | Flags::MODIFIED, e.page_type = PageType::Trim).1);
            w.secinfo(DATA, SecinfoFlags::new(PageType::Trim, SecinfoFlags::MODIFIED));
            w.operands(DATA, EXTRA, 0);
        }),
        (&eaccept::TRACKED, |w| {
            new_tcs(w, |_| ());
            w.epcm(EXTRA, |e| e.epoch = 1);
        }),
        (&eaccept::TCS_RESERVED, |w| new_tcs(w, |t| t.reserved1[4007] = 1)),
        (&eaccept::TCS_RESERVED, |w| new_tcs(w, |t| t.flags = TcsFlags::from_bits_retain(4))),
        (&eaccept::TCS_RESERVED, |w| new_tcs(w, |t| t.ocetssa = 0x1000)),
        (&eaccept::TCS_RESERVED, |w| new_tcs(w, |t| t.prevssp = 8)),
        (&eaccept::TCS_RESERVED, |w| {
            w.package.config.aex_notify = false;
            new_tcs(w, |t| t.flags = TcsFlags::AEXNOTIFY);
        }),
        (&eaccept::TCS_STATE, |w| new_tcs(w, |t| t.flags = TcsFlags::DBGOPTIN)),
        (&eaccept::TCS_STATE, |w| new_tcs(w, |t| t.cssa = 1)),
        (&eaccept::TCS_STATE, |w| new_tcs(w, |t| t.nssa = 0)),
        (&eaccept::TCS_STATE, |w| new_tcs(w, |t| t.aep = 1)),
        (&eaccept::TCS_STATE, |w| new_tcs(w, |t| t.state = 1)),
        (&eaccept::TCS_LIMITS, |w| (w.narrow(), new_tcs(w, |t| t.fslimit = 0xffe)).1),
        (&eaccept::TCS_LIMITS, |w| (w.narrow(), new_tcs(w, |t| t.gslimit = 0x7ff)).1),
        (&eaccept::SECINFO_IN_ELRANGE, |w| w.port.gpr[gpr::RBX] = BASE + SIZE),
    ];
    cases.extend(own);
    run(Enclu::Eaccept, eaccept::RULES, prepare, &cases);
}

#[test]
fn emodpe_rows() {
    fn prepare(w: &mut World) {
        w.enter();
        w.secinfo(DATA, reg(SecinfoFlags::R | SecinfoFlags::X));
        w.operands(DATA, EXTRA, 0);
    }
    let mut cases = secinfo_cases!(emodpe::SECINFO_USABLE);
    let own: [Case; 16] = [
        (&emodpe::SECINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 32),
        (&emodpe::PAGE_ALIGNED, |w| w.port.gpr[gpr::RCX] += 64),
        (&emodpe::IN_ELRANGE, |w| w.port.gpr[gpr::RBX] = HOST),
        (&emodpe::IN_ELRANGE, |w| w.port.gpr[gpr::RCX] = HOST),
        (&emodpe::SECINFO_IN_EPC, |w| w.port.map_memory(DATA)),
        (&emodpe::PAGE_IN_EPC, |w| w.port.map_memory(EXTRA)),
        (&emodpe::SECINFO_RESERVED, |w| w.change(page(DATA), 63, |b: &mut u8| *b = 1)),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.flags.remove(Flags::VALID))),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.flags |= Flags::PENDING)),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.flags |= Flags::MODIFIED)),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.flags |= Flags::BLOCKED)),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.page_type = PageType::Tcs)),
        (&emodpe::PAGE_USABLE, |w| w.epcm(EXTRA, |e| e.secs = FOREIGN)),
        (&emodpe::PAGE_FREE, |w| w.held = Some((page(EXTRA), Lane::Modify, Mode::Exclusive))),
        (&emodpe::PAGE_PLACE, |w| w.epcm(EXTRA, |e| e.address += 0x1000)),
        (&emodpe::READABLE, |w| {
            w.epcm(EXTRA, |e| e.flags = Flags::VALID | Flags::X);
            w.secinfo(DATA, reg(SecinfoFlags::W));
        }),
    ];
    cases.extend(own);
    run(Enclu::Emodpe, emodpe::RULES, prepare, &cases);
}

#[test]
fn eacceptcopy_rows() {
    fn prepare(w: &mut World) {
        w.enter();
        w.secinfo(DATA, reg(SecinfoFlags::R | SecinfoFlags::X));
        w.operands(DATA, PENDING, SOURCE);
    }
    let mut cases = secinfo_cases!(eacceptcopy::SECINFO_USABLE);
    let own: [Case; 30] = [
        (&eacceptcopy::SECINFO_ALIGNED, |w| w.port.gpr[gpr::RBX] += 32),
        (&eacceptcopy::PAGES_ALIGNED, |w| w.port.gpr[gpr::RCX] += 64),
        (&eacceptcopy::PAGES_ALIGNED, |w| w.port.gpr[gpr::RDX] += 64),
        (&eacceptcopy::IN_ELRANGE, |w| w.port.gpr[gpr::RBX] = HOST),
        (&eacceptcopy::IN_ELRANGE, |w| w.port.gpr[gpr::RCX] = HOST),
        (&eacceptcopy::IN_ELRANGE, |w| w.port.gpr[gpr::RDX] = HOST),
        (&eacceptcopy::SECINFO_IN_EPC, |w| w.port.map_memory(DATA)),
        (&eacceptcopy::PAGE_IN_EPC, |w| w.port.map_memory(PENDING)),
        (&eacceptcopy::SOURCE_IN_EPC, |w| w.port.map_memory(SOURCE)),
        (&eacceptcopy::SECINFO_VALID, |w| w.change(page(DATA), 63, |b: &mut u8| *b = 1)),
        (&eacceptcopy::SECINFO_VALID, |w| w.secinfo(DATA, reg(SecinfoFlags::W))),
        (&eacceptcopy::SECINFO_VALID, |w| w.secinfo(DATA, SecinfoFlags::new(PageType::Tcs, SecinfoFlags::R))),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.flags.remove(Flags::VALID))),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.flags.remove(Flags::R))),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.flags |= Flags::PENDING)),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.flags |= Flags::MODIFIED)),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.flags |= Flags::BLOCKED)),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.page_type = PageType::Tcs)),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.secs = FOREIGN)),
        (&eacceptcopy::SOURCE_USABLE, |w| w.epcm(SOURCE, |e| e.address += 0x1000)),
        (&eacceptcopy::PAGE_PENDING, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::VALID))),
        (&eacceptcopy::PAGE_PENDING, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::PENDING))),
        (&eacceptcopy::PAGE_PENDING, |w| w.epcm(PENDING, |e| e.flags |= Flags::MODIFIED)),
        (&eacceptcopy::PAGE_PENDING, |w| w.epcm(PENDING, |e| e.flags |= Flags::BLOCKED)),
        (&eacceptcopy::PAGE_PENDING, |w| w.epcm(PENDING, |e| e.secs = FOREIGN)),
        (&eacceptcopy::PAGE_FREE, |w| w.held = Some((page(PENDING), Lane::Modify, Mode::Exclusive))),
        (&eacceptcopy::PAGE_MATCHES, |w| w.epcm(PENDING, |e| e.flags |= Flags::X)),
        (&eacceptcopy::PAGE_MATCHES, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::W))),
        (&eacceptcopy::PAGE_MATCHES, |w| w.epcm(PENDING, |e| e.flags.remove(Flags::R))),
        (&eacceptcopy::PAGE_MATCHES, |w| w.epcm(PENDING, |e| e.address += 0x1000)),
    ];
    cases.extend(own);
    run(Enclu::Eacceptcopy, eacceptcopy::RULES, prepare, &cases);
}

#[test]
fn enclu_rows() {
    let mut w = World::new();
    for leaf in Enclu::ALL {
        if matches!(leaf, Enclu::Eenter | Enclu::Eresume) {
            continue;
        }
        assert_eq!(w.enclu(*leaf), Err(Exception::GP0), "{leaf} outside");
    }
    w.enter();
    w.operands(TCS, AEP, 0);
    assert_eq!(w.enclu(Enclu::Eenter), Err(Exception::GP0));
    assert_eq!(w.enclu(Enclu::Eresume), Err(Exception::GP0));
    w.package.config = sgx::Config::sgx1(7);
    for leaf in [Enclu::Eaccept, Enclu::Emodpe, Enclu::Eacceptcopy, Enclu::Edeccssa] {
        assert_eq!(w.enclu(leaf), Err(Exception::GP0), "{leaf} on SGX1");
    }
}

#[test]
fn entering_and_leaving() {
    let mut w = World::new();
    w.port.control.xcr0 = 0xe7;
    w.port.rflags |= rflags::TF;
    let (segments, host) = (w.port.segments, w.port.gpr);
    w.enter();
    assert_eq!((w.port.rip, w.port.gpr[gpr::RAX], w.port.gpr[gpr::RCX]), (CODE + 0x10, 0, HOST + 0x23));
    assert_eq!((w.port.control.xcr0, w.port.rflags & rflags::TF), (7, 0));
    assert_eq!((w.port.segments[4].base, w.port.segments[5].base), (DATA, OUTPUT));
    assert_eq!((w.port.segments[4].selector, w.port.segments[4].attr), (0x0b, 0xc0f3));
    let frame = w.frame(0);
    assert_eq!((frame.ursp, frame.urbp), (host[gpr::RSP], host[gpr::RBP]));
    let tcs: Tcs = w.package.read(page(TCS), 0).unwrap();
    assert_eq!((tcs.aep, tcs.cssa, tcs.state), (AEP, 0, 1));
    assert_eq!(w.enclave.with(|s| s.tracking.inside()), 1);
    let thread = w.port.thread.as_ref().unwrap();
    assert!(thread.in_elrange(TCS) && !thread.in_elrange(BASE + SIZE) && thread.saved_tf);

    w.operands(HOST + 0x50, 0, 0);
    assert_eq!(w.enclu(Enclu::Eexit), Ok(Done::Jump));
    assert_eq!((w.port.rip, w.port.gpr[gpr::RCX]), (HOST + 0x50, AEP));
    assert_eq!((w.port.control.xcr0, w.port.segments), (0xe7, segments));
    assert!(w.port.rflags & rflags::TF != 0 && w.port.single_step && w.port.thread.is_none());
    let tcs: Tcs = w.package.read(page(TCS), 0).unwrap();
    assert_eq!((tcs.state, w.enclave.with(|s| s.tracking.inside())), (0, 0));
}

#[test]
fn opt_in_entry_traps_and_keeps_tf() {
    let mut w = World::new();
    w.opt_in();
    w.port.rflags |= rflags::TF;
    w.enter();
    assert!(w.port.single_step && w.port.rflags & rflags::TF != 0);
    assert!(w.port.thread.as_ref().unwrap().debug_opt_in);
}

#[test]
fn two_processors_cannot_enter_one_tcs() {
    let mut w = World::new();
    w.enter();
    let mut other = World::new().port;
    other.map = w.port.map.clone();
    other.gpr[gpr::RAX] = Enclu::Eenter as u64;
    other.gpr[gpr::RBX] = TCS;
    other.gpr[gpr::RCX] = AEP;
    let done = sgx::enclu::execute(&mut Leaf { port: &mut other, package: &w.package });
    assert_eq!((done, other.thread.is_none()), (Err(Exception::GP0), true));
    assert_eq!(w.enclave.with(|s| s.tracking.inside()), 1);

    // nor at the same time
    let w = World::new();
    let entered = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut port = World::new().port;
                port.gpr[gpr::RAX] = Enclu::Eenter as u64;
                port.gpr[gpr::RBX] = TCS;
                port.gpr[gpr::RCX] = AEP;
                if sgx::enclu::execute(&mut Leaf { port: &mut port, package: &w.package }).is_ok() {
                    entered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((entered.into_inner(), w.enclave.with(|s| s.tracking.inside())), (1, 1));
}

#[test]
fn a_lost_epc_cannot_be_entered_but_left() {
    let mut w = World::new();
    w.package.lose();
    w.operands(TCS, AEP, 0);
    let fault = w.enclu(Enclu::Eenter).unwrap_err();
    assert_eq!((fault.vector, fault.error & 1 << 15), (Vector::PageFault, 1 << 15));
    let mut w = World::new();
    w.enter();
    w.package.lose();
    w.operands(HOST, 0, 0);
    assert_eq!((w.enclu(Enclu::Eexit), w.port.rip), (Ok(Done::Jump), HOST));
    assert!(w.port.thread.is_none());
}

#[test]
fn the_target_of_a_report_can_check_it_and_nobody_else() {
    let mut w = World::new();
    w.enter();
    let mut target = Targetinfo { measurement: [0xe1; 32], configsvn: 9, ..Targetinfo::default() };
    let secs: sgx_abi::Secs = w.package.read(SECS, 0).unwrap();
    (target.attributes, target.miscselect) = (secs.attributes, secs.miscselect);
    w.package.write(page(DATA), 0, &target).unwrap();
    w.package.write(page(SOURCE), 0, &[0x77u8; 64]).unwrap();
    w.operands(DATA, SOURCE, OUTPUT);
    assert_eq!((w.enclu(Enclu::Ereport), w.port.gpr[gpr::RAX]), (Ok(Done::Quiet), 0));
    let report: Report = w.package.read(page(OUTPUT), 0).unwrap();
    assert_eq!((report.body.reportdata, report.body.mrenclave), ([0x77; 64], [0xe1; 32]));
    assert_eq!((report.body.isvprodid, report.body.isvsvn, report.body.configsvn), (7, 8, 9));
    assert!(report.body.reserved_is_zero() && report.body.attributes == secs.attributes);

    let mut key = |configid: u8| {
        w.secs(|s| s.configid[0] = configid);
        let keyid = report.keyid;
        request(&mut w, |r| {
            *r = Keyrequest { keyname: KeyName::Report as u16, keyid, ..Keyrequest::default() }
        });
        w.operands(DATA, OUTPUT + 0x800, 0);
        w.port.rflags |= rflags::STATUS;
        assert_eq!(w.enclu(Enclu::Egetkey), Ok(Done::Success));
        assert_eq!((w.port.gpr[gpr::RAX], w.port.rflags & rflags::STATUS), (0, 0));
        w.package.read::<[u8; 16]>(page(OUTPUT), 0x800).unwrap()
    };
    assert!(keys::cmac_holds(&key(0), report.body.as_bytes(), &report.mac));
    assert!(!keys::cmac_holds(&key(1), report.body.as_bytes(), &report.mac));
}

#[test]
fn accepting_changes() {
    let mut w = World::new();
    w.enter();
    // a new page
    w.secinfo(DATA, reg(RW_PENDING));
    w.operands(DATA, PENDING, 0);
    assert_eq!(w.enclu(Enclu::Eaccept), Ok(Done::Success));
    assert_eq!(w.package.epcm.get(page(PENDING)).flags, Flags::VALID | Flags::R | Flags::W);
    // more permissions, none fewer
    w.secinfo(DATA, reg(SecinfoFlags::R | SecinfoFlags::X));
    w.operands(DATA, PENDING, 0);
    w.port.rflags |= rflags::STATUS;
    assert_eq!(w.enclu(Enclu::Emodpe), Ok(Done::Quiet));
    assert_eq!(w.package.epcm.get(page(PENDING)).flags, Flags::VALID | Flags::RWX);
    assert_eq!(w.port.rflags & rflags::STATUS, rflags::STATUS);
    // a TCS
    new_tcs(&mut w, |_| ());
    assert_eq!(w.enclu(Enclu::Eaccept), Ok(Done::Success));
    assert_eq!(w.package.epcm.get(page(EXTRA)).flags, Flags::VALID);

    let mut w = World::new();
    w.enter();
    w.package.write(page(SOURCE), 0, &[0x5cu8; PAGE_SIZE]).unwrap();
    w.package.write(page(DATA), 0x40, &Secinfo::new(reg(SecinfoFlags::R | SecinfoFlags::X))).unwrap();
    w.operands(DATA + 0x40, PENDING, SOURCE);
    assert_eq!(w.enclu(Enclu::Eacceptcopy), Ok(Done::Success));
    assert_eq!(w.package.epcm.get(page(PENDING)).flags, Flags::VALID | Flags::R | Flags::X);
    assert_eq!(w.package.read::<[u8; PAGE_SIZE]>(page(PENDING), 0).unwrap(), [0x5c; PAGE_SIZE]);
}

#[test]
fn edeccssa_steps_down_one_frame() {
    let mut w = World::new();
    interrupted(&mut w);
    w.set_frame(0, |f| (f.ursp, f.urbp) = (0x111, 0x222));
    w.enter();
    assert_eq!(w.port.gpr[gpr::RAX], 1);
    let before = w.port.gpr;
    assert_eq!(w.enclu(Enclu::Edeccssa), Ok(Done::Quiet));
    assert_eq!(before[1..], w.port.gpr[1..]);
    let tcs: Tcs = w.package.read(page(TCS), 0).unwrap();
    assert_eq!((tcs.cssa, w.port.thread.as_ref().unwrap().ssa_address), (0, SSA));
    // the next exit uses that frame, and the host's stack noted in it
    w.aex(Vector::InvalidOpcode, 0, 0);
    assert_eq!((w.port.gpr[gpr::RSP], w.port.gpr[gpr::RBP]), (0x111, 0x222));
    assert_eq!(w.frame(0).exitinfo.vector(), Some(Vector::InvalidOpcode as u8));
    assert_eq!(w.frame(1).exitinfo, GprSgx::default().exitinfo);
}
