//! Launch enclaves: the EINITTOKEN key and what it permits.

use arch::regs::gpr;
use archtest::{guest, sdm};
use sgx::sigstruct::signer::Signer;
use sgx_abi::{AttributeFlags, Attributes, Einittoken, KeyName, KeyPolicy, Keyrequest, MiscSelect, Status};
use zerocopy::{FromBytes, IntoBytes};

use crate::machine::{Enclave, Machine, Seen, at, roots};

// Gets the key that KEYREQUEST on the data page asks for, and puts the AES-CMAC
// (NIST SP 800-38B) of the token's first 192 bytes at RSI into the token. RDI at
// the exit is what EGETKEY said.
guest!(
    launcher,
    "mov r13, rcx",
    "mov r12, rsi",
    "mov r15, rsp",
    "lea r14, [rip + 771b + 0x1000]", // KEYREQUEST; key at 200h, round keys at 300h
    "lea rsp, [r14 + 0xf00]",
    "mov rbx, r14",
    "lea rcx, [r14 + 0x200]",
    "mov eax, 1", // EGETKEY
    "enclu",
    "mov r11, rax",
    "test rax, rax",
    "jnz 60f",
    // key schedule
    "movdqa xmm1, [r14 + 0x200]",
    "lea rdi, [r14 + 0x300]",
    "movdqa [rdi], xmm1",
    "aeskeygenassist xmm2, xmm1, 0x01",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x02",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x04",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x08",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x10",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x20",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x40",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x80",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x1b",
    "call 40f",
    "aeskeygenassist xmm2, xmm1, 0x36",
    "call 40f",
    // subkey K1 to XMM4: the block of zeros enciphered, and doubled
    "pxor xmm0, xmm0",
    "call 41f",
    "movq rax, xmm0",
    "pextrq rdx, xmm0, 1",
    "bswap rax",
    "bswap rdx",
    "mov rcx, rax",
    "shld rax, rdx, 1",
    "shl rdx, 1",
    "test rcx, rcx",
    "jns 42f",
    "xor rdx, 0x87",
    "42: bswap rax",
    "bswap rdx",
    "movq xmm4, rax",
    "pinsrq xmm4, rdx, 1",
    // twelve whole blocks
    "pxor xmm0, xmm0",
    "xor ecx, ecx",
    "43: movdqu xmm3, [r12 + rcx]",
    "pxor xmm0, xmm3",
    "cmp ecx, 176",
    "jne 44f",
    "pxor xmm0, xmm4",
    "44: call 41f",
    "add ecx, 16",
    "cmp ecx, 192",
    "jne 43b",
    "movdqu [r12 + 288], xmm0",
    "60: mov rsp, r15",
    "mov rdi, r11",
    "mov rbx, r13",
    "mov eax, 4", // EEXIT
    "enclu",
    // the next round key
    "40: pshufd xmm2, xmm2, 0xff",
    "movdqa xmm3, xmm1",
    "pslldq xmm3, 4",
    "pxor xmm1, xmm3",
    "pslldq xmm3, 4",
    "pxor xmm1, xmm3",
    "pslldq xmm3, 4",
    "pxor xmm1, xmm3",
    "pxor xmm1, xmm2",
    "add rdi, 16",
    "movdqa [rdi], xmm1",
    "ret",
    // enciphers XMM0
    "41: pxor xmm0, [r14 + 0x300]",
    "aesenc xmm0, [r14 + 0x310]",
    "aesenc xmm0, [r14 + 0x320]",
    "aesenc xmm0, [r14 + 0x330]",
    "aesenc xmm0, [r14 + 0x340]",
    "aesenc xmm0, [r14 + 0x350]",
    "aesenc xmm0, [r14 + 0x360]",
    "aesenc xmm0, [r14 + 0x370]",
    "aesenc xmm0, [r14 + 0x380]",
    "aesenc xmm0, [r14 + 0x390]",
    "aesenclast xmm0, [r14 + 0x3a0]",
    "ret",
);
guest!(leaver, "mov rbx, rcx", "mov rdi, 0x600d", "mov eax, 4", "enclu");

const LAUNCH: AttributeFlags = AttributeFlags::EINITTOKEN_KEY;
/// Where the host keeps the token.
const TOKEN: u64 = archtest::DATA;

fn request() -> Keyrequest {
    Keyrequest {
        keyname: KeyName::Einittoken as u16,
        keypolicy: KeyPolicy::empty(),
        isvsvn: 2, // the enclave's is 3
        cpusvn: cpusvn(4),
        attributemask: Attributes { flags: AttributeFlags::all(), xfrm: u64::MAX },
        keyid: [0x6b; 32],
        miscmask: u32::MAX,
        ..Keyrequest::default()
    }
}

fn cpusvn(version: u8) -> [u8; 16] {
    std::array::from_fn(|i| if i == 0 { version } else { 0 })
}

/// A launch enclave with more attributes; EINIT is the caller's.
fn launch_enclave(m: &mut Machine, more: AttributeFlags) -> Enclave {
    m.standard(LAUNCH | more, launcher(), request().as_bytes(), |_| ())
}

/// An enclave to launch, and a token for it that says nothing of the launch enclave.
fn launched(m: &mut Machine, signer: &Signer) -> (Enclave, Einittoken) {
    let e = m.standard(AttributeFlags::empty(), leaver(), &[], |_| ());
    let token = Einittoken {
        valid: Einittoken::VALID,
        attributes: e.attributes,
        mrenclave: e.mrenclave(),
        mrsigner: signer.mrsigner(),
        ..Einittoken::default()
    };
    (e, token)
}

/// Has an initialized launch enclave complete a token; what EGETKEY says if it does not.
fn complete(m: &mut Machine, launch: &Enclave, token: &mut Einittoken) -> Result<(), u64> {
    let request = request();
    token.cpusvnle = request.cpusvn;
    (token.isvprodidle, token.isvsvnle) = (7, request.isvsvn);
    token.keyid = request.keyid;
    token.maskedmiscselectle = MiscSelect::empty();
    token.maskedattributesle = launch.attributes;
    token.maskedattributesle.flags |= AttributeFlags::INIT;
    m.w.write(TOKEN, token.as_bytes());
    m.enter(0, launch.la(at::TCS), &[(gpr::RSI, TOKEN)]);
    assert_eq!(m.run(0, 10_000), Seen::Back);
    let mut bytes = [0; Einittoken::SIZE];
    assert!(m.w.ram.read(TOKEN, &mut bytes));
    *token = Einittoken::read_from_bytes(&bytes).unwrap();
    match m.register(0, gpr::RDI) {
        0 => Ok(()),
        status => Err(status),
    }
}

/// A machine with an initialized launch enclave of signer A, whom the registers
/// name, and an enclave of signer B with its token.
fn world() -> (Machine, Enclave, Enclave, Einittoken) {
    let mut m = Machine::new(1, roots(3));
    let launch = launch_enclave(&mut m, AttributeFlags::empty());
    let sig = launch.sign(&Signer::A);
    assert_eq!(m.init(&launch, &sig, &Einittoken::default()), 0);
    let (e, mut token) = launched(&mut m, &Signer::B);
    complete(&mut m, &launch, &mut token).unwrap();
    (m, launch, e, token)
}

#[test]
fn a_launch_enclave_permits_another_signer() {
    sdm("vol. 3D, EINIT; EGETKEY, EINITTOKEN_KEY; \"EINIT Token Structure\"");
    let (mut m, _, e, token) = world();
    assert_ne!(token.mac, [0; 16]);
    let sig = e.sign(&Signer::B);
    let refused = Status::InvalidEinittoken as u64;
    assert_eq!(m.init(&e, &sig, &Einittoken::default()), refused, "without a token");
    m.enter(0, e.la(at::TCS), &[]);
    assert_eq!(m.run(0, 1000), Seen::Fault(13), "not initialized");
    assert_eq!(m.init(&e, &sig, &token), 0);
    m.enter(0, e.la(at::TCS), &[]);
    assert_eq!((m.run(0, 1000), m.register(0, gpr::RDI)), (Seen::Back, 0x600d));
}

#[test]
fn a_changed_token_permits_nothing() {
    let (mut m, _, e, token) = world();
    let sig = e.sign(&Signer::B);
    let mut refused = |what: &str, status: Status, change: &dyn Fn(&mut Einittoken)| {
        let mut changed = token.clone();
        change(&mut changed);
        assert_eq!(m.init(&e, &sig, &changed), status as u64, "{what}");
    };
    let invalid = Status::InvalidEinittoken;
    refused("not valid", invalid, &|t| t.valid = 0);
    refused("reserved bit of VALID", invalid, &|t| t.valid |= 2);
    refused("reserved1", invalid, &|t| t.reserved1[43] = 1);
    refused("reserved2", invalid, &|t| t.reserved2[0] = 1);
    refused("reserved3", invalid, &|t| t.reserved3[31] = 1);
    refused("reserved4", invalid, &|t| t.reserved4[9] = 1);
    refused("ATTRIBUTES", invalid, &|t| t.attributes.flags |= AttributeFlags::PROVISIONKEY);
    refused("XFRM", invalid, &|t| t.attributes.xfrm ^= 4);
    refused("MRENCLAVE", invalid, &|t| t.mrenclave[0] ^= 1);
    refused("MRSIGNER", invalid, &|t| t.mrsigner[31] ^= 0x80);
    refused("earlier CPUSVN", invalid, &|t| t.cpusvnle = cpusvn(3));
    refused("later CPUSVN", Status::InvalidCpusvn, &|t| t.cpusvnle = cpusvn(5));
    refused("ISVPRODID", invalid, &|t| t.isvprodidle += 1);
    refused("ISVSVN", invalid, &|t| t.isvsvnle += 1);
    refused("masked MISCSELECT", invalid, &|t| t.maskedmiscselectle = MiscSelect::EXINFO);
    refused("masked ATTRIBUTES", invalid, &|t| t.maskedattributesle.flags ^= AttributeFlags::PROVISIONKEY);
    refused("masked XFRM", invalid, &|t| t.maskedattributesle.xfrm = 0);
    refused("KEYID", invalid, &|t| t.keyid[5] ^= 1);
    refused("MAC", invalid, &|t| t.mac[15] ^= 1);
    // None of that has spoilt the enclave or the token.
    assert_eq!(m.init(&e, &sig, &token), 0);
}

#[test]
fn a_token_is_for_one_enclave_on_one_platform_and_under_one_key() {
    let (mut m, launch, e, token) = world();
    // The MAC is right, the enclave is not.
    let mut other = token.clone();
    other.mrenclave[0] ^= 1;
    complete(&mut m, &launch, &mut other).unwrap();
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &other), Status::InvalidMeasurement as u64);
    let mut other = token.clone();
    other.mrsigner = Signer::A.mrsigner();
    complete(&mut m, &launch, &mut other).unwrap();
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &other), Status::InvalidMeasurement as u64);
    let mut other = token.clone();
    other.attributes.flags |= AttributeFlags::DEBUG;
    complete(&mut m, &launch, &mut other).unwrap();
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &other), Status::InvalidAttribute as u64);

    // Another key in the registers: the launch enclave is one no longer, and what
    // it has made is void until the key is back.
    let mut stranger = Signer::B.mrsigner();
    stranger[0] ^= 1;
    m.launch_hash(&stranger);
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &token), Status::InvalidEinittoken as u64);
    let mut fresh = token.clone();
    assert_eq!(complete(&mut m, &launch, &mut fresh), Err(Status::InvalidAttribute as u64));

    // Another owner epoch: a platform that has been given away.
    let mut there = Machine::new(1, roots(9));
    let same = launched(&mut there, &Signer::B).0;
    assert_eq!(same.mrenclave(), e.mrenclave());
    let sig = same.sign(&Signer::B);
    assert_eq!(there.init(&same, &sig, &token), Status::InvalidEinittoken as u64);

    m.launch_key(&Signer::A);
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &token), 0);
}

#[test]
fn only_the_signer_in_the_registers_has_launch_enclaves() {
    sdm("vol. 3D, EINIT: SGX_INVALID_ATTRIBUTE if a controlled attribute is set and the signer is another");
    let mut m = Machine::new(1, roots(3));
    let launch = launch_enclave(&mut m, AttributeFlags::empty());
    let sig = launch.sign(&Signer::B);
    assert_eq!(m.init(&launch, &sig, &Einittoken::default()), Status::InvalidAttribute as u64);
    m.launch_key(&Signer::B);
    assert_eq!(m.init(&launch, &sig, &Einittoken::default()), 0);

    // The key needs the attribute as well as the signer.
    let plain = m.standard(AttributeFlags::empty(), launcher(), request().as_bytes(), |_| ());
    assert_eq!(m.init(&plain, &plain.sign(&Signer::B), &Einittoken::default()), 0);
    let mut token = Einittoken::default();
    assert_eq!(complete(&mut m, &plain, &mut token), Err(Status::InvalidAttribute as u64));
    assert_eq!(token.mac, [0; 16]);

    // No token makes a launch enclave of somebody else's.
    let (mut m, launch, _, _) = world();
    let mut m2 = Machine::new(1, roots(3));
    let stranger = launch_enclave(&mut m2, AttributeFlags::PROVISIONKEY);
    let mut token = Einittoken {
        valid: Einittoken::VALID,
        attributes: stranger.attributes,
        mrenclave: stranger.mrenclave(),
        mrsigner: Signer::B.mrsigner(),
        ..Einittoken::default()
    };
    complete(&mut m, &launch, &mut token).unwrap();
    let sig = stranger.sign(&Signer::B);
    assert_eq!(m2.init(&stranger, &sig, &token), Status::InvalidAttribute as u64);
}

#[test]
fn a_debug_launch_enclave_launches_debug_enclaves() {
    let mut m = Machine::new(1, roots(3));
    let launch = launch_enclave(&mut m, AttributeFlags::DEBUG);
    assert_eq!(m.init(&launch, &launch.sign(&Signer::A), &Einittoken::default()), 0);
    let (e, mut token) = launched(&mut m, &Signer::B);
    complete(&mut m, &launch, &mut token).unwrap();
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &token), Status::InvalidEinittoken as u64);

    let mut m = Machine::new(1, roots(3));
    let launch = launch_enclave(&mut m, AttributeFlags::DEBUG);
    assert_eq!(m.init(&launch, &launch.sign(&Signer::A), &Einittoken::default()), 0);
    let e = m.standard(AttributeFlags::DEBUG, leaver(), &[], |_| ());
    let mut token = Einittoken {
        valid: Einittoken::VALID,
        attributes: e.attributes,
        mrenclave: e.mrenclave(),
        mrsigner: Signer::B.mrsigner(),
        ..Einittoken::default()
    };
    complete(&mut m, &launch, &mut token).unwrap();
    assert_eq!(m.init(&e, &e.sign(&Signer::B), &token), 0);
}
