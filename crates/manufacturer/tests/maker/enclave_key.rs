//! The key that a processor gives the provisioning-certification enclave is the one whose
//! certificate the maker issued.

use crate::{Place, now};
use arch::regs::gpr;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use platform::Update;
use sgx::epcm::{Entry, EpcPage, Flags};
use sgx::keys::Roots;
use sgx::testing::TestPort;
use sgx::{Config, Done, Leaf, Package, Thread};
use sgx_abi::{Enclu, Keyrequest, PAGE_SIZE, PageType, Secs, Status};

const SECS: EpcPage = EpcPage(0);
const DATA: EpcPage = EpcPage(1);
/// Where the enclave is, its one page in it, with the request and the key.
const BASE: u64 = 0x1000_0000;
const OUTPUT: u64 = 0x200;

/// The enclave, as its maker's key signs it.
fn pce(place: &Place) -> Secs {
    let mut secs = Secs {
        size: 0x2000,
        baseaddr: BASE,
        ssaframesize: 1,
        mrenclave: [9; 32],
        mrsigner: place.maker().mrsigner(),
        isvprodid: provisioning::PCE_PRODUCT,
        isvsvn: provisioning::PCE_SVN,
        attributes: provisioning::pce_attributes(),
        ..Secs::default()
    };
    secs.attributes.xfrm = 7;
    secs.private.padding = sgx::sigstruct::PADDING;
    secs
}

/// Runs EGETKEY in the enclave.
fn egetkey(roots: Roots, secs: &Secs, request: &Keyrequest) -> Result<[u8; 16], u64> {
    let dram = mee::Dram::new(16, mee::Config::new(16, 1)).unwrap();
    let package = Package::new(Config::sgx2(7), dram, roots).unwrap();
    package.write(SECS, 0, secs).unwrap();
    package.epcm.set(SECS, Entry { flags: Flags::VALID, page_type: PageType::Secs, ..Entry::FREE });
    let flags = Flags::VALID | Flags::R | Flags::W;
    package.epcm.set(DATA, Entry { flags, page_type: PageType::Reg, secs: SECS, address: BASE, epoch: 0 });
    package.write(DATA, 0, request).unwrap();
    let mut port = TestPort::default();
    port.map_epc(BASE, DATA);
    port.thread = Some(Box::new(Thread {
        enclave: package.enclaves.add(SECS),
        base: BASE,
        size: secs.size,
        attributes: secs.attributes.flags.bits(),
        xfrm: secs.attributes.xfrm,
        miscselect: 0,
        ssa_frame_size: 1,
        tcs: DATA,
        tcs_address: BASE,
        tcs_flags: 0,
        ssa: Vec::new(),
        ssa_address: BASE,
        aep: 0,
        epoch: 0,
        outside_stack: [0; 2],
        saved_fs_gs: Default::default(),
        saved_xcr0: None,
        saved_tf: false,
        debug_opt_in: false,
    }));
    port.gpr[gpr::RAX] = Enclu::Egetkey as u64;
    port.gpr[gpr::RBX] = BASE;
    port.gpr[gpr::RCX] = BASE + OUTPUT;
    match sgx::enclu::execute(&mut Leaf { port: &mut port, package: &package }).unwrap() {
        Done::Success | Done::Code(Status::Success, _) => {}
        _ => return Err(port.gpr[gpr::RAX]),
    }
    assert_eq!(port.gpr[gpr::RAX], 0);
    let page: [u8; PAGE_SIZE] = package.read(DATA, 0).unwrap();
    Ok(page[OUTPUT as usize..][..16].try_into().unwrap())
}

/// The public key that the enclave would have.
fn public(key: [u8; 16]) -> Vec<u8> {
    provisioning::pck_key(&key).public_key().to_encoded_point(false).as_bytes()[1..].to_vec()
}

fn request(roots: &Roots) -> Keyrequest {
    provisioning::key_request(roots.cpusvn(), provisioning::PCE_SVN)
}

#[test]
fn the_enclaves_key_is_the_certified_one() {
    let place = Place::new();
    let mut keys = Vec::new();
    for svn in 1..=3 {
        let roots = place.processor();
        let request = request(&roots);
        let pck = place.maker().issued(now()).unwrap().pck;
        let key = egetkey(roots, &pce(&place), &request).unwrap();
        assert_eq!(public(key), pck.key().0, "security version {svn}");
        // the same enclave finds its earlier keys
        for (earlier, known) in keys.iter().enumerate() {
            let mut cpusvn = [0; 16];
            cpusvn[0] = earlier as u8 + 1;
            let request = provisioning::key_request(cpusvn, provisioning::PCE_SVN);
            assert_eq!(egetkey(place.processor(), &pce(&place), &request).as_ref(), Ok(known));
        }
        let ppid = egetkey(place.processor(), &pce(&place), &provisioning::ppid_request()).unwrap();
        assert_eq!(provisioning::ppid(&ppid), pck.pck_extension().unwrap().ppid);
        keys.push(key);
        place.update(Update::SvnUp);
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each version has its own");
}

#[test]
fn nobody_else_has_it() {
    let place = Place::new();
    let pck = place.maker().issued(now()).unwrap().pck;
    type Change = fn(&mut Secs);
    let changes: [(&str, Change); 4] = [
        ("another signer", |secs| secs.mrsigner[0] ^= 1),
        ("the quoting enclave", |secs| secs.isvprodid = provisioning::QE_PRODUCT),
        ("a debug build", |secs| secs.attributes.flags |= sgx_abi::AttributeFlags::DEBUG),
        ("another padding", |secs| secs.private.padding[0] ^= 1),
    ];
    for (who, change) in changes {
        let mut secs = pce(&place);
        change(&mut secs);
        let roots = place.processor();
        let request = request(&roots);
        assert_ne!(public(egetkey(roots, &secs, &request).unwrap()), pck.key().0, "{who}");
    }
    // nor may an enclave without the attribute ask
    let mut secs = pce(&place);
    secs.attributes.flags.remove(sgx_abi::AttributeFlags::PROVISIONKEY);
    let roots = place.processor();
    let asked = request(&roots);
    assert_eq!(egetkey(roots, &secs, &asked), Err(Status::InvalidAttribute.rax()));
    // nor a processor of an earlier version
    let earlier = place.processor();
    place.update(Update::SvnUp);
    let later = request(&place.processor());
    assert_eq!(egetkey(earlier, &pce(&place), &later), Err(Status::InvalidCpusvn.rax()));
}
