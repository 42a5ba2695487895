//! A malicious host. Every attack ends with the enclave's own word that its secret is
//! intact; what it must not do is checked from outside.

mod locked;
mod mailbox;
mod storm;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use check_interface::{CheckClient, State};
use enclave_abi::call::{Command, EXCHANGE_SIZE, Exchange, FAILED, Outcome};
use enclave_host::driver::Driver;
use enclave_host::{Enclave, Error, Files};
use enclave_interface::{Caller, Deserialize, wire};

pub use locked::locked;

use crate::raw::{self, Entry};
use crate::{load, options, step};

const HEAD: usize = EXCHANGE_SIZE as usize;

/// Functions of the interface, by number.
mod number {
    pub const ECHO: u32 = 1;
    pub const ASK: u32 = 3;
    pub const STATE: u32 = 10;
    pub const STAYS: u32 = 22;
    pub const INTACT: u32 = 23;
    /// Those that last long, or end the enclave, by what they were made for.
    pub const NOT_AT_RANDOM: [u32; 9] = [5, 6, 7, 8, 9, 12, 24, 26, 30];
    pub const ASK_SWITCHLESS: u32 = 25;
    /// How many there are.
    pub const COUNT: u64 = 36;
}

/// Whether a call finds registers as the calling convention has them.
pub fn is_clean(state: &State) -> bool {
    let [tf, df, nt, ac] = [1 << 8, 1 << 10, 1 << 14, 1 << 18];
    state.rflags & (tf | df | nt | ac) == 0
        && state.mxcsr & !0x3f == 0x1f80
        && state.control == 0x37f
        && state.tags == 0xffff
        && state.bases[0] == state.bases[1]
}

/// Numbers that look random, the same in each run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// All attacks, `rounds` of each that has rounds.
pub fn attack(files: &Files, rounds: u32, seed: u64) -> Result<(), String> {
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random(seed);
    hostile_registers(files, &mut random, rounds)?;
    hostile_pointers(files, &mut random, rounds)?;
    out_of_order(files)?;
    fuzzed_arguments(files, &mut random, rounds)?;
    lying_results(files, &mut random, rounds)?;
    changing_memory(files, &mut random, rounds)?;
    mailbox::mailboxes(files, &mut random, rounds)?;
    storm::storm(files, &mut random, rounds)?;
    storm::threads(files)
}

/// An enclave and a way into it.
struct Target {
    base: u64,
    /// Keeps it loaded.
    _enclave: Box<dyn Any>,
    entry: Box<Entry>,
    memory: Vec<u64>,
}

impl Target {
    fn new(files: &Files) -> Result<Self, String> {
        let enclave = load(files)?;
        Self::of(files, enclave.base(), Box::new(enclave))
    }

    /// The same, of which the host has not told anything to the enclave yet.
    fn untold(files: &Files) -> Result<Self, String> {
        let driver = Driver::load(files).map_err(|e| e.to_string())?;
        Self::of(files, driver.base(), Box::new(driver))
    }

    fn of(files: &Files, base: u64, enclave: Box<dyn Any>) -> Result<Self, String> {
        // the first TCS: nobody else is inside
        let entry = Entry::new(base + files.tcs_offsets()[0]);
        let mut target = Self { base, _enclave: enclave, entry, memory: vec![0; 1 << 13] };
        step("  it keeps a secret", target.intact())?;
        Ok(target)
    }

    fn exchange(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    fn capacity(&self) -> u64 {
        (self.memory.len() * 8 - HEAD) as u64
    }

    fn put(&mut self, head: Exchange, message: &[u8]) {
        self.memory[0] = u64::from(head.code) | u64::from(head.function) << 32;
        self.memory[1] = head.length;
        for (word, bytes) in self.memory[HEAD / 8..].iter_mut().zip(message.chunks(8)) {
            let mut filled = [0; 8];
            filled[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(filled);
        }
    }

    /// What was said, with its message.
    fn said(&self) -> (Option<Outcome>, Vec<u8>) {
        let len = (self.memory[1].min(self.capacity())) as usize;
        let bytes = self.memory[HEAD / 8..].iter().flat_map(|word| word.to_le_bytes()).take(len);
        (Outcome::from_code(self.memory[0] as u32), bytes.collect())
    }

    fn enter(&mut self, command: u64) {
        let (exchange, capacity) = (self.exchange(), self.capacity());
        self.entry.enter(command, exchange, capacity);
    }

    /// A call by the rules of the boundary.
    fn call(&mut self, function: u32, message: &[u8]) -> (Option<Outcome>, Vec<u8>) {
        self.put(Exchange { function, length: message.len() as u64, ..Exchange::default() }, message);
        self.enter(Command::Call as u64);
        self.said()
    }

    fn intact(&mut self) -> bool {
        self.call(number::INTACT, &[]) == (Some(Outcome::Done), vec![1])
    }
}

fn decode<T: for<'a> Deserialize<'a>>(message: &[u8]) -> Option<T> {
    wire::arguments(message).ok()
}

/// RFLAGS, MXCSR, x87, vector and general registers, stack pointer, segment bases.
fn hostile_registers(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    let mut target = Target::new(files)?;
    let base = target.base;
    let (mut clean, mut leaks) = (true, Vec::new());
    for _ in 0..rounds {
        let mut registers = [0; 16];
        registers.fill_with(|| random.next());
        // in the enclave, in its TCS, nowhere
        registers[raw::RSP] =
            [base + 0x2000, base + files.tcs_offsets()[0] + 0x800, 8, !7][random.below(4) as usize];
        // DF, AC, ID, arithmetic
        let rflags = random.next() & (1 << 10 | 1 << 18 | 1 << 21 | 0x8d5) | 2;
        let mut fx = [0; 512];
        fx.fill_with(|| random.next() as u8);
        // any rounding, precision and mask; no exception that the host itself would take
        fx[2..4].fill(0);
        fx[4] = 0xff;
        let mxcsr = random.next() as u32 & 0xffc0;
        fx[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        target.entry.with(registers, rflags, fx, [base + random.below(1 << 20), random.below(1 << 47)]);
        let (outcome, message) = target.call(number::STATE, &[]);
        let state: Option<State> = decode(&message);
        clean &= outcome == Some(Outcome::Done) && state.is_some_and(|state| is_clean(&state));
        leaks.extend(target.entry.leaks());
    }
    target.entry = Entry::new(base + files.tcs_offsets()[0]);
    step("hostile flags, MXCSR, x87, registers, stack and bases: none is seen inside", clean)?;
    step(&format!("nothing of the enclave's is left in registers {leaks:?}"), leaks.is_empty())?;
    step("  intact", target.intact())
}

/// Memory for messages that is not the host's.
fn hostile_pointers(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    let mut target = Target::new(files)?;
    let (base, size) = (target.base, files.size());
    let good = (target.exchange(), target.capacity());
    let mut wrong = vec![
        (0, u64::MAX),
        (good.0 + 1, good.1),
        (good.0 + 4, good.1 - 8),
        (good.0, good.1 + 1),
        (good.0, u64::MAX - 7),
        (good.0, 1 << 40),
        (base, 4096),
        (base - 64, 8),
        (base - 8, 4096),
        (base + size - 8, 64),
        (base - 4096, size + 8192),
        (!7, 64),
        (!63, 0),
        (1 << 63, !7 & (u64::MAX >> 1)),
    ];
    wrong.extend((0..rounds).map(|_| (base + (random.below(size) & !7), random.below(1 << 20) & !7)));
    let mut refused = true;
    for (exchange, capacity) in wrong {
        target.put(Exchange { function: number::ECHO, ..Exchange::default() }, &[]);
        let before = target.memory.clone();
        for command in 0..3 {
            target.entry.enter(command, exchange, capacity);
            refused &= target.memory == before && target.entry.leaks().is_empty();
        }
    }
    step("messages in the enclave, across its ends, unaligned, endless: refused, nothing written", refused)?;
    step("  intact", target.intact())
}

/// Commands in an order that is none.
fn out_of_order(files: &Files) -> Result<(), String> {
    let mut target = Target::new(files)?;
    let refuses = |target: &mut Target, commands: &[u64]| {
        commands.iter().all(|&command| {
            target.put(Exchange { function: number::ECHO, ..Exchange::default() }, &[]);
            let before = target.memory.clone();
            target.enter(command);
            target.memory == before && target.entry.leaks().is_empty()
        })
    };
    let [call, give_back, exception] = [Command::Call, Command::Return, Command::Exception].map(|c| c as u64);
    let unknown = [3, 4, 1 << 32, u64::MAX];
    let at_rest = refuses(&mut target, &[give_back, exception]) && refuses(&mut target, &unknown);
    step("at rest: returns, exceptions and unknown commands are refused", at_rest)?;

    let (outcome, _) = target.call(number::ASK, b"\x02it");
    step("  it calls the host", outcome == Some(Outcome::Ocall))?;
    let waiting = refuses(&mut target, &[call, exception]) && refuses(&mut target, &unknown);
    step("waiting for a return: calls, exceptions and unknown commands are refused", waiting)?;
    target.put(Exchange { length: 5, ..Exchange::default() }, b"\x04fine");
    target.enter(give_back);
    let expected = [&[0, 4][..], b"fine"].concat();
    step("then the return is taken", target.said() == (Some(Outcome::Done), expected))?;
    step("and no second one", refuses(&mut target, &[give_back]))?;
    step("  intact", target.intact())
}

/// Arguments of all kinds for all functions.
fn fuzzed_arguments(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    let enclave = load(files)?;
    let check = CheckClient(&*enclave);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..rounds {
        // one more: there is none of that number
        let function = random.below(number::COUNT + 1) as u32;
        let len = random.below(40) as usize * random.below(2) as usize;
        let mut arguments = random.bytes(len);
        // now and then small numbers, which lengths and choices are, and a length that is right
        arguments.iter_mut().for_each(|byte| *byte &= [0xff, 0x0f, 0x83][random.below(3) as usize]);
        if let (Some(first), 0) = (arguments.first_mut(), random.below(2)) {
            *first = len as u8 - 1;
        }
        if number::NOT_AT_RANDOM.contains(&function) {
            continue;
        }
        match enclave.call(function, &arguments) {
            Ok(_) => taken += 1,
            Err(Error::BadArguments | Error::NoFunction) => refused += 1,
            Err(other) => return Err(format!("function {function} of {arguments:x?}: {other}")),
        }
    }
    step(
        &format!("fuzzed arguments: {taken} calls of random bytes are taken, {refused} refused"),
        taken > 0 && refused > 0,
    )?;
    step("  intact", check.intact() == Ok(true))
}

/// Results that are not what was asked for.
fn lying_results(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    // what the honest half of the host crate delivers of a lying function
    static LIE: AtomicU64 = AtomicU64::new(0);
    let lying = options().ocalls(|_, _| Ok(LIE.load(Ordering::Relaxed).to_le_bytes()[..1].to_vec()));
    let enclave = Enclave::load(files.clone(), lying).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    let right = (0..=255).all(|lie| {
        LIE.store(lie, Ordering::Relaxed);
        let told = check.percentage();
        // varints from 128 on are cut short
        if lie <= 100 { told == Ok(Ok(lie as u8)) } else { matches!(told, Ok(Err(_))) }
    });
    step("a percentage beyond a hundred is no percentage", right)?;

    let mut target = Target::new(files)?;
    let mut held = true;
    for _ in 0..rounds {
        let (outcome, _) = target.call(number::ASK, b"\x02it");
        held &= outcome == Some(Outcome::Ocall);
        let len = random.below(64) as usize;
        let message = random.bytes(len);
        let code = [0, 0, FAILED, random.next() as u32][random.below(4) as usize];
        let length = [len as u64, random.below(1 << 17), random.next(), u64::MAX][random.below(4) as usize];
        target
            .put(Exchange { code, function: random.next() as u32, length, ..Exchange::default() }, &message);
        target.enter(Command::Return as u64);
        let (outcome, message) = target.said();
        let told: Option<Result<String, String>> = decode(&message);
        held &= outcome == Some(Outcome::Done) && told.is_some();
    }
    step("results of any code, length and content are a value or an error", held)?;
    step("  intact", target.intact())
}

/// Messages that change while they are read.
fn changing_memory(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    let mut target = Target::new(files)?;
    let seed = random.next();
    let memory = target.exchange();
    let stop = Arc::new(AtomicBool::new(false));
    let changer = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut random = Random(seed);
            while !stop.load(Ordering::Relaxed) {
                // code and function stay, so that calls come through; length and data change
                let at = 8 + random.below(600);
                let length = if at < 16 { random.below(1200) } else { random.next() };
                let byte = if at < 10 || at >= 64 { length as u8 } else { 0 };
                // SAFETY: within the exchange, which outlives this thread; races are the point.
                unsafe { ((memory + at) as *mut u8).write_volatile(byte) };
            }
        }
    });
    let mut message = vec![0xe8, 0x07];
    message.resize(1002, 7);
    let (mut same, mut refused, mut held) = (0, 0, true);
    for _ in 0..rounds {
        let (mut outcome, mut said) = target.call(number::STAYS, &message);
        if outcome == Some(Outcome::Ocall) {
            target.put(Exchange::default(), &[]);
            target.enter(Command::Return as u64);
            (outcome, said) = target.said();
        }
        match outcome {
            Some(Outcome::Done) if said.first() == Some(&1) => same += 1,
            // the length, or that of the data within, was changed before it was read
            Some(Outcome::BadArguments | Outcome::TooLarge) => refused += 1,
            // the message was changed after it was written: not the enclave's doing
            Some(Outcome::Done) => {}
            _ => held = false,
        }
    }
    stop.store(true, Ordering::Relaxed);
    changer.join().map_err(|_| "the other thread failed")?;
    step(&format!("memory that changes: {same} read once and kept, {refused} refused"), held && same > 0)?;
    step("  intact", target.intact())
}
