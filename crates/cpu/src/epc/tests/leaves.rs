//! ENCLS and ENCLU as machine code: an enclave made, entered, left and resumed.

use sgx_abi::{GprSgx, Pageinfo, Secinfo, Secs, Tcs};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::*;

/// The EPC in the kernel's linear addresses.
const KERNEL_EPC: u64 = 0x40_0000;
/// Where the enclave exits to.
const BACK: u64 = USER + 0x100;
const ENCLS: [u8; 4] = [0x0f, 0x01, 0xcf, 0xf4]; // and HLT
const ENCLU: [u8; 3] = [0x0f, 0x01, 0xd7];
const REG: u64 = 2 << 8;
const SECINFO_TCS: u64 = 1 << 8;

fn empty() -> World {
    let mut w = world();
    w.package.epcm.clear();
    w.package.enclaves.clear();
    write64(&w.ram, 0x3010, EPC | pte::P | pte::W | pte::PS);
    w.ram.write(USER, &ENCLU);
    w.ram.write(AEP, &ENCLU);
    w.ram.write(BACK, &[0x0f, 0x0b]);
    w.cpu().flush_all();
    w
}

/// Executes an ENCLS leaf at CPL 0: RAX, or the vector of the exception.
fn encls(w: &mut World, leaf: u64, rbx: u64, rcx: u64) -> Result<u64, u64> {
    w.ram.write(KERNEL, &ENCLS);
    let cpu = w.cpu();
    cpu.s.cpl = 0;
    cpu.set_segment_from_gdt(Seg::Cs, CODE0).unwrap();
    cpu.set_segment_from_gdt(Seg::Ss, DATA0).unwrap();
    cpu.update_rights();
    cpu.activity = Activity::Active;
    cpu.s.rip = KERNEL;
    for (register, value) in [(gpr::RAX, leaf), (gpr::RBX, rbx), (gpr::RCX, rcx), (gpr::RSP, STACK)] {
        cpu.s.regs.set(register, value);
    }
    assert_eq!(w.engines[0].run(10_000), Exit::Idle);
    let cpu = w.cpu();
    if cpu.s.rip == KERNEL + 4 { Ok(cpu.s.regs.get(gpr::RAX)) } else { Err((cpu.s.rip - 1 - HANDLERS) / 16) }
}

/// ECREATE (0) or EADD (1) of a page whose content is `source`.
fn make(w: &mut World, leaf: u64, page: EpcPage, linaddr: u64, secinfo: u64, source: &[u8]) {
    let secs = if leaf == 0 { 0 } else { KERNEL_EPC };
    let pageinfo = Pageinfo { linaddr, srcpge: SPARE + 0x1000, secinfo: SPARE + 0x40, secs };
    let mut info = Secinfo::new_zeroed();
    info.as_mut_bytes()[..8].copy_from_slice(&secinfo.to_le_bytes());
    let mut content = [0; 4096];
    content[..source.len()].copy_from_slice(source);
    w.ram.write(SPARE, pageinfo.as_bytes());
    w.ram.write(SPARE + 0x40, info.as_bytes());
    w.ram.write(SPARE + 0x1000, &content);
    assert_eq!(encls(w, leaf, SPARE, KERNEL_EPC + u64::from(page.0) * 0x1000), Ok(leaf), "{page:?}");
}

/// An enclave with `code`, made by the leaves. EINIT, which needs a signature,
/// is left out: its mark in the SECS is made by hand.
fn made(code: &[u8]) -> World {
    let mut w = empty();
    let mut secs = Secs::new_zeroed();
    secs.size = SIZE;
    secs.baseaddr = BASE;
    secs.ssaframesize = 1;
    secs.attributes.xfrm = 7;
    let mut bytes = secs.as_bytes().to_vec();
    bytes[48] = 4; // MODE64BIT
    make(&mut w, 0, EpcPage(0), 0, 0, &bytes);
    make(&mut w, 1, epc(CODE), at(CODE), REG | 5, code);
    make(&mut w, 1, epc(DATA), at(DATA), REG | 3, &[]);
    let mut tcs = Tcs::new_zeroed();
    tcs.ossa = SSA * 0x1000;
    tcs.nssa = 2;
    (tcs.fslimit, tcs.gslimit) = (0xfff, 0xfff);
    make(&mut w, 1, epc(TCS), at(TCS), SECINFO_TCS, tcs.as_bytes());
    for page in [SSA, SSA + 1] {
        make(&mut w, 1, epc(page), at(page), REG | 3, &[]);
    }
    let mut flags = [0];
    w.package.dram.read(0, 48, &mut flags).unwrap();
    w.package.dram.write(0, 48, &[flags[0] | 1]).unwrap();
    w
}

/// EENTER.
fn eenter(w: &mut World) {
    to_user(&mut w.engines[0]);
    let regs = &mut w.cpu().s.regs;
    for (register, value) in [(gpr::RAX, 2), (gpr::RBX, at(TCS)), (gpr::RCX, AEP), (gpr::RDI, 0x1234)] {
        regs.set(register, value);
    }
}

/// From the handler back to the AEP, as IRET does.
fn back_to_aep(w: &mut World) {
    let [rip, ..] = w.frame::<5>();
    let error = u64::from(rip != AEP);
    let rsp = w.cpu().s.regs.get(gpr::RSP) + 8 * error;
    let user_rsp = read64(&w.ram, rsp + 24);
    to_user(&mut w.engines[0]);
    w.cpu().s.rip = AEP;
    w.cpu().s.regs.set(gpr::RSP, user_rsp);
}

fn ssa(w: &World) -> GprSgx {
    let mut bytes = [0; GprSgx::SIZE];
    w.content(SSA, 4096 - GprSgx::SIZE, &mut bytes);
    GprSgx::read_from_bytes(&bytes).unwrap()
}

/// `middle`, then: mov rsi, DATA; mov [rsi], rdi; EEXIT to [`BACK`].
fn program(middle: &[u8]) -> Vec<u8> {
    let mut code = middle.to_vec();
    code.extend([0x48, 0xbe]);
    code.extend(at(DATA).to_le_bytes());
    code.extend([0x48, 0x89, 0x3e, 0xbb]);
    code.extend((BACK as u32).to_le_bytes());
    code.extend([0xb8, 4, 0, 0, 0]);
    code.extend(ENCLU);
    code
}

#[test]
fn an_enclave_is_made_entered_and_left() {
    let mut w = made(&program(&[]));
    eenter(&mut w);
    assert_eq!(w.vector(), 6);
    assert_eq!(w.frame::<1>(), [BACK]);
    assert_eq!(w.content64(DATA, 0), 0x1234);
    assert_eq!(w.cpu().s.regs.get(gpr::RCX), AEP);
    let enclave = w.package.enclaves.get(EpcPage(0)).unwrap();
    assert_eq!(enclave.with(|s| s.tracking.inside()), 0);
    // And again, on the TCS that is free once more.
    eenter(&mut w);
    w.cpu().s.regs.set(gpr::RDI, 0x5678);
    assert_eq!(w.vector(), 6);
    assert_eq!(w.content64(DATA, 0), 0x5678);
}

#[test]
fn an_exception_is_resumed_from() {
    let mut w = made(&program(&[0x0f, 0x0b]));
    w.cpu().s.vec[5].0[0] = 0;
    eenter(&mut w);
    w.cpu().s.vec[5].0[..2].copy_from_slice(&[77, 78]);
    assert_eq!(w.vector(), 6);
    assert_eq!(w.frame::<1>(), [AEP]);
    assert_eq!(w.cpu().s.vec[5].0[0], 0);
    assert_eq!(w.cpu().s.regs.get(gpr::RDI), 0);
    let saved = ssa(&w);
    assert_eq!((saved.rip, saved.rdi), (at(CODE), 0x1234));
    // A handler inside would step over the instruction.
    w.put(SSA, 4096 - GprSgx::SIZE + std::mem::offset_of!(GprSgx, rip), &(at(CODE) + 2).to_le_bytes());
    back_to_aep(&mut w);
    assert_eq!(w.vector(), 6);
    assert_eq!(w.frame::<1>(), [BACK]);
    assert_eq!(w.content64(DATA, 0), 0x1234);
    assert_eq!(w.cpu().s.vec[5].0[..2], [77, 78], "restored");
}

#[test]
fn page_faults_and_interrupts_are_resumed_from() {
    let mut w = made(&program(&[]));
    let entry = read64(&w.ram, PT + DATA * 8);
    write64(&w.ram, PT + DATA * 8, 0);
    eenter(&mut w);
    assert_eq!(w.vector(), 14);
    let [error, rip, ..] = w.frame::<6>();
    assert_eq!((error, rip, w.cpu().s.cr2), (u64::from(pf::U | pf::W), AEP, at(DATA)));
    write64(&w.ram, PT + DATA * 8, entry);
    back_to_aep(&mut w);
    assert_eq!(w.vector(), 6);
    assert_eq!((w.frame::<1>(), w.content64(DATA, 0)), ([BACK], 0x1234));

    // A loop that an NMI interrupts: test rdi, rdi; jz -5 (until RDI changes)
    let mut w = made(&program(&[0x48, 0x85, 0xff, 0x74, 0xfb]));
    eenter(&mut w);
    w.cpu().s.regs.set(gpr::RDI, 0);
    w.spin();
    w.cpu().shared.request(request::NMI);
    assert_eq!(w.vector(), 2);
    assert_eq!(w.frame::<1>(), [AEP]);
    w.put(SSA, 4096 - GprSgx::SIZE + std::mem::offset_of!(GprSgx, rdi), &9u64.to_le_bytes());
    back_to_aep(&mut w);
    assert_eq!(w.vector(), 6);
    assert_eq!((w.frame::<1>(), w.content64(DATA, 0)), ([BACK], 9));
}

/// *SDM vol. 3D, "Single-Stepping Enclave Entry with Opt-out Entry"*.
#[test]
fn single_stepping_takes_an_enclave_as_one_instruction() {
    let mut w = made(&program(&[0x90, 0x90]));
    eenter(&mut w);
    w.cpu().s.rflags |= rflags::TF;
    assert_eq!(w.vector(), 1);
    let [rip, _, flags, ..] = w.frame::<5>();
    assert_eq!((rip, flags & rflags::TF), (BACK, rflags::TF));
    assert_eq!(w.content64(DATA, 0), 0x1234);
    assert_eq!(w.cpu().s.dr6 >> 14 & 1, 1);
}

#[test]
fn a_page_taken_away_is_not_executed_any_more() {
    let mut w = made(&program(&[]));
    eenter(&mut w);
    assert_eq!(w.vector(), 6);
    let page = KERNEL_EPC + u64::from(epc(CODE).0) * 0x1000;
    assert_eq!(encls(&mut w, 3, 0, page), Ok(0), "EREMOVE");
    eenter(&mut w);
    assert_eq!(w.vector(), 14);
    assert_eq!(w.frame::<1>(), [u64::from(pf::P | pf::U | pf::I | pf::SGX)]);
    // What takes its place is what runs; EADD wants an enclave without EINIT.
    w.package.dram.write(0, 48, &[4]).unwrap();
    let (rsp, rbx) = (w.cpu().s.regs.get(gpr::RSP), w.cpu().s.regs.get(gpr::RBX));
    make(&mut w, 1, epc(CODE), at(CODE), REG | 5, &program(&[0x48, 0xff, 0xc7])); // inc rdi
    w.package.dram.write(0, 48, &[5]).unwrap();
    for (register, value) in [(gpr::RSP, rsp), (gpr::RAX, 3), (gpr::RBX, rbx), (gpr::RCX, AEP)] {
        w.cpu().s.regs.set(register, value);
    }
    back_to_aep(&mut w);
    assert_eq!(w.vector(), 6);
    assert_eq!((w.frame::<1>(), w.content64(DATA, 0)), ([BACK], 0x1235));
}
