//! A run: steps one after the other, each compared with the model, and after each a
//! search for secrets.

use std::collections::VecDeque;

use arch::regs::gpr;

use difftest::rng::Rng;

use crate::layout::*;
use crate::machine::{Event, Machine, PROCESSORS};
use crate::model::{Kind, Model};
use crate::secret::Scanner;
use crate::step::Step;
use crate::template;

/// Steps that a failure's log shows.
const LOG: usize = 24;
/// Between two comparisons of the whole EPC.
const SWEEP: u64 = 128;

/// A difference between machine and model, or a secret in the open.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step, from 0.
    pub step: u64,
    /// What is wrong.
    pub message: String,
    /// The last steps, the failing one last.
    pub log: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} step {}: {}", self.seed, self.step, self.message)?;
        for line in &self.log {
            writeln!(f, "  {line}")?;
        }
        write!(f, "rerun: kluis-sgxfuzz --seeds {}..{} --steps {}", self.seed, self.seed + 1, self.step + 1)
    }
}

/// What a run has done, to see that it reaches deep states.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Steps.
    pub steps: u64,
    /// Entries and resumptions.
    pub entries: u64,
    /// Asynchronous exits.
    pub exits: u64,
    /// Loads and stores in an enclave's range that succeeded inside.
    pub inside: u64,
    /// Faults by the EPCM.
    pub refused: u64,
    /// Leaves of the kernel that succeeded, by number.
    pub encls: [u64; 32],
    /// Leaves inside that succeeded, by number.
    pub enclu: [u64; 16],
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Counts) {
        self.steps += other.steps;
        self.entries += other.entries;
        self.exits += other.exits;
        self.inside += other.inside;
        self.refused += other.refused;
        self.encls.iter_mut().zip(other.encls).for_each(|(to, n)| *to += n);
        self.enclu.iter_mut().zip(other.enclu).for_each(|(to, n)| *to += n);
    }
}

/// Machine, model and what drives them.
pub struct Fuzz {
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) rng: Rng,
    pub(crate) scanner: Scanner,
    pub(crate) plan: VecDeque<Step>,
    pub(crate) counts: Counts,
    /// Page tables have changed since the processor last forgot its translations.
    pub(crate) dirty: [bool; PROCESSORS],
    /// What the last step came to, for the log.
    pub(crate) last: Option<Event>,
    buffer: Vec<u8>,
}

impl Fuzz {
    /// A machine with a SIGSTRUCT and nothing in its EPC.
    pub fn new(seed: u64) -> Fuzz {
        let machine = Machine::new();
        machine.ram.write(SIGSTRUCT, template::sigstruct());
        for (n, word) in template::mrsigner().chunks_exact(8).enumerate() {
            let value = u64::from_le_bytes(word.try_into().unwrap_or_default());
            machine.package.set_launch_hash_msr(n, value);
        }
        Fuzz {
            machine,
            model: Model::default(),
            rng: Rng::named(seed, "sgxfuzz"),
            scanner: Scanner::default(),
            plan: VecDeque::new(),
            counts: Counts::default(),
            dirty: [true; PROCESSORS],
            last: None,
            buffer: vec![0; RAM_BYTES as usize],
        }
    }

    /// Looks for secrets in RAM and in the registers of processors outside.
    fn search(&mut self) -> Result<(), String> {
        if !self.machine.ram.read(0, &mut self.buffer) {
            return Err("RAM cannot be read".into());
        }
        if let Some(at) = self.scanner.find(&self.buffer) {
            return Err(format!("a secret is in RAM at {at:#x}"));
        }
        for lp in 0..PROCESSORS {
            if self.machine.inside(lp) != self.model.inside[lp].is_some() {
                return Err(format!("processor {lp} is not on the side where the model has it"));
            }
            if self.machine.inside(lp) {
                continue;
            }
            let s = &self.machine.cpu(lp).s;
            let mut words: Vec<u64> = (0..16).map(|n| s.regs.get(n)).collect();
            words.extend(s.vec.iter().flat_map(|v| v.0));
            words.extend(s.x87.st.iter().flat_map(|&st| [st as u64, (st >> 64) as u64]));
            words.extend(s.seg.iter().map(|seg| seg.base));
            words.extend([s.cr2, s.x87.fip, s.x87.fdp, s.rip]);
            words.extend(s.dr);
            if let Some(n) = words.iter().position(|&word| self.scanner.is_secret(word)) {
                return Err(format!("a secret is in a register of processor {lp}, word {n}"));
            }
        }
        Ok(())
    }

    /// Compares the content of every page of an enclave.
    fn sweep(&self) -> Result<(), String> {
        for (number, page) in self.model.pages.iter().enumerate() {
            if page.kind.is_child() {
                self.compare(number)?;
            }
        }
        Ok(())
    }

    /// Compares the content of a page with the model's.
    pub(crate) fn compare(&self, number: usize) -> Result<(), String> {
        let (real, page) = (self.machine.content(number), &self.model.pages[number]);
        match real.iter().zip(&page.content).position(|(a, b)| a != b) {
            Some(at) => Err(format!(
                "EPC page {number} ({:?} at {:#x}) is not what its enclave wrote, from byte {at:#x}",
                page.kind, page.la
            )),
            None => Ok(()),
        }
    }

    /// Sets the registers of a processor outside to what nobody need hide.
    pub(crate) fn public_registers(&mut self, lp: usize) {
        for number in 0..16 {
            self.machine.set(lp, &[(number, 0x1000_0000 + number as u64)]);
        }
        self.machine.set(lp, &[(gpr::RSP, SPARE + 0x800), (gpr::RBP, SPARE + 0x900 + lp as u64)]);
    }

    /// A run of up to `steps` steps.
    ///
    /// # Errors
    /// The first failure.
    pub fn run(seed: u64, steps: u64) -> Result<Counts, Box<Failure>> {
        let mut fuzz = Fuzz::new(seed);
        let mut log: VecDeque<String> = VecDeque::new();
        for number in 0..steps {
            let step = fuzz.next_step();
            fuzz.last = None;
            let mut result = fuzz.execute(step).and_then(|()| fuzz.search());
            if result.is_ok() && number % SWEEP == SWEEP - 1 {
                result = fuzz.sweep();
            }
            if log.len() == LOG {
                log.pop_front();
            }
            log.push_back(match fuzz.last {
                Some(event) => format!("{number}: {step:x?} -> {event:x?}"),
                None => format!("{number}: {step:x?}"),
            });
            fuzz.counts.steps += 1;
            if let Err(message) = result {
                return Err(Box::new(Failure { seed, step: number, message, log: log.into() }));
            }
        }
        Ok(fuzz.counts)
    }

    /// Pages of a kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<usize> {
        (0..self.model.pages.len()).filter(|&n| self.model.pages[n].kind == kind).collect()
    }
}
