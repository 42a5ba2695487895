//! An enclave's life, step by step.

use crate::driver::{Enclave, Fault, heap_page};
use crate::image::{Op, at, secinfo};
use crate::step;
use crate::vdso::Enter;

const EACCEPT: u64 = 5;
const EMODPE: u64 = 6;
/// Error code of a page fault: present, write, user.
const WRITE_FAULT: u16 = 2 | 4;
/// SGX bit of a page fault's error code.
const SGX: u16 = 1 << 15;
const SIZE: u64 = 0x10_0000;

/// Runs it; `sgx2` includes growing, restricting and trimming.
pub fn run(enter: Enter, sgx2: bool) -> Result<(), String> {
    let say = |what: &str, e: std::io::Error| format!("{what}: {e}");
    let fail = |what: &str, f: Fault| format!("{what}: fault {f:x?}");
    let heap = [0u64, 1].map(|i| heap_page(at::HEAP + i * 0x1000, Box::new([0x11 * (i as u8 + 1); 4096])));
    let mut e = Enclave::load(enter, SIZE, 0, heap.into_iter()).map_err(|e| say("create, add, init", e))?;
    println!("create, add pages, measure, initialise: ok (base {:#x})", e.base);
    e.map(at::HEAP, 0x2000, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| say("map", e))?;
    let heap = e.base + at::HEAP;

    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| fail("enter", f))?;
    step("enter, read enclave memory, exit", seen, 0x1111_1111_1111_1111)?;

    // A fault of the page tables: exit, repair, resume.
    e.protect(at::HEAP, 0x1000, libc::PROT_READ).map_err(|e| say("mprotect", e))?;
    let fault = e.call(Op::Put, [heap, 42, 0, 0]).err();
    let page_fault = fault.map(|f| (f.vector, f.error & !1, f.address));
    step("write to a page mapped read-only: #PF", page_fault, Some((14, WRITE_FAULT, heap)))?;
    e.protect(at::HEAP, 0x1000, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| say("mprotect", e))?;
    e.resume().map_err(|f| fail("resume", f))?;
    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| fail("enter", f))?;
    step("repair the mapping, resume: the write is done", seen, 42)?;

    // A fault that the enclave handles itself, with a second SSA frame.
    let fault = e.call(Op::Fault, [0; 4]).err().map(|f| f.vector);
    step("UD2 in the enclave: #UD", fault, Some(6))?;
    e.step_over(2).map_err(|f| fail("enter with CSSA 1", f))?;
    let seen = e.resume().map_err(|f| fail("resume", f))?;
    step("its handler steps over it; resume", seen, 0x600d)?;

    // From outside: ones, and writes change nothing.
    // SAFETY: mapped; the processor gives ones.
    let outside = unsafe { (heap as *const u64).read_volatile() };
    step("read from outside: ones", outside, u64::MAX)?;
    // SAFETY: mapped; the processor drops the write.
    unsafe { (heap as *mut u64).write_volatile(7) };
    let seen = e.call(Op::Get, [heap, 0, 0, 0]).map_err(|f| fail("enter", f))?;
    step("write from outside: dropped", seen, 42)?;
    if !sgx2 {
        println!("done");
        return Ok(());
    }

    // Grow: the kernel adds a page at the fault, the enclave accepts it.
    let new = at::HEAP + 0x8000;
    e.map(new, 0x2000, libc::PROT_READ | libc::PROT_WRITE).map_err(|e| say("map", e))?;
    let accept = secinfo::R | secinfo::W | secinfo::REG | secinfo::PENDING;
    let status = e.leaf_on_page(EACCEPT, accept, new).map_err(|f| fail("EACCEPT of a new page", f))?;
    step("grow: EAUG by the kernel, EACCEPT", status, 0)?;
    let address = e.base + new;
    let seen = e.call(Op::Get, [address, 0, 0, 0]).map_err(|f| fail("read", f))?;
    step("the new page is zero", seen, 0)?;
    e.call(Op::Put, [address, 99, 0, 0]).map_err(|f| fail("write", f))?;

    // Restrict: read-only after the enclave has agreed.
    e.restrict(new, 0x1000, secinfo::R).map_err(|e| say("restrict", e))?;
    let status = e.leaf_on_page(EACCEPT, secinfo::R | secinfo::REG | secinfo::PR, new);
    step("restrict to read: EMODPR, EACCEPT", status.map_err(|f| fail("EACCEPT", f))?, 0)?;
    let fault = e.call(Op::Put, [address, 1, 0, 0]).err().map(|f| (f.vector, f.error & SGX));
    step("a write then faults by the EPCM: #PF with the SGX bit", fault, Some((14, SGX)))?;
    e.step_over(3).map_err(|f| fail("enter with CSSA 1", f))?;
    e.resume().map_err(|f| fail("resume", f))?;

    // Extend again, by the enclave alone.
    let status = e.leaf_on_page(EMODPE, secinfo::R | secinfo::W | secinfo::REG, new);
    status.map_err(|f| fail("EMODPE", f))?;
    e.call(Op::Put, [address, 100, 0, 0]).map_err(|f| fail("write", f))?;
    let seen = e.call(Op::Get, [address, 0, 0, 0]).map_err(|f| fail("read", f))?;
    step("extend by EMODPE: the write is done", seen, 100)?;

    // Trim and remove.
    e.modify_type(new, 0x1000, secinfo::TRIM).map_err(|e| say("modify type", e))?;
    let status = e.leaf_on_page(EACCEPT, secinfo::TRIM | secinfo::MODIFIED, new);
    step("trim: EMODT, EACCEPT", status.map_err(|f| fail("EACCEPT", f))?, 0)?;
    e.remove(new, 0x1000).map_err(|e| say("remove", e))?;
    println!("remove the page: ok");
    let fault = e.call(Op::Get, [address, 0, 0, 0]).err().map(|f| f.vector);
    step("it is gone: #PF", fault, Some(14))?;
    println!("done");
    Ok(())
}
