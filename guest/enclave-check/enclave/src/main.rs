//! An enclave that is tried from all sides.
#![no_std]
#![no_main]

extern crate alloc;

mod algorithms;
mod registers;
mod tls;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use check_interface::{Check, NoQuotient, OutsideClient, Policy, Raise, State};
use enclave::exception::{Disposition, Exception};
use enclave::host::{Host, Switchless};
use enclave::random::Rng;
use enclave::sgx_abi::{KeyName, KeyPolicy, Keyrequest, Status, Targetinfo};
use enclave::sync::{Condvar, Mutex, OnceLock};
use enclave::{exception, key, random, report, sealing};
use rand_core::RngCore;
use zerocopy::{FromBytes, IntoBytes};

const OUTSIDE: OutsideClient<Host> = OutsideClient(Host);

/// What the enclave keeps.
struct Checked {
    number: Mutex<u64>,
    here: Mutex<u32>,
    arrived: Condvar,
    secret: OnceLock<[Mutex<[u8; 32]>; 2]>,
    tls: tls::Tls,
}

static CHECKED: Checked = Checked {
    number: Mutex::new(0),
    here: Mutex::new(0),
    arrived: Condvar::new(),
    secret: OnceLock::new(),
    tls: tls::Tls::new(),
};

enclave::serve!(Check, CHECKED);

/// Exceptions that the handler has seen.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Whether the handler is to handle what comes: the vector, or 0.
static EXPECTED: AtomicU32 = AtomicU32::new(0);

fn handle(exception: &mut Exception<'_>) -> Disposition {
    SEEN.fetch_add(1, Ordering::SeqCst);
    match (exception.vector, EXPECTED.swap(0, Ordering::SeqCst)) {
        (6, 6) => {
            exception.registers.rip += 2;
            exception.registers.rax = 0x600d;
            Disposition::Resume
        }
        // DIV RCX, with RCX 0: three bytes
        (0, 100) => {
            exception.registers.rip += 3;
            exception.registers.rax = 0xd1;
            Disposition::Resume
        }
        // MOV RAX, [RCX]: three bytes
        (14, 14) => {
            exception.registers.rip += 3;
            let address = exception.details.map_or(0, |details| details.maddr);
            exception.registers.rax = u64::from(address == exception.registers.rcx);
            Disposition::Resume
        }
        _ => Disposition::Pass,
    }
}

impl Checked {
    fn secret(&self) -> &[Mutex<[u8; 32]>; 2] {
        self.secret.get_or_init(|| {
            let secret = random::bytes();
            [Mutex::new(secret), Mutex::new(secret)]
        })
    }
}

impl Check for Checked {
    fn nothing(&self) {}

    fn echo(&self, data: &[u8]) -> Vec<u8> {
        data.to_vec()
    }

    fn divide(&self, a: i64, b: i64) -> Result<i64, NoQuotient> {
        if b == 0 { Err(NoQuotient::ByZero) } else { a.checked_div(b).ok_or(NoQuotient::Overflow) }
    }

    fn ask(&self, question: &str) -> Result<String, String> {
        OUTSIDE.answer(question).map_err(|e| e.to_string())
    }

    fn percentage(&self) -> Result<u8, String> {
        OutsideClient(Switchless).percentage().map(|p| p.get()).map_err(|e| e.to_string())
    }

    fn call_host(&self, times: u32) -> u32 {
        (0..times).map(|_| u32::from(OUTSIDE.nothing().is_ok())).sum()
    }

    fn echo_by_host(&self, times: u32, data: &[u8]) -> u32 {
        (0..times).map(|_| u32::from(OUTSIDE.echo(data).is_ok_and(|answer| answer == data))).sum()
    }

    fn call_host_switchless(&self, times: u32) -> u32 {
        let outside = OutsideClient(Switchless);
        (0..times).map(|_| u32::from(outside.nothing().is_ok())).sum()
    }

    fn nest(&self, depth: u32) -> u32 {
        if depth == 0 { 0 } else { OUTSIDE.nest(depth - 1).map_or(0, |n| n + 1) }
    }

    fn count(&self, times: u32) -> u64 {
        for _ in 0..times {
            let mut number = self.number.lock();
            let before = *number;
            // a moment in which others would interfere
            black_box(random::bytes::<8>());
            *number = before + 1;
        }
        *self.number.lock()
    }

    fn meet(&self, threads: u32) {
        let mut here = self.here.lock();
        *here += 1;
        if *here == threads {
            self.arrived.notify_all();
        }
        drop(self.arrived.wait_while(here, |here| *here < threads));
    }

    fn state(&self) -> State {
        registers::state()
    }

    fn fill_heap(&self, bytes: u64) -> bool {
        let mut data: Vec<u64> = Vec::new();
        let words = bytes as usize / 8;
        if data.try_reserve_exact(words).is_err() {
            return false;
        }
        data.extend(0..words as u64);
        black_box(&data).iter().zip(0..).all(|(&word, n)| word == n)
    }

    fn raise(&self, what: Raise) -> u64 {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        assert!(REGISTERED.get_or_init(|| exception::register(handle).is_ok()));
        match what {
            Raise::HandledUndefined => {
                EXPECTED.store(6, Ordering::SeqCst);
                registers::undefined()
            }
            Raise::HandledDivide => {
                EXPECTED.store(100, Ordering::SeqCst);
                registers::divide_by_zero()
            }
            Raise::HandledPageFault => {
                EXPECTED.store(14, Ordering::SeqCst);
                registers::page_fault()
            }
            Raise::Undefined => registers::undefined(),
            Raise::StackGuard => registers::overflow(),
            Raise::Panic => panic!("as asked, with {}", *self.number.lock()),
        }
    }

    fn algorithms(&self) -> Vec<String> {
        algorithms::all().into_iter().filter(|(_, works)| *works).map(|(name, _)| name.into()).collect()
    }

    fn cpuid(&self, leaf: u32) -> [u32; 4] {
        registers::cpuid(leaf)
    }

    fn seal(&self, policy: Policy, data: &[u8], additional: &[u8]) -> Result<Vec<u8>, String> {
        sealing::seal(of(policy), data, additional).map_err(|e| format!("{e:?}"))
    }

    fn unseal(
        &self,
        policy: Policy,
        sealed: &[u8],
        additional: &[u8],
    ) -> Result<(Vec<u8>, u16, bool), String> {
        let unsealed = sealing::unseal(of(policy), sealed, additional).map_err(|e| format!("{e:?}"))?;
        Ok((unsealed.data, unsealed.isvsvn, unsealed.current))
    }

    fn verify_own_report(&self) -> (bool, bool) {
        let mut made = report::report(&report::targetinfo(), &[7; 64]);
        let good = report::verify_report(&made).is_ok_and(|body| body.reportdata == [7; 64]);
        made.body.isvsvn ^= 1;
        (good, report::verify_report(&made).is_ok())
    }

    fn measurement(&self) -> [u8; 32] {
        report::own().mrenclave
    }

    fn random(&self) -> [[u8; 16]; 2] {
        let mut other = [0; 16];
        getrandom::fill(&mut other).expect("getrandom asks the runtime");
        [random::bytes(), other]
    }

    fn time(&self) -> Option<u64> {
        enclave::host::untrusted_time().map(|time| time.as_secs())
    }

    fn print(&self, text: &str) {
        enclave::println!("the enclave says: {text}");
    }

    fn stays(&self, data: &[u8]) -> bool {
        let before = data.to_vec();
        OUTSIDE.nothing().is_ok() && before == data
    }

    fn ask_switchless(&self, question: &str) -> Result<String, String> {
        OutsideClient(Switchless).answer(question).map_err(|e| e.to_string())
    }

    fn once(&self, threads: u32) -> (u32, bool) {
        static MADE: AtomicU32 = AtomicU32::new(0);
        static VALUE: OnceLock<[u8; 32]> = OnceLock::new();
        self.meet(threads);
        let value = VALUE.get_or_init(|| {
            MADE.fetch_add(1, Ordering::SeqCst);
            // long enough for the others to come
            (0..1000).fold([0; 32], |_, _| black_box(random::bytes()))
        });
        (MADE.load(Ordering::SeqCst), VALUE.get() == Some(value) && *value != [0; 32])
    }

    fn keys(&self) -> bool {
        let own = report::own();
        let request = Keyrequest {
            keyname: KeyName::Seal as u16,
            keypolicy: KeyPolicy::MRSIGNER,
            isvsvn: own.isvsvn,
            cpusvn: own.cpusvn,
            ..Default::default()
        };
        let key = |request: &Keyrequest| key::egetkey(request).map(|key| *key.bytes());
        let others = [
            Keyrequest { keypolicy: KeyPolicy::MRENCLAVE, ..request.clone() },
            Keyrequest { isvsvn: own.isvsvn - 1, ..request.clone() },
            Keyrequest { keyid: [1; 32], ..request.clone() },
            Keyrequest { keyname: KeyName::Report as u16, ..request.clone() },
        ];
        let first = key(&request);
        let all_others: BTreeSet<_> = others.iter().filter_map(|request| key(request).ok()).collect();
        let later = Keyrequest { isvsvn: own.isvsvn + 1, ..request.clone() };
        let provision = Keyrequest { keyname: KeyName::Provision as u16, ..request.clone() };
        first.is_ok_and(|first| first != [0; 16] && !all_others.contains(&first))
            && first == key(&request)
            && all_others.len() == others.len()
            && key(&later) == Err(Status::InvalidIsvsvn)
            && key(&provision) == Err(Status::InvalidAttribute)
    }

    fn generator(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..32).map(|_| Rng.next_u64()).collect();
        numbers.push(u64::from(Rng.next_u32()) | u64::from(Rng.next_u32()) << 32);
        // a length that is no whole number of words
        let mut bytes = [0; 23];
        Rng.fill_bytes(&mut bytes);
        numbers.extend(bytes[7..].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        Rng.try_fill_bytes(&mut bytes).expect("as the other");
        numbers.extend(bytes[7..].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)));
        numbers
    }

    fn code(&self) -> Vec<u8> {
        registers::code().to_vec()
    }

    fn write_code(&self) -> bool {
        registers::write_code();
        true
    }

    fn marker(&self) -> String {
        "this text is found in enclaves that are not encrypted".into()
    }

    fn tls_report(&self) -> Result<Vec<u8>, String> {
        self.tls.report()
    }

    fn tls_serve(&self, quote: &[u8]) -> Result<Vec<u8>, String> {
        self.tls.serve(quote)
    }

    fn tls_receive(&self, first: bool, bytes: &[u8]) -> Result<(Vec<u8>, bool), String> {
        self.tls.receive(first, bytes)
    }

    fn report(&self, target: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let target = Targetinfo::read_from_bytes(target).ok()?;
        Some(report::report(&target, data.try_into().ok()?).as_bytes().to_vec())
    }

    fn intact(&self) -> bool {
        let [one, other] = self.secret();
        let key = key::egetkey(&Keyrequest { keyname: KeyName::Report as u16, ..Default::default() });
        *one.lock() == *other.lock() && key.is_ok()
    }
}

fn of(policy: Policy) -> sealing::Policy {
    match policy {
        Policy::Enclave => sealing::Policy::Enclave,
        Policy::Signer => sealing::Policy::Signer,
    }
}

/// Tests as `kluis enclave test` runs them.
mod tests {
    use enclave::enclave_test;

    #[enclave_test]
    fn reports_of_this_enclave_verify() {
        let report = enclave::report::report(&enclave::report::targetinfo(), &[1; 64]);
        assert!(enclave::report::verify_report(&report).is_ok());
    }

    #[enclave_test(should_panic)]
    fn a_panic_is_told() {
        panic!("as it should");
    }
}
