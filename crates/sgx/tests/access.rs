//! The access control of the EPC, for every input there is: [`sgx::access::check`]
//! against a second writing-down of the SDM's rules, as a list of decisions.
//!
//! The list says in the SDM's words what an input leads to; it shares neither types nor
//! code with the check. Each decision is shown to matter.

use sgx::access::{Verdict, check};
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::keys::Roots;
use sgx::port::{Access, Segment};
use sgx::{Config, Package, Thread};
use sgx_abi::PageType;

/// First linear address of ELRANGE, and its size in bytes.
const BASE: u64 = 0x1000_0000;
const SIZE: u64 = 0x1_0000;
/// The accessed page's address in its enclave, when that is where it is accessed.
const WITHIN: u64 = BASE + 0x3000;
/// The accessed EPC page, the SECS of the enclave that executes, and another's.
const PAGE: EpcPage = EpcPage(5);
const OWN: EpcPage = EpcPage(0);
const OTHER: EpcPage = EpcPage(1);

/// An input, in the words of *SDM vol. 3D, "Access-control Requirements"* and "EPCM".
#[derive(Clone, Copy, Debug)]
struct Input {
    in_enclave_mode: bool,
    la: u64,
    /// Paging leads to the EPC.
    epc: bool,
    /// "r", "w" or "x".
    access: char,
    /// VALID, R, W, X, PENDING, MODIFIED, BLOCKED and PR, in the bits from 0.
    bits: u8,
    /// PT, by number.
    pt: u8,
    /// ENCLAVESECS is the SECS of the enclave that executes.
    own: bool,
    /// ENCLAVEADDRESS.
    enclave_address: u64,
}

/// What it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// As any memory.
    Ordinary,
    /// The enclave's page, with these of its permissions.
    Page {
        r: bool,
        w: bool,
        x: bool,
    },
    AbortPage,
    /// `#PF` with the SGX bit.
    SgxPageFault,
    GeneralProtection,
}

impl Input {
    fn bit(&self, number: u8) -> bool {
        self.bits >> number & 1 == 1
    }
    fn in_elrange(&self) -> bool {
        (BASE..BASE + SIZE).contains(&self.la)
    }
}

/// A decision: its name, when it applies, and what it says.
type Decision = (&'static str, fn(&Input) -> bool, Outcome);

/// The first that applies decides; if none does, the access is to the page.
const DECISIONS: [Decision; 16] = [
    ("outside an enclave, the EPC is an abort page", |i| !i.in_enclave_mode && i.epc, Outcome::AbortPage),
    ("outside an enclave, other memory is as ever", |i| !i.in_enclave_mode, Outcome::Ordinary),
    (
        "an enclave does not fetch from outside its range",
        |i| i.access == 'x' && !i.in_elrange(),
        Outcome::GeneralProtection,
    ),
    (
        "outside its range, an enclave accesses the EPC like anyone",
        |i| !i.in_elrange() && i.epc,
        Outcome::AbortPage,
    ),
    ("and so it does other memory", |i| !i.in_elrange(), Outcome::Ordinary),
    ("an enclave's range leads to the EPC", |i| !i.epc, Outcome::SgxPageFault),
    ("the page is VALID", |i| !i.bit(0), Outcome::SgxPageFault),
    // PT_SECS, PT_TCS, PT_VA, PT_TRIM; shadow stacks are for shadow-stack accesses.
    ("its type is not restricted", |i| [0, 1, 3, 4, 5, 6].contains(&i.pt), Outcome::SgxPageFault),
    ("it belongs to the enclave that executes", |i| !i.own, Outcome::SgxPageFault),
    ("it is at its own address", |i| i.la / 4096 != i.enclave_address / 4096, Outcome::SgxPageFault),
    ("it is not BLOCKED", |i| i.bit(6), Outcome::SgxPageFault),
    ("it is not PENDING", |i| i.bit(4), Outcome::SgxPageFault),
    ("it is not MODIFIED", |i| i.bit(5), Outcome::SgxPageFault),
    ("a page that is read has R", |i| i.access == 'r' && !i.bit(1), Outcome::SgxPageFault),
    ("a page that is written has W", |i| i.access == 'w' && !i.bit(2), Outcome::SgxPageFault),
    ("a page that is executed has X", |i| i.access == 'x' && !i.bit(3), Outcome::SgxPageFault),
];

/// What the list says, without the decision `without`.
fn decide(input: &Input, without: Option<usize>) -> Outcome {
    let decisions = DECISIONS.iter().enumerate().filter(|(number, _)| Some(*number) != without);
    let first = decisions.map(|(_, decision)| decision).find(|decision| decision.1(input));
    let page = Outcome::Page { r: input.bit(1), w: input.bit(2), x: input.bit(3) };
    first.map_or(page, |decision| decision.2)
}

/// Every input: the list of `la`s has the edges of ELRANGE and both ends of a page.
fn every_input(mut each: impl FnMut(Input)) {
    let addresses = [
        0,
        BASE - 1,
        BASE,
        WITHIN - 1,
        WITHIN,
        WITHIN + 0xfff,
        WITHIN + 0x1000,
        BASE + SIZE - 1,
        BASE + SIZE,
        u64::MAX,
    ];
    for in_enclave_mode in [false, true] {
        for la in addresses {
            for access in ['r', 'w', 'x'] {
                for pt in 0..=6 {
                    for bits in 0..=u8::MAX {
                        for own in [false, true] {
                            // At the address accessed, at another of the enclave, and at
                            // one that is the same but for high bits.
                            for enclave_address in [la & !0xfff, BASE + 0x5000, (la & !0xfff) ^ 1 << 40] {
                                for epc in [false, true] {
                                    each(Input {
                                        in_enclave_mode,
                                        la,
                                        epc,
                                        access,
                                        bits,
                                        pt,
                                        own,
                                        enclave_address,
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A processor inside the enclave.
fn thread(package: &Package) -> Thread {
    Thread {
        enclave: package.enclaves.add(OWN),
        base: BASE,
        size: SIZE,
        attributes: 4,
        xfrm: 3,
        miscselect: 0,
        ssa_frame_size: 1,
        tcs: EpcPage(2),
        tcs_address: BASE,
        tcs_flags: 0,
        ssa: Vec::new(),
        ssa_address: BASE + 0x1000,
        aep: 0,
        epoch: 0,
        outside_stack: [0; 2],
        saved_fs_gs: [Segment::default(); 2],
        saved_xcr0: None,
        saved_tf: false,
        debug_opt_in: false,
    }
}

/// The input as the EPCM has it.
fn entry(input: &Input) -> Entry {
    const BITS: [Flags; 8] = [
        Flags::VALID,
        Flags::R,
        Flags::W,
        Flags::X,
        Flags::PENDING,
        Flags::MODIFIED,
        Flags::BLOCKED,
        Flags::PR,
    ];
    let set = BITS.iter().enumerate().filter(|(number, _)| input.bit(*number as u8));
    Entry {
        flags: set.map(|(_, flag)| *flag).collect(),
        page_type: PageType::from_u8(input.pt).expect("a page type"),
        secs: if input.own { OWN } else { OTHER },
        address: input.enclave_address,
        epoch: 0,
    }
}

/// What the check says, in the list's words.
fn checked(package: &Package, thread: &Thread, input: &Input) -> Outcome {
    let access = match input.access {
        'r' => Access::Read,
        'w' => Access::Write,
        _ => Access::Fetch,
    };
    package.epcm.set(PAGE, entry(input));
    let thread = input.in_enclave_mode.then_some(thread);
    match check(package, thread, input.la, input.epc.then_some(PAGE), access) {
        Verdict::Allow(rights) if input.epc => Outcome::Page {
            r: rights.contains(Flags::R),
            w: rights.contains(Flags::W),
            x: rights.contains(Flags::X),
        },
        Verdict::Allow(rights) => {
            assert_eq!(rights, Flags::RWX, "memory outside the EPC has no permissions there");
            Outcome::Ordinary
        }
        Verdict::AbortPage => Outcome::AbortPage,
        Verdict::PageFault => Outcome::SgxPageFault,
        Verdict::GeneralProtection => Outcome::GeneralProtection,
    }
}

fn package() -> Package {
    let dram = mee::Dram::new(8, mee::Config::new(64, 1)).unwrap();
    let roots = Roots {
        seal_fuses: [1; 16],
        provisioning_fuses: [2; 16],
        owner_epoch: [3; 16],
        cpusvn: 4,
        svn_secret: [5; 32],
    };
    Package::new(Config::sgx2(7), dram, roots).unwrap()
}

#[test]
fn the_check_says_what_the_list_says() {
    let package = package();
    let thread = thread(&package);
    let mut inputs = 0u32;
    let mut allowed = 0u32;
    let mut deciding = [0u32; DECISIONS.len()];
    every_input(|input| {
        let expected = decide(&input, None);
        assert_eq!(checked(&package, &thread, &input), expected, "{input:x?}");
        inputs += 1;
        allowed += u32::from(matches!(expected, Outcome::Page { .. }));
        for (number, count) in deciding.iter_mut().enumerate() {
            *count += u32::from(decide(&input, Some(number)) != expected);
        }
    });
    println!("{inputs} inputs, {allowed} of them accesses of an enclave to its own page");
    for (decision, count) in DECISIONS.iter().zip(deciding) {
        println!("{count:8} are decided by nothing else than: {}", decision.0);
        assert_ne!(count, 0, "{} never decides", decision.0);
    }
    assert_eq!(inputs, 2 * 10 * 3 * 7 * 256 * 2 * 3 * 2);
    assert_ne!(allowed, 0);
}

#[test]
fn a_page_of_an_enclave_that_is_gone_faults() {
    let package = package();
    let thread = thread(&package);
    let flags = Flags::VALID | Flags::RWX;
    package.epcm.set(PAGE, Entry { flags, page_type: PageType::Reg, secs: OWN, address: WITHIN, epoch: 0 });
    let read = || check(&package, Some(&thread), WITHIN, Some(PAGE), Access::Read);
    assert_eq!(read(), Verdict::Allow(Flags::RWX));
    package.lose();
    assert_eq!(read(), Verdict::PageFault, "after a loss, a processor inside gets no further");
    assert_eq!(check(&package, None, WITHIN, Some(PAGE), Access::Read), Verdict::AbortPage);
}
