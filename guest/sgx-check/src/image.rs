//! The enclave: its code, its layout, its measurement and its signature.

use num_bigint::BigUint;
use sha2::{Digest, Sha256};

/// Offsets of the pages, in bytes from the enclave's base.
pub mod at {
    /// TCS.
    pub const TCS: u64 = 0;
    /// Code: read and execute.
    pub const CODE: u64 = 0x1000;
    /// Data: read and write.
    pub const DATA: u64 = 0x2000;
    /// Two SSA frames of a page each.
    pub const SSA: u64 = 0x3000;
    /// What follows is the heap.
    pub const HEAP: u64 = 0x5000;
}

/// What the enclave does for its host; see the code below.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub enum Op {
    /// Reads 8 bytes at `a`.
    Get = 0,
    /// Writes `b` to `a`.
    Put = 1,
    /// Executes ENCLU leaf `a` with RBX `b`, RCX `c`, RDX `d`; the result is RAX.
    Leaf = 2,
    /// Executes UD2.
    Fault = 3,
    /// Adds up `b` quadwords at `a`, multiplying by an odd constant each time.
    Sum = 4,
    /// Executes ENCLU leaf `a` as [`Op::Leaf`] does, `exchange[5]` times.
    Repeat = 5,
}

std::arch::global_asm!(
    ".pushsection .rodata.enclave, \"a\", @progbits",
    ".balign 4096",
    ".globl enclave_code, enclave_code_end",
    "enclave_code:",
    "    mov r10, rcx", // where to go back to
    "    test eax, eax",
    "    jnz 90f",
    "    mov rax, [rdi]",
    "    cmp rax, 0",
    "    je 10f",
    "    cmp rax, 1",
    "    je 11f",
    "    cmp rax, 2",
    "    je 12f",
    "    cmp rax, 3",
    "    je 13f",
    "    cmp rax, 4",
    "    je 14f",
    "    cmp rax, 5",
    "    je 15f",
    "    jmp 99f",
    "10: mov rbx, [rdi + 8]",
    "    mov rbx, [rbx]",
    "    mov [rdi + 40], rbx",
    "    jmp 99f",
    "11: mov rbx, [rdi + 8]",
    "    mov rcx, [rdi + 16]",
    "    mov [rbx], rcx",
    "    jmp 99f",
    "12: mov rax, [rdi + 8]",
    "    mov rbx, [rdi + 16]",
    "    mov rcx, [rdi + 24]",
    "    mov rdx, [rdi + 32]",
    "    enclu",
    "    mov [rdi + 40], rax",
    "    jmp 99f",
    "13: ud2",
    "    mov qword ptr [rdi + 40], 0x600d",
    "    jmp 99f",
    "14: mov rsi, [rdi + 8]",
    "    mov rcx, [rdi + 16]",
    "    mov r9, rsp",
    "    lea rsp, [rip + enclave_code + 0x2000]", // end of the data page
    "    call 20f",
    "    mov rsp, r9",
    "    mov [rdi + 40], rdx",
    "    jmp 99f",
    "15: mov r9, [rdi + 40]",
    "16: mov rax, [rdi + 8]",
    "    mov rbx, [rdi + 16]",
    "    mov rcx, [rdi + 24]",
    "    mov rdx, [rdi + 32]",
    "    enclu",
    "    dec r9",
    "    jnz 16b",
    "    mov [rdi + 40], rax",
    "    jmp 99f",
    // Sum of RCX quadwords at RSI, to RDX; also called outside the enclave.
    ".globl enclave_sum",
    "enclave_sum:",
    "20: xor edx, edx",
    "    movabs r11, 0x9e3779b97f4a7c15",
    "21: imul rdx, r11",
    "    add rdx, [rsi]",
    "    add rsi, 8",
    "    dec rcx",
    "    jnz 21b",
    "    ret",
    // Entered while frame 0 holds an exception: step over the instruction,
    // whose length the host gives, by changing RIP in the frame.
    "90: lea r11, [rip + enclave_code]",
    "    mov rax, [rdi + 8]",
    "    add [r11 + 0x2000 + 4096 - 184 + 136], rax",
    "99: mov rbx, r10",
    "    xor ecx, ecx",
    "    xor edx, edx",
    "    xor esi, esi",
    "    xor r11, r11",
    "    mov eax, 4",
    "    enclu",
    "    ud2",
    "enclave_code_end:",
    ".popsection",
);

unsafe extern "C" {
    static enclave_code: u8;
    static enclave_code_end: u8;
    static enclave_sum: u8;
}

/// Offset in [`code`] of the function behind [`Op::Sum`]: RSI, RCX to RDX.
pub fn sum_offset() -> usize {
    let (start, sum) = (&raw const enclave_code, &raw const enclave_sum);
    // SAFETY: both labels lie in the same bytes.
    unsafe { sum.offset_from(start) as usize }
}

/// The enclave's code.
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const enclave_code, &raw const enclave_code_end);
    // SAFETY: both labels bound the bytes assembled above.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
}

/// Permissions and type of a page, as SECINFO.FLAGS.
pub mod secinfo {
    /// R.
    pub const R: u64 = 1;
    /// W.
    pub const W: u64 = 2;
    /// X.
    pub const X: u64 = 4;
    /// PENDING.
    pub const PENDING: u64 = 8;
    /// MODIFIED.
    pub const MODIFIED: u64 = 16;
    /// PR.
    pub const PR: u64 = 32;
    /// PT_TCS.
    pub const TCS: u64 = 1 << 8;
    /// PT_REG.
    pub const REG: u64 = 2 << 8;
    /// PT_TRIM.
    pub const TRIM: u64 = 4 << 8;
}

/// ATTRIBUTES.DEBUG.
pub const DEBUG: u64 = 2;
/// ATTRIBUTES.MODE64BIT.
pub const MODE64BIT: u64 = 4;

/// A page to be added.
pub struct Page {
    /// Offset in the enclave.
    pub offset: u64,
    /// SECINFO.FLAGS.
    pub flags: u64,
    /// Content.
    pub bytes: Box<[u8; 4096]>,
    /// Its content is measured.
    pub measured: bool,
}

/// The pages every enclave here begins with.
pub fn pages() -> Vec<Page> {
    let zero = || Box::new([0u8; 4096]);
    let mut tcs = zero();
    tcs[16..24].copy_from_slice(&at::SSA.to_le_bytes());
    tcs[28..32].copy_from_slice(&2u32.to_le_bytes()); // NSSA
    tcs[32..40].copy_from_slice(&at::CODE.to_le_bytes());
    tcs[64..72].fill(0xff); // FSLIMIT, GSLIMIT
    let mut text = zero();
    text[..code().len()].copy_from_slice(code());
    let page = |offset, flags, bytes| Page { offset, flags, bytes, measured: true };
    use secinfo::{R, REG, TCS, W, X};
    vec![
        page(at::TCS, TCS, tcs),
        page(at::CODE, R | X | REG, text),
        page(at::DATA, R | W | REG, zero()),
        page(at::SSA, R | W | REG, zero()),
        page(at::SSA + 0x1000, R | W | REG, zero()),
    ]
}

/// The measurement, as the processor makes it.
pub struct Measurement(Sha256);

impl Measurement {
    /// ECREATE.
    pub fn new(size: u64) -> Self {
        let mut block = [0; 64];
        block[..8].copy_from_slice(b"ECREATE\0");
        block[8..12].copy_from_slice(&1u32.to_le_bytes());
        block[12..20].copy_from_slice(&size.to_le_bytes());
        Measurement(Sha256::new_with_prefix(block))
    }

    /// EADD, and EEXTEND if it is measured.
    pub fn add(&mut self, page: &Page) {
        let mut block = [0; 64];
        block[..8].copy_from_slice(b"EADD\0\0\0\0");
        block[8..16].copy_from_slice(&page.offset.to_le_bytes());
        block[16..24].copy_from_slice(&page.flags.to_le_bytes());
        self.0.update(block);
        if page.measured {
            for (i, chunk) in page.bytes.chunks(256).enumerate() {
                let mut block = [0; 64];
                block[..8].copy_from_slice(b"EEXTEND\0");
                block[8..16].copy_from_slice(&(page.offset + 256 * i as u64).to_le_bytes());
                self.0.update(block);
                self.0.update(chunk);
            }
        }
    }

    /// EINIT.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The signing key of these enclaves, and of nothing else: modulus and private
/// exponent. It is public.
const TEST_KEY: &str = include_str!("test-key.txt");

/// A SIGSTRUCT for an enclave with that measurement and those attributes.
pub fn sign(measurement: [u8; 32], attributes: u64, xfrm: u64) -> Box<[u8; 1808]> {
    let mut lines = TEST_KEY.lines().map(|l| BigUint::parse_bytes(l.as_bytes(), 16).expect("hex"));
    let (n, d) = (lines.next().expect("modulus"), lines.next().expect("exponent"));
    let mut sig = Box::new([0u8; 1808]);
    let put =
        |sig: &mut [u8; 1808], at: usize, bytes: &[u8]| sig[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut sig, 0, &[6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    put(&mut sig, 20, &0x2026_1124u32.to_le_bytes());
    put(&mut sig, 24, &[1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0]);
    put(&mut sig, 128, &little(&n));
    put(&mut sig, 512, &3u32.to_le_bytes());
    put(&mut sig, 928, &attributes.to_le_bytes());
    put(&mut sig, 936, &xfrm.to_le_bytes());
    put(&mut sig, 944, &u64::MAX.to_le_bytes());
    put(&mut sig, 952, &u64::MAX.to_le_bytes());
    put(&mut sig, 960, &measurement);
    put(&mut sig, 1024, &7u16.to_le_bytes()); // ISVPRODID
    put(&mut sig, 1026, &3u16.to_le_bytes()); // ISVSVN
    let hash = Sha256::new().chain_update(&sig[..128]).chain_update(&sig[900..1028]).finalize();
    // EMSA-PKCS1-v1_5 for SHA-256.
    let mut em = vec![0u8, 1];
    em.resize(384 - 51 - 1, 0xff);
    em.push(0);
    em.extend([0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20]);
    em.extend(hash);
    let s = BigUint::from_bytes_be(&em).modpow(&d, &n);
    let q1 = &s * &s / &n;
    let q2 = (&s * &s * &s - &q1 * &s * &n) / &n;
    put(&mut sig, 516, &little(&s));
    put(&mut sig, 1040, &little(&q1));
    put(&mut sig, 1424, &little(&q2));
    sig
}

fn little(n: &BigUint) -> [u8; 384] {
    let mut bytes = [0; 384];
    let le = n.to_bytes_le();
    bytes[..le.len().min(384)].copy_from_slice(&le[..le.len().min(384)]);
    bytes
}
